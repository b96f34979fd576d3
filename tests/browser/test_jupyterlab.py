"""What a learner sees: the course opened in a real JupyterLab by a real browser, its cells run, an exercise solved."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from lab import Lab, running_lab

from dlcourse.exercises.registry import find

pytestmark = [pytest.mark.browser, pytest.mark.timeout(170)]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHAPTER = "01_compute_with_tensors.ipynb"
EXERCISE = "tensors.standardize"
WALK = """import time

import dlcourse

print("before the loop")
for step in dlcourse.progress(range(30), "walking"):
    time.sleep(0.1)
print("after the loop")
"""


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOKS / CHAPTER, folder)
    walk = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in ("1 + 1", WALK)])
    walk.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(walk, folder / "walk.ipynb")
    with running_lab(folder, home) as running:
        yield running


@contextmanager
def opened(browser, lab: Lab, notebook: str, pictures: Path):
    """The notebook in a fresh browser page. When the block fails, what the page showed stays in `pictures`."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(30_000)
    try:
        with page.expect_websocket(lambda socket: "/channels" in socket.url) as channel:
            page.goto(lab.page(notebook))
        # The page says "idle" before there is a kernel, and drops what is run before the kernel has answered.
        channel.value.wait_for_event("framereceived", lambda frame: b"kernel_info_reply" in as_bytes(frame))
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        yield page
    except BaseException as error:
        picture = pictures / f"{Path(notebook).stem}.png"
        page.screenshot(path=picture)
        error.add_note(f"what the page showed: {picture}")
        raise
    finally:
        page.close()


def as_bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def code_cells(page):
    return page.locator(".jp-CodeCell")


def output(cell):
    return cell.locator(".jp-Cell-outputArea")


def run_all(page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def save(page, path: Path) -> dict:
    """File > Save Notebook; returns what then lies on the disk."""
    with page.expect_response(lambda reply: reply.request.method == "PUT" and path.name in reply.url):
        page.keyboard.press("Control+s")
    return json.loads(path.read_text(encoding="utf-8"))


def test_chapter_01_runs_and_its_exercise_answers(browser, lab, tmp_path):
    from playwright.sync_api import expect

    with opened(browser, lab, CHAPTER, tmp_path) as page:
        run_all(page)
        counted = re.compile(r"\[\d+\]:")
        expect(code_cells(page).last.locator(".jp-InputPrompt")).to_have_text(counted, timeout=90_000)
        for kind in ("error", "stderr"):
            expect(page.locator(f'[data-mime-type="application/vnd.jupyter.{kind}"]')).to_have_count(0)
        figure = page.locator(".jp-OutputArea img").first
        figure.scroll_into_view_if_needed()
        expect(figure).to_be_visible()
        assert figure.evaluate("image => image.complete && image.naturalWidth") > 200

        cell = code_cells(page).filter(has_text=f'check("{EXERCISE}"')
        expect(cell).to_have_count(1)
        expect(output(cell)).to_have_text(f'{EXERCISE}: not attempted yet: hint("{EXERCISE}")')

        reference = find(EXERCISE).reference
        right = inspect.getsource(reference)
        wrong = f"def {reference.__name__}(*args):\n    return args[0] * 2\n"
        for answer, verdict in ((wrong, "not yet."), (right, "right. Verified:")):
            editor = cell.locator(".cm-content")
            editor.fill(f'from torch import Tensor\n\n\n{answer}\n\ncheck("{EXERCISE}", {reference.__name__})')
            editor.press("Control+Enter")
            expect(output(cell)).to_contain_text(f"{EXERCISE}: {verdict}")


def test_a_progress_bar_is_seen_while_it_runs_and_not_saved(browser, lab, tmp_path):
    from playwright.sync_api import expect

    with opened(browser, lab, "walk.ipynb", tmp_path) as page:
        run_all(page)
        cell = code_cells(page).nth(1)
        bar = cell.locator(".widget-hbox")
        expect(bar).to_contain_text("walking:")
        expect(bar).to_contain_text(re.compile(r"\d+/30"))
        expect(bar.locator(".progress-bar")).to_be_visible()
        expect(output(cell)).to_contain_text("after the loop")
        expect(bar).to_have_count(0)
        saved = save(page, lab.folder / "walk.ipynb")

    outputs = saved["cells"][1]["outputs"]
    printed = [line for item in outputs for line in item.get("text", [])]
    assert printed == ["before the loop\n", "after the loop\n"]
    # The bar's place is kept by one display of nothing: no widget, no text, no picture.
    assert [item for item in outputs if item["output_type"] != "stream" and item["data"]] == []
    assert "widgets" not in saved["metadata"]
    assert "walking" not in json.dumps(outputs)
