"""What NOTEBOOK readers rely on: contents, order, stored outputs, structure of each page."""

import ast
import re
import statistics

import pytest
from contents import TOPICS, required_tags
from reading import NOTEBOOKS, ROOT, notebook_id

from dlcourse.exercises.registry import all_exercises

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=notebook_id)


def test_there_are_notebooks_and_each_is_a_chapter_of_its_own():
    chapters = [notebook.chapter for notebook in NOTEBOOKS]
    assert chapters == sorted(set(chapters) & set(TOPICS))
    assert len(chapters) >= 5


@each_notebook
def test_every_topic_and_pitfall_of_the_chapter_is_on_the_page(notebook):
    tags = {tag for cell in notebook.code for tag in cell.tags}
    assert required_tags(notebook.chapter) - tags == set()


@each_notebook
def test_tags_are_known(notebook):
    known = re.compile(r"(topic:T\d+\.\d+|pitfall:P\d+|same-as:dlcourse\.[\w.]+|exercise:\w+\.\w+|nbval-ignore-output)")
    assert [tag for cell in notebook.cells for tag in cell.tags if not known.fullmatch(tag)] == []


@each_notebook
def test_outputs_come_from_one_clean_run(notebook):
    assert [cell.execution_count for cell in notebook.code] == list(range(1, len(notebook.code) + 1))
    for cell in notebook.code:
        assert cell.source.strip(), f"cell {cell.number} is empty"
        for output in cell.outputs:
            assert output["output_type"] != "error", f"cell {cell.number} stores a traceback"
            assert output.get("name") != "stderr", f"cell {cell.number} stores stderr: {output['text']}"


@each_notebook
def test_outputs_name_no_machine_and_hold_no_progress_bar(notebook):
    for cell in notebook.code:
        text = cell.text_output
        assert not re.search(r"(?:^|[\s'\"(=])(?:/(?:\w[\w.-]*/){2,}|[A-Z]:\\\\)", text), f"cell {cell.number}: a path"
        assert not re.search(r"\d(?:it/s|s/it)|\d%\|| at 0x[0-9a-f]{6}", text), (
            f"cell {cell.number}: a bar or an address"
        )
        data_keys = {key for output in cell.outputs for key in output.get("data", {})}
        assert "application/vnd.jupyter.widget-view+json" not in data_keys, f"cell {cell.number}: a widget"


@each_notebook
def test_a_learner_gets_a_small_file(notebook):
    assert notebook.path.stat().st_size < 1_500_000


def test_almost_every_output_is_compared():
    printing = [cell for notebook in NOTEBOOKS for cell in notebook.code if cell.outputs]
    ignored = [
        cell
        for cell in printing
        if "nbval-ignore-output" in cell.tags or re.search(r"#\s*NBVAL_(IGNORE|SKIP|RAISES)", cell.source)
    ]
    assert len(ignored) <= 0.03 * len(printing)


@each_notebook
def test_the_page_opens_and_closes_like_every_other(notebook):
    opening = notebook.cells[0].source
    assert notebook.cells[0].kind == "markdown"
    assert opening.startswith("# ")
    words = ("you will do", "you will learn", "minutes", "builds on", "reduced", "full")
    assert [word for word in words if word not in opening.lower()] == []
    first_code = notebook.code[0]
    assert re.search(r"^profile = dlcourse\.setup\(seed=\d+\)", first_code.source, re.MULTILINE)
    headings = [line for cell in notebook.prose for line in cell.source.splitlines() if line.startswith("## ")]
    assert headings[-4:] == ["## Quiz", "## Summary", "## In practice", "## Sources"]
    assert 3 <= notebook.section("Quiz").count("<details>") <= 6
    assert len([line for line in notebook.section("Summary").splitlines() if line.strip()]) <= 8


@each_notebook
def test_everything_is_imported_in_the_first_code_cell(notebook):
    """Later imports are only of what an earlier cell of the page has shown."""
    shown = set()
    for cell in notebook.code[1:]:
        shown |= {target.rpartition(".")[2] for target in cell.tagged("same-as")}
        for node in ast.walk(cell.tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert {alias.name for alias in node.names} <= shown, f"cell {cell.number}: {ast.unparse(node)}"


@each_notebook
def test_code_cells_are_short(notebook):
    lengths = []
    for cell in notebook.code[1:]:
        lines = sum(1 for line in cell.source.splitlines() if line.strip())
        lengths.append(lines)
        assert lines <= 25 or cell.tagged("same-as"), f"cell {cell.number} has {lines} lines"
    assert statistics.median(lengths) <= 9


@each_notebook
def test_folded_answers_are_closed_and_predictions_are_asked(notebook):
    text = "\n".join(cell.source for cell in notebook.prose)
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")
    assert text.lower().count("predict") >= 2


@each_notebook
def test_exercises_are_announced_as_they_are_registered(notebook):
    """The task cell before an exercise states its difficulty, importance and minutes; the stub is unsolved."""
    exercises = all_exercises()
    for index, cell in enumerate(notebook.cells):
        for name in cell.tagged("exercise"):
            task = notebook.cells[index - 1].source
            exercise = exercises[name]
            facts = (
                f"Difficulty {exercise.difficulty}/5 · Importance {exercise.importance}/5 · {exercise.minutes} minutes"
            )
            assert task.startswith("### Exercise"), f"{name}: the cell before it is no task"
            assert facts in task, f"{name}: the task should say {facts!r}"
            assert f'check("{name}", ' in cell.source
            assert cell.text_output.strip() == f'{name}: not attempted yet: hint("{name}")'


def test_every_exercise_stands_on_exactly_one_page():
    on_pages = [name for notebook in NOTEBOOKS for cell in notebook.code for name in cell.tagged("exercise")]
    assert sorted(on_pages) == sorted(all_exercises())


@each_notebook
def test_a_chapter_has_exercises(notebook):
    count = sum(len(cell.tagged("exercise")) for cell in notebook.code)
    assert count >= 3 or notebook.chapter == 0


@each_notebook
def test_every_figure_is_held_by_a_check_beside_it(notebook):
    """An image is not compared, so an `expect` or `assert` in its cell or next to it holds what the figure says."""
    held = [bool(re.search(r"\b(expect|assert|assert_close)\b", cell.source)) for cell in notebook.code]
    for index, cell in enumerate(notebook.code):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert any(held[max(0, index - 1) : index + 2]), f"cell {cell.number}: nothing holds this figure's message"


def test_the_readme_lists_the_chapters_with_their_titles_and_minutes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for notebook in NOTEBOOKS:
        opening = notebook.cells[0].source
        title = opening.splitlines()[0].removeprefix("# ").strip()
        minutes = re.search(r"(\d+) minutes", opening)[1]
        row = rf"\|[^|\n]*\[{re.escape(title)}\]\(notebooks/{notebook.path.name}\)[^|\n]*\|.*\| *{minutes} *\|"
        assert re.search(row, readme), (
            f"README.md: no row for {notebook.path.name} with {title!r} and {minutes} minutes"
        )
