"""The service's page as a person uses it: the real service behind it, a real browser before it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlcourse.data import eval_transform, load_dataset
from dlcourse.deployment import BackgroundServer, ModelCard, Predictor, create_app
from dlcourse.models import create_model

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

KEY = "sesame-opens"
REFUSED = re.compile(r"Failed to load resource: ")  # Chromium's own words at each refusal
DROP = """([name, kind, encoded]) => {
    const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name, {type: kind}));
    return carried;
}"""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """An untrained network, its outputs spread so that its answers are sure of themselves."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(create_model("simple_cnn", 10), Spread())
    classes = load_dataset("fashion-mini", "test").classes
    card = ModelCard(
        classes, eval_transform(32), "Clothing <b>& more</b>", {"test accuracy": 0.87, "data": "fashion-mini"}
    )
    return Predictor.of(network.eval(), card)


class Spread(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return 3 * (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)


@pytest.fixture(scope="module")
def samples() -> list[tuple[str, bytes]]:
    images = load_dataset("fashion-mini", "test").images
    return [(f"sample {n}.png", as_png(np.asarray(images[n]).transpose(1, 2, 0))) for n in range(6)]


@pytest.fixture(scope="module")
def service(predictor, samples) -> Iterator[BackgroundServer]:
    with BackgroundServer(create_app(predictor, samples=samples)) as server:
        yield server


def as_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(content, "PNG")
    return content.getvalue()


@contextmanager
def opened(browser, server: BackgroundServer, pictures: Path, **options):
    """The page, watched: no error in its console but refusals, nothing asked of another host. A picture of it stays."""
    page = browser.new_page(**{"viewport": {"width": 1100, "height": 900}, **options})
    page.set_default_timeout(15_000)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(server.url)
        yield page
        assert [text for text in said if not REFUSED.match(text)] == []
        assert [url for url in asked if not url.startswith((server.url, f"blob:{server.url}"))] == []
    finally:
        page.screenshot(path=pictures / "page.png", full_page=True)
        page.close()


def card_of(page, file: str):
    return page.locator(".answer").filter(has=page.get_by_text(file, exact=True))


def shown(card) -> list[tuple[str, str]]:
    return [tuple(row.inner_text().split("\n")) for row in card.locator(".classes li").all()]


def expected(prediction) -> list[tuple[str, str]]:
    return [(label, f"{100 * probability:.1f} %") for label, probability in prediction.top(5)]


def files(**contents: bytes) -> list[dict]:
    return [
        {"name": name.replace("_", "."), "mimeType": "image/png", "buffer": content}
        for name, content in contents.items()
    ]


def test_chosen_pictures_get_their_bars_and_a_text_its_refusal(browser, service, predictor, samples, tmp_path):
    from playwright.sync_api import expect

    with opened(browser, service, tmp_path) as page:
        expect(page).to_have_title("Clothing <b>& more</b>")
        expect(page.locator("h1")).to_have_text("Clothing <b>& more</b>")
        page.set_input_files("#pictures", files(a_png=samples[0][1], b_png=samples[1][1], notes_png=b"not a picture"))
        for name, (_, content) in zip(("a.png", "b.png"), samples, strict=False):
            card, prediction = card_of(page, name), predictor.predict(content)
            expect(card.locator("h3")).to_have_text(prediction.label)
            assert shown(card) == expected(prediction)
            widths = [
                bar.evaluate("bar => parseFloat(getComputedStyle(bar, '::before').width)")
                for bar in card.locator(".bar").all()
            ]
            full = card.locator(".bar").first.evaluate("bar => bar.clientWidth")
            assert np.allclose(np.array(widths) / full, [p for _, p in prediction.top(5)], atol=0.01)
            assert card.locator("img").evaluate("image => image.complete && image.naturalWidth") == 32
        refused = card_of(page, "notes.png")
        expect(refused.locator("h3")).to_have_text("No answer")
        expect(refused.locator(".error")).to_contain_text("notes.png is not a picture")
        expect(page.get_by_role("status")).not_to_contain_text("to go")
        expect(page.locator("[aria-busy]")).to_have_count(0)


def test_dropped_and_pasted_pictures_are_answered(browser, service, samples, tmp_path):
    from base64 import b64encode

    from playwright.sync_api import expect

    with opened(browser, service, tmp_path) as page:
        for event, argument in (("drop", "dataTransfer"), ("paste", "clipboardData")):
            name = f"{event}.png"
            carried = page.evaluate_handle(DROP, [name, "image/png", b64encode(samples[2][1]).decode()])
            page.evaluate(
                """([event, argument, carried]) => document.body.dispatchEvent(new (event == "drop" ? DragEvent : ClipboardEvent)(
                    event, {[argument]: carried, bubbles: true, cancelable: true}))""",
                [event, argument, carried],
            )
            expect(card_of(page, name).locator(".classes li")).to_have_count(5)


def test_the_keyboard_alone_is_enough_and_shows_where_it_is(browser, service, predictor, samples, tmp_path):
    from playwright.sync_api import expect

    with opened(browser, service, tmp_path) as page:
        expect(page.locator("#sample-list button")).to_have_count(len(samples))
        page.keyboard.press("Tab")
        expect(page.locator("#pictures")).to_be_focused()
        assert page.locator("#drop").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
        with page.expect_file_chooser():
            page.keyboard.press("Space")
        page.keyboard.press("Tab")
        sample = page.locator("#sample-list button").first
        expect(sample).to_be_focused()
        assert sample.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
        expect(sample).to_have_accessible_name("sample 0.png")
        page.keyboard.press("Enter")
        prediction = predictor.predict(samples[0][1])
        expect(page.get_by_role("status")).to_contain_text(f"sample 0.png: {prediction.label}, ")
        for _ in range(len(samples)):
            page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Clear")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".answer")).to_have_count(0)
        expect(page.locator("#pictures")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_schemes(browser, service, samples, tmp_path, scheme):
    with opened(browser, service, tmp_path, color_scheme=scheme, viewport={"width": 320, "height": 700}) as page:
        page.set_input_files("#pictures", files(a_png=samples[0][1], notes_png=b"no"))
        page.locator(".classes li").last.wait_for()
        page.locator(".error").wait_for()
        for summary in page.locator("summary").all():
            summary.click()
        for where in (
            "h1",
            "#purpose",
            "#drop strong",
            "#ways",
            "#status",
            ".file",
            ".percent",
            ".error",
            ".blank",
            "dt",
            "dd",
            "#example",
            "a",
        ):
            colours = page.locator(where).first.evaluate(
                """element => {
                    const ground = (e) => e ? (c => c == "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : c)(getComputedStyle(e).backgroundColor) : "";
                    return [getComputedStyle(element).color, ground(element)];
                }"""
            )
            assert contrast(*colours) >= 4.5, (where, colours)
        assert (luminance(colours[1]) < 0.2) == (scheme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)": WCAG 2.2."""
    channels = np.array([int(number) / 255 for number in re.findall(r"\d+", colour)[:3]])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_a_name_made_of_markup_is_shown_as_text(browser, service, samples, tmp_path):
    from playwright.sync_api import expect

    name = "<img src=x onerror=document.title='owned'>.png"
    with opened(browser, service, tmp_path) as page:
        page.set_input_files("#pictures", [{"name": name, "mimeType": "image/png", "buffer": samples[0][1]}])
        expect(page.locator(".answer .file")).to_have_text(name)
        expect(page.get_by_role("status")).to_contain_text(name)
        expect(page).to_have_title("Clothing <b>& more</b>")


def test_a_service_with_a_key_asks_for_it_until_it_is_right(browser, predictor, samples, tmp_path):
    from playwright.sync_api import expect

    with (
        BackgroundServer(create_app(predictor, samples=samples, api_key=KEY)) as server,
        opened(browser, server, tmp_path) as page,
    ):
        field = page.get_by_label("API key")
        for given in ("wrong-key", KEY):
            expect(field).to_be_focused()
            expect(page.locator("#key-reason")).to_contain_text("key")
            field.fill(given)
            field.press("Enter")
        expect(page.locator("h1")).to_have_text("Clothing <b>& more</b>")
        expect(field).to_be_hidden()
        page.locator("#sample-list button").first.click()
        expect(page.locator(".classes li")).to_have_count(5)
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert json.loads(kept) == [{}, {}, ""]


def test_too_large_a_file_and_a_service_that_has_gone_are_told_in_words(browser, predictor, tmp_path):
    from playwright.sync_api import expect

    with BackgroundServer(create_app(predictor)) as server, opened(browser, server, tmp_path) as page:
        expect(page.locator("h1")).to_have_text("Clothing <b>& more</b>")
        page.set_input_files("#pictures", files(large_png=bytes(20 * 2**20)))
        expect(card_of(page, "large.png").locator(".error")).to_have_text("The file has 20.0 MB; 16.0 MB are the most.")
        page.route("**/predict*", lambda route: route.abort())
        page.set_input_files("#pictures", files(gone_png=b"any"))
        expect(card_of(page, "gone.png").locator(".error")).to_contain_text("The service gave no answer")
        page.unroute("**/predict*")
        page.route("**/predict*", lambda route: route.fulfill(status=502, body="<html>Bad gateway"))
        page.set_input_files("#pictures", files(proxy_png=b"any"))
        expect(card_of(page, "proxy.png").locator(".error")).to_have_text(
            "The service refused the request (status 502)."
        )


def test_a_busy_service_is_asked_again(browser, service, samples, tmp_path):
    from playwright.sync_api import expect

    with opened(browser, service, tmp_path) as page:
        busy = iter([True, False])

        def answer(route):
            if next(busy):
                route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "the service is busy"})
            else:
                route.continue_()

        page.route("**/predict*", answer)
        page.set_input_files("#pictures", files(a_png=samples[0][1]))
        expect(page.locator(".answer[aria-busy] h3")).to_have_text("Looking")
        expect(page.locator(".classes li")).to_have_count(5)
