"""Make the pictures of docs/page.md: `python docs/screenshots.py`, beside a running server.

The server needs the models of the default study, and their raw data in data/:

    python -m ostinato serve results/sketches-conv-bilstm results/sketches-nearest \
        results/weather-linear results/translation-attention results/order-c3d \
        recipes/generation/results/generation-sketch-rnn
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
SIZES = {"": (1120, 780), "-phone": (360, 740)}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


Strokes = list[list[list[float]]]


def drawing_of(name: str) -> Strokes:
    """One of the embedded drawings with several strokes."""
    file = ROOT / "data/raw/sketches" / f"{name}.ndjson"
    return next(
        strokes
        for line in file.read_text(encoding="utf-8").splitlines()[7:]
        if len(strokes := json.loads(line)["drawing"]) > 2
    )


def trace(
    page: Page, strokes: Strokes, count: int | None = None, pad: str = "Drawing area"
) -> None:
    """Draw the first strokes of a drawing, where they lie in the whole one."""
    canvas = page.locator("[role=tabpanel]:visible").get_by_label(pad, exact=True)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    xs, ys = ([v for stroke in strokes for v in stroke[axis]] for axis in (0, 1))
    scale = 0.8 * box["width"] / max(max(xs) - min(xs), max(ys) - min(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
        left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        return left + (x - middle[0]) * scale, top + (y - middle[1]) * scale

    for stroke in strokes[:count]:
        page.mouse.move(*place(stroke[0][0], stroke[1][0]))
        page.mouse.down()
        for x, y in zip(stroke[0][1:], stroke[1][1:], strict=True):
            page.mouse.move(*place(x, y), steps=2)
        page.mouse.up()


def draw(page: Page) -> None:
    """Draw a fish of the embedded drawings, stroke by stroke."""
    trace(page, drawing_of("fish"))
    beside = page.get_by_label("Beside it")
    if beside.is_visible():
        beside.select_option(index=1)
    page.locator(".reasons li").last.wait_for(state="attached")
    page.locator(".guesses:visible").last.locator(".bar").first.wait_for()
    page.wait_for_timeout(500)  # the bars grow


def finish(page: Page) -> None:
    """Begin a smiley face, and see six continuations."""
    panel = page.get_by_role("tabpanel", name="Finish")
    panel.get_by_label("Class").select_option("smiley face")
    panel.get_by_label("Drawings").select_option("6")
    trace(page, drawing_of("smiley face"), 2)
    panel.locator(".gallery li").nth(5).wait_for()
    page.wait_for_timeout(500)


def between(page: Page) -> None:
    """Draw two faces, and see what lies between them."""
    panel = page.get_by_role("tabpanel", name="Between")
    panel.get_by_label("Class").select_option("smiley face")
    trace(page, drawing_of("smiley face"), pad="First drawing")
    trace(page, drawing_of("apple"), pad="Second drawing")
    panel.locator(".gallery li").nth(6).wait_for()
    page.wait_for_timeout(500)
    panel.locator(".note.busy").wait_for(state="detached")


def series(page: Page) -> None:
    """Forecast the embedded weather from an origin before the end."""
    (file,) = (ROOT / "data/raw/weather").glob("*.csv")
    page.locator("#panel-series input[type=file]").set_input_files(file)
    page.get_by_label("Column of values").select_option(label="temp_max")
    slider = page.get_by_label("Origin of the forecast")
    slider.wait_for()
    for _ in range(7):
        slider.press("ArrowLeft")
    page.get_by_text("over 7 steps").wait_for()


def text(page: Page) -> None:
    """Translate a sentence and show what a word attended to."""
    page.locator("textarea").fill("Enter a valid email address.")
    page.get_by_role("button", name="Translate").click()
    page.locator(".word.target").nth(1).focus()


def video(page: Page) -> None:
    """Classify a clip of the embedded videos."""
    file = sorted(path for path in (ROOT / "data/raw/order/erased").iterdir() if path.is_file())[0]
    page.locator("#panel-video input[type=file]").set_input_files(file)
    page.locator(".frame").first.wait_for()


def monitoring(page: Page) -> None:
    """Show the newest report."""
    page.locator("#panel-monitoring .card").first.wait_for()
    page.wait_for_timeout(500)


TABS: dict[str, Callable[[Page], None]] = {
    "draw": draw,
    "finish": finish,
    "between": between,
    "series": series,
    "text": text,
    "video": video,
    "monitoring": monitoring,
}


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs", help="for the pictures")
    parser.add_argument("--dark", action="store_true", help="dark ones, too")
    parser.add_argument("--phone", action="store_true", help="of a phone, too")
    parser.add_argument("tabs", nargs="*", help="which; all by default")
    options = parser.parse_args()
    themes: list[Any] = ["light", "dark"] if options.dark else ["light"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme in themes:
            for size, (width, height) in SIZES.items():
                if size and not options.phone:
                    continue
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme=theme
                )
                page = context.new_page()
                page.on("console", lambda message: print(message.text))
                page.on("pageerror", lambda error: print(error))
                page.goto(options.url)
                for name in options.tabs or TABS:
                    page.get_by_role("tab", name=name.capitalize()).click()
                    TABS[name](page)
                    suffix = f"{'' if theme == 'light' else '-dark'}{size}"
                    target = options.folder / f"page-{name}{suffix}.png"
                    page.screenshot(path=target, full_page=True, animations="disabled")
                    print(target)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
