"""The page at /: its files, and in a real browser each tab against the real server.

The models are cheap fakes with the types of the real ones. What a fake answers is known, so the
tests see that the page sends the right inputs and shows the right answers.
"""

import contextlib
import json
import re
import shutil
import struct
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, sin
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from ostinato.errors import RequestError
from ostinato.forecasting import serving as forecasting
from ostinato.monitoring import report as reports
from ostinato.monitoring.report import Measure, MonitoringReport
from ostinato.music import dataset as music_data
from ostinato.music import serving as music
from ostinato.music.formats import midi
from ostinato.music.formats.roll import Note, Roll, from_notes
from ostinato.serving import classification, kinds, static
from ostinato.serving.loading import Interface, Loaded
from ostinato.serving.request_log import read
from ostinato.task import Json, Manifest
from ostinato.translation import serving as translation
from ostinato.video import serving as video
from tests import generators
from tests.echo import Running, running, until

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
browser_test = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
KEY = "a key of sixteen characters"
CLASSES = ["circle", "line", "zigzag"]
WINDOW, HORIZON = 5, 3

# Models


class Sketcher:
    """Counts closed and open strokes; the other class has little probability."""

    def __init__(self, bonus: float = 0.0) -> None:
        self.bonus = bonus

    def predict(
        self, inputs: Sequence[Any], options: Mapping[str, Json]
    ) -> list[classification.Response]:
        return [
            classification.response(self.probabilities(each.strokes), CLASSES, options["top_k"])
            for each in inputs
        ]

    def probabilities(self, strokes: list[list[list[float]]]) -> Any:
        closed = 0
        for xs, ys, times in strokes:
            if not (len(xs) == len(ys) == len(times) and times == sorted(times)):
                raise RequestError("drawing 0: a stroke without times")
            ends = abs(xs[0] - xs[-1]) + abs(ys[0] - ys[-1])
            closed += len(xs) > 4 and ends < 0.3 * (max(xs) - min(xs))
        weights = np.array([closed, len(strokes) - closed, 0.25 + self.bonus])
        return weights / weights.sum()


class Forecaster:
    """The last value, and 1 more with each step; the interval is 2 to both sides."""

    def predict(
        self, inputs: Sequence[Any], options: Mapping[str, Json]
    ) -> list[forecasting.Response]:
        responses = []
        for number, each in enumerate(inputs):
            if len(each.dates) < WINDOW:
                raise RequestError(f"input {number}: {len(each.dates)} values are too few")
            dates = pd.date_range(each.dates[-1], periods=HORIZON + 1, freq="D")[1:]
            last = each.values[-1]  # noqa: PD011 - not of pandas
            steps = [last + 1 + step for step in range(HORIZON)]
            interval = forecasting.Interval(low=[s - 2 for s in steps], high=[s + 2 for s in steps])
            responses.append(
                forecasting.Response(
                    dates=[date.isoformat() for date in dates],
                    forecast=steps,
                    intervals={"0.8": interval},
                    warnings=[],
                )
            )
        return responses


class Translator:
    """Writes words in capitals, in reverse order; the alternative has them as they are."""

    def predict(
        self, inputs: Sequence[Any], options: Mapping[str, Json]
    ) -> list[translation.Response]:
        responses = []
        for each in inputs:
            source = each.text.split()
            reverse = np.eye(len(source))[::-1] * 0.9 + 0.1 / len(source)
            found = [
                translation.Translation(
                    text=" ".join(words),
                    log_probability=-1.0 - rank,
                    score=-1.0 - rank,
                    words=words,
                    alignment=rows.tolist(),
                    alignment_starts=[0] * len(words),
                )
                for rank, (words, rows) in enumerate(
                    [([w.upper() for w in source[::-1]], reverse), (source, reverse[::-1])]
                )
            ]
            responses.append(
                translation.Response(
                    translation=found[0].text,
                    language="fr",
                    log_probability=-1.0,
                    score=-1.0,
                    split=False,
                    source_words=source,
                    translations=found[: options["top_k"] or None],
                )
            )
        return responses


class Watcher:
    """Reads two frames of any file; the first speaks for "up", the second against it."""

    def predict(
        self, inputs: Sequence[Any], options: Mapping[str, Json]
    ) -> list[classification.Response]:
        assert options["explain_clips"] == 4
        responses: list[classification.Response] = []
        for each in inputs:
            if not each.video.startswith("data:"):
                raise RequestError("video 0: unreadable")
            if b64encode(b"no video").decode() in each.video:
                raise RequestError("video 0: unreadable: no video at all")
            clip = video.ExplainedClip(
                clip=0,
                seconds=0.5,
                frames=2,
                height=1,
                width=2,
                channels=1,
                pixels=b64encode(bytes([0, 255, 80, 80])).decode(),
                probability=0.75,
                activation=[0.5, -0.25],
            )
            found = classification.response(np.array([0.75, 0.25]), ["up", "down"], 0)
            responses.append(video.Response(**found.model_dump(), clips=[clip]))
        return responses


class Scale:
    """Writes a scale in quarters from middle C, after the beginning."""

    conditional = True

    def write(
        self,
        frames: Sequence[int],
        styles: Any,
        musical_keys: Any,
        seeds: Sequence[int],
        temperature: Any,
        beginnings: Sequence[Roll],
    ) -> list[Roll]:
        found = []
        for length, begun in zip(frames, beginnings, strict=True):
            roll = from_notes([Note(t, 1, 60 + t) for t in range(length)], length)
            roll[: len(begun)] = begun
            found.append(roll)
        return found


def composer() -> music.MusicService:
    """A model of music whose pieces are known."""
    details = {"frames_per_quarter": 1, "quarters_per_bar": 4, "quarters_per_minute": 600}
    manifest = Manifest(
        source="test",
        examples="pieces",
        splits={},
        classes=["plain", "florid"],
        details={**details, "key_counts": [1] + [0] * 8 + [2] + [0] * 14},
    )
    return music.MusicService(Scale(), music_data.Dataset(Path("none"), manifest), 0.9)


@dataclass
class FakeSource:
    """A model that is loaded at once."""

    name: str
    domain: str
    service: Any
    reads: Mapping[str, Json]
    example: Json | None = None
    interface: Interface = field(init=False)

    def __post_init__(self) -> None:
        self.interface = Interface.of(self.domain)

    def current(self) -> str:
        return "7"

    def load(self, version: str) -> Loaded:
        return Loaded(version, self.service, {}, self.example, self.reads)


SERIES = {"frequency": "D", "window": WINDOW, "horizon": HORIZON, "series": ["sales"]}
COVARIATES: dict[str, list[str]] = {f"{k}_covariates": [] for k in ("past", "future", "static")}


def sources() -> list[FakeSource]:
    return [
        FakeSource("shapes", "sketches", Sketcher(), {"classes": CLASSES}),
        FakeSource("shapes@challenger", "sketches", Sketcher(99), {"classes": CLASSES}),
        FakeSource("sales", "forecasting", Forecaster(), SERIES | COVARIATES),
        FakeSource("capitals", "translation", Translator(), {"languages": ["en", "fr"]}),
        FakeSource("motions", "video", Watcher(), {"classes": ["up", "down"]}),
    ]


# Fixtures


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a generator, whose drawings are known, and one without encoder."""
    folder, found = tmp_path_factory.mktemp("studio"), []
    for name, latent_size in (("stairs", 2), ("plain", 0)):
        made = generators.Stairs(latent_size)
        service = generators.service(made, folder, judge=generators.Judge())
        found.append(FakeSource(name, "generation", service, service.reads))
    with running(*found) as server:
        yield server


@pytest.fixture(scope="module")
def hall() -> Iterator[Running]:
    """A server with a model of music, whose pieces are known."""
    service = composer()
    with running(FakeSource("scale", "music", service, service.reads)) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a model of each kind, which keeps feedback."""
    log, reports = (tmp_path_factory.mktemp(name) for name in ("log", "monitoring"))
    options: dict[str, Any] = {"log_folder": log, "monitoring": reports, "max_body_mb": 0.1}
    with running(*sources(), **options) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)  # CI shares its cores with other tests
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield found
        found.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: Running) -> Iterator[Open]:
    """Opens the page at a tab; a fault of a script or a breach of its policy fails the test."""
    faults: list[str] = []
    with contextlib.ExitStack() as stack:

        def open_page(tab: str = "draw", url: str = server.url, **options: Any) -> Page:
            sizes = {"viewport": {"width": 1100, "height": 900}, **options}
            context = browser.new_context(**sizes)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(15_000)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    faults.append(message.text)
                    if message.type == "error" and "Failed to load resource" not in message.text
                    else None
                ),
            )
            page.goto(f"{url}/#{tab}")
            return page

        yield open_page
    assert faults == []


def box(page: Page, label: str = "Drawing area") -> tuple[float, float, float]:
    """Left, top and size of the canvas."""
    found = page.locator("[role=tabpanel]:visible").get_by_label(label, exact=True).bounding_box()
    assert found
    return found["x"], found["y"], found["width"]


def draw(page: Page, points: Sequence[tuple[float, float]], label: str = "Drawing area") -> None:
    """A stroke by the mouse; coordinates are shares of the canvas."""
    left, top, size = box(page, label)
    x, y = points[0]
    page.mouse.move(left + x * size, top + y * size)
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(left + x * size, top + y * size)
    page.mouse.up()


CIRCLE = [(0.5 + 0.3 * cos(a), 0.5 + 0.3 * sin(a)) for a in np.linspace(0, 6.25, 25)]
LINE = [(0.1, 0.1), (0.3, 0.12), (0.5, 0.1)]


def bars(page: Page, index: int = 0) -> list[str]:
    """Names and per cent of guesses."""
    found = page.locator(".guesses").nth(index).locator(".bar")
    return [" ".join(text.split()) for text in found.all_inner_texts()]


def shows(page: Page, expected: list[str]) -> None:
    """Wait until the bars are those of the last points: guesses are asked for while one draws."""
    deadline = time.monotonic() + 10
    while bars(page) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bars(page) == expected


def ranked(page: Page, *expected: str, index: int = 0) -> None:
    """Wait for guesses."""
    names = page.locator(".guesses").nth(index).locator(".bar-name")
    expect(names).to_have_text(expected)


# Files


def test_the_page_has_a_strict_policy_and_is_revalidated(server: Running) -> None:
    names = {file.name for file in static.FOLDER.iterdir()}
    assert {"index.html", "style.css", "main.js", "icon.svg"} <= names
    for name in names:
        path = "/" if name == "index.html" else f"/page/{name}"
        found = server.http.get(path)
        assert found.status_code == 200
        assert found.content == (static.FOLDER / name).read_bytes()
        assert "default-src 'self'" in found.headers["content-security-policy"]
        assert found.headers["cache-control"] == "no-cache"
        tag = found.headers["etag"]
        again = server.http.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert server.http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        assert "http://" not in found.text.replace("http://www.w3.org/", "")
        assert "https://" not in found.text
    assert server.http.get("/page/static.py").status_code == 404
    assert server.http.post("/").status_code == 405


def test_the_page_needs_no_key_but_what_it_shows_does(server: Running) -> None:
    with running(sources()[0], keys=(KEY,)) as closed:
        assert closed.http.get("/", headers={"Host": "models.example.org"}).status_code == 200
        assert closed.http.get("/page/api.js").status_code == 200
        for path in ("/v1/models", "/metrics", "/page/", "/page/none.js"):
            assert closed.http.get(path).status_code == 401
    assert server.http.get("/", headers={"Host": "evil.example.org"}).status_code == 421


def test_a_client_learns_from_the_manifest_what_a_model_reads() -> None:
    details = {
        "window": 28,
        "digest": "d",
        "codings": {"past": [{"column": "rain"}], "future": [], "static": []},
    }
    assert kinds.reads(Manifest("csv", "windows", {}, [], details)) == {
        "window": 28,
        "past_covariates": ["rain"],
        "future_covariates": [],
        "static_covariates": [],
    }
    assert kinds.reads(Manifest("quickdraw", "drawings", {}, ["cat"], {})) == {"classes": ["cat"]}


def test_models_say_what_they_read(server: Running) -> None:
    found = {each["name"]: each for each in server.http.get("/v1/models").json()}
    assert found["sales"]["kind"] == "series"
    assert found["sales"]["reads"]["window"] == WINDOW
    assert found["shapes"]["reads"] == {"classes": CLASSES}
    assert [each["kind"] for each in found.values()][2:] == ["series", "text", "video"]
    assert found["motions"]["limits"] == {"body_bytes": 100_000, "items": 256}


# Draw


@browser_test
@pytest.mark.slow
def test_a_circle_is_guessed_and_kept_as_quickdraw_does(
    open_page: Open, server: Running, tmp_path: Path
) -> None:
    page = open_page()
    draw(page, CIRCLE)
    ranked(page, "circle", "zigzag", "line")
    shows(page, ["circle 80%", "zigzag 20%", "line 0.0%"])
    expect(page.get_by_text("version 7")).to_be_visible()
    page.get_by_label("It was a").fill("cricle")
    page.get_by_role("button", name="Send feedback").click()
    expect(page.get_by_text("no class \u201ccricle\u201d")).to_be_visible()
    page.get_by_label("It was a").fill("circle")
    page.get_by_role("button", name="Send feedback").click()
    expect(page.get_by_text("The server keeps that this was a circle")).to_be_visible()
    folder = server.server.settings.log_folder
    assert folder
    until(lambda: (folder / "feedback").exists() and read(folder, "feedback").num_rows)
    (row,) = read(folder, "feedback").to_pylist()
    assert (row["model"], json.loads(row["truth"])) == ("shapes", "circle")
    until(lambda: row["request_id"] in read(folder, "requests")["request_id"].to_pylist())
    logged = [each for each in read(folder, "requests").to_pylist() if each["model"] == "shapes"]
    assert [each["request_id"] for each in logged] == [row["request_id"]], "no guess is logged"

    with page.expect_download() as download:
        page.get_by_role("button", name="ndjson").click()
    download.value.save_as(tmp_path / "drawing.ndjson")
    (line,) = (tmp_path / "drawing.ndjson").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["word"], kept["recognized"]) == ("circle", True)
    assert re.fullmatch(r"\d{16}", kept["key_id"])
    ((xs, ys, times),) = kept["drawing"]
    assert len(xs) == len(ys) == len(times) >= len(CIRCLE) - 1
    assert times[0] == 0
    assert times == sorted(times)
    assert max(xs) - min(xs) == pytest.approx(0.6 * 480, rel=0.05)
    with page.expect_download() as download:
        page.get_by_role("button", name="SVG").click()
    download.value.save_as(tmp_path / "drawing.svg")
    assert f"M{xs[0]:g} {ys[0]:g}L{xs[1]:g} {ys[1]:g}" in (tmp_path / "drawing.svg").read_text()


@browser_test
@pytest.mark.slow
def test_strokes_that_decide_others_beside_undo_replay_and_clear(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Beside it").select_option("shapes@challenger")
    draw(page, CIRCLE)
    with page.expect_request(lambda request: len(inputs_of(request)) > 1) as sent:
        draw(page, LINE)
    assert [len(each["strokes"]) for each in inputs_of(sent.value)] == [2, 1, 1]
    ranked(page, "circle", "line", "zigzag")
    ranked(page, "zigzag", "circle", "line", index=1)
    # Of circle and line the circle has 1 / 2.25; without the line 1 / 1.25, without itself 0.
    expect(page.get_by_text("Stroke 1 of 2 matters most")).to_contain_text("loses 44.4 points")
    page.get_by_text("By stroke").click()
    expect(page.locator(".reasons li")).to_have_text(["+44.4 points", "\u221235.6 points"])
    colours = page.locator("canvas.pad").evaluate(
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const n = {}; for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) {"
        "const k = [d[i], d[i+1], d[i+2]].join(); n[k] = (n[k] || 0) + 1; } return n; }"
    )
    assert colours["31,99,196"] > colours["179,72,12"] > 0  # for, against
    page.get_by_label("Show").uncheck()
    expect(page.get_by_text("Switched off")).to_be_visible()
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("button", name="Undo").click()
    ranked(page, "circle", "zigzag", "line")
    page.get_by_label("Model", exact=True).select_option("shapes@challenger")
    ranked(page, "zigzag", "circle", "line")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".bar")).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


@browser_test
@pytest.mark.slow
def test_one_request_is_in_flight_and_answers_to_an_old_drawing_are_dropped(
    open_page: Open,
) -> None:
    page, held = open_page(), list[Route]()
    page.get_by_label("Show").uncheck()
    page.route("**/*:predict", lambda route: held.append(route))
    draw(page, CIRCLE)
    draw(page, LINE)
    page.wait_for_timeout(100)
    assert len(held) == 1
    assert len(inputs_of(held[0].request)[0]["strokes"][0][0]) < len(CIRCLE)
    held[0].continue_()
    until_held(page, held, 2)  # the newest, not those between
    assert len(inputs_of(held[1].request)[0]["strokes"]) == 2
    page.get_by_role("button", name="Clear").click()
    held[1].continue_()
    page.wait_for_timeout(150)
    expect(page.locator(".bar")).to_have_count(0)


def inputs_of(request: Request) -> list[Any]:
    """The inputs that the page sends to a model."""
    return list(json.loads(request.post_data or '{"inputs": []}')["inputs"])


def until_held(page: Page, held: list[Route], count: int) -> None:
    end = time.monotonic() + 15
    while len(held) < count:
        assert time.monotonic() < end
        page.wait_for_timeout(20)


@browser_test
@pytest.mark.slow
def test_all_is_done_by_keyboard_alone(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Drawing area").wait_for()
    press = page.keyboard.press

    def focused() -> str:
        return str(
            page.evaluate(
                "() => { const e = document.activeElement; return e.getAttribute('aria-label')"
                " || e.labels?.[0]?.textContent || e.textContent }"
            )
        )

    order = []
    for _ in range(3):
        press("Tab")
        order.append(focused())
    assert order == ["Ostinato", "Draw", "Drawing area"]
    press("Space")  # pen down in the middle
    expect(page.locator("[aria-live]", has_text="Pen down at 240, 240")).to_have_count(1)
    for key in ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"]:
        for _ in range(4):
            press(f"Shift+{key}")
    press("Space")
    ranked(page, "circle", "zigzag", "line")
    expect(page.locator("[aria-live]", has_text="Guesses: circle, 80%")).to_have_count(1)
    press("Backspace")
    expect(page.locator(".bar")).to_have_count(0)
    press("Shift+Tab")
    assert focused() == "Draw"
    for name in ("Series", "Text", "Video", "Monitoring", "Draw"):
        press("ArrowRight")
        assert focused() == name
        expect(page.get_by_role("tabpanel")).to_have_count(1)
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    press("ArrowRight")
    press("ArrowRight")
    press("Tab")
    assert focused() == "Model"
    press("Tab")
    assert focused() == "Text in English"
    page.keyboard.type("one two")
    press("Control+Enter")
    expect(page.locator(".translation")).to_have_text("TWO ONE")
    for _ in range(2):
        press("Tab")
    assert focused() == "TWO"
    expect(page.get_by_text("\u201cTWO\u201d attended to \u201ctwo\u201d 95%")).to_be_visible()
    press("ArrowRight")
    expect(page.get_by_text("\u201cONE\u201d attended to \u201cone\u201d 95%")).to_be_visible()


# Finish and Between


@browser_test
@pytest.mark.slow
def test_a_generator_finishes_what_was_begun(open_page: Open, studio: Running) -> None:
    page = open_page("finish", studio.url)
    panel = page.get_by_role("tabpanel", name="Finish")
    expect(panel.get_by_label("Temperature")).to_have_value("0.25")
    with page.expect_request("**/*:predict") as sent:
        draw(page, LINE)
    (asked,) = inputs_of(sent.value)
    assert (asked["class"], asked["count"], asked["size"]) == ("fish", 4, 384)
    tiles = panel.locator(".gallery li")
    expect(tiles).to_have_count(4)
    expect(tiles.locator("path.given")).to_have_count(4)
    expect(tiles.locator("path.made")).to_have_count(4)
    (xs, ys, _) = asked["strokes"][0]
    path = tiles.first.locator("path.given").get_attribute("d")
    assert path
    assert path.startswith(f"M{xs[0]:g} {ys[0]:g}L{xs[1]:g} {ys[1]:g}")
    expect(page.get_by_role("img", name="Continuation 2 of 4: house, 75%")).to_be_visible()
    expect(panel.get_by_text("stairs, version 7")).to_be_visible()
    with page.expect_request("**/*:predict") as sent:
        panel.get_by_role("button", name="Draw others").press("Enter")
    (other,) = inputs_of(sent.value)
    assert other["seed"] != asked["seed"]
    assert {**other, "seed": 0} == {**asked, "seed": 0}
    panel.get_by_label("Class").select_option("ice cream")
    with page.expect_request("**/*:predict") as sent:
        panel.get_by_label("Drawings").select_option("9")
    assert inputs_of(sent.value)[0]["class"] == "ice cream"
    expect(tiles).to_have_count(9)
    panel.get_by_role("button", name="Replay").click()
    assert page.evaluate("() => document.getAnimations().length") > 0
    with page.expect_request("**/*:predict") as sent:
        panel.get_by_label("Temperature").press("ArrowRight")
    assert inputs_of(sent.value)[0]["temperature"] == pytest.approx(0.3)
    panel.get_by_role("button", name="Clear").click()
    expect(tiles).to_have_count(0)
    panel.get_by_role("button", name="Draw others").click()
    expect(tiles.locator("path.made")).to_have_count(9)
    expect(tiles.locator("path.given")).to_have_count(0)
    still = open_page("finish", studio.url, reduced_motion="reduce")
    draw(still, LINE)
    expect(still.locator(".gallery path.made")).to_have_count(4)
    assert still.evaluate("() => document.getAnimations().length") == 0


@browser_test
@pytest.mark.slow
def test_drawings_lie_between_two_pads(open_page: Open, studio: Running) -> None:
    page = open_page("between", studio.url)
    panel = page.get_by_role("tabpanel", name="Between")
    expect(panel.get_by_label("Model").locator("option")).to_have_text(["stairs"])
    expect(panel.get_by_role("button", name="Draw others")).to_be_disabled()
    draw(page, [(0.1, 0.5), (0.9, 0.5)], "First drawing")
    with page.expect_request("**/*:predict") as sent:
        draw(page, [(0.5, 0.1), (0.5, 0.9)], "Second drawing")
    (asked,) = inputs_of(sent.value)
    assert (len(asked["strokes"]), len(asked["other"]), asked["count"]) == (1, 1, 7)
    paths = panel.locator(".gallery path.made")
    expect(paths).to_have_count(7)
    assert paths.first.get_attribute("d") == "M0 0L255 0"
    assert paths.last.get_attribute("d") == "M0 0L0 255"
    expect(page.get_by_role("img", name="Step 7 of 7: fish, 75%")).to_be_visible()
    panel.get_by_role("button", name="Undo, Second drawing").click()
    expect(paths).to_have_count(0)


@browser_test
@pytest.mark.slow
def test_tabs_of_generators_are_there_where_one_is_served(open_page: Open, studio: Running) -> None:
    page = open_page("draw", studio.url)
    names = page.locator("[role=tab]:visible")
    others = ["Series", "Text", "Video", "Monitoring"]
    expect(names).to_have_text(["Draw", "Finish", "Between", *others])
    page.get_by_role("tab", name="Draw").press("ArrowRight")
    expect(page.get_by_role("tab", name="Finish")).to_be_focused()
    without = open_page("between")
    expect(without.get_by_text("No generator with an encoder is served")).to_be_visible()
    without.get_by_role("tab", name="Draw").click()
    expect(without.locator("[role=tab]:visible")).to_have_text(["Draw", *others])


@browser_test
@pytest.mark.slow
def test_a_piece_is_written_shown_played_and_saved(open_page: Open, hall: Running) -> None:
    page = open_page("music", hall.url)
    panel = page.get_by_role("tabpanel", name="Music")
    expect(panel.get_by_label("Temperature")).to_have_value("0.9")
    expect(panel.get_by_label("Key").locator("option")).to_have_text(["any", "C major", "A major"])
    panel.get_by_label("Style").select_option("florid")
    panel.get_by_label("Bars").select_option("4")
    write = panel.get_by_role("button", name="Write a piece")
    with page.expect_request("**/*:predict") as sent:
        write.click()
    (asked,) = inputs_of(sent.value)
    assert (asked["style"], asked["key"], asked["midi"], asked["bars"]) == (
        "florid", None, None, 4)  # fmt: skip
    notes = panel.locator(".roll rect")
    expect(notes).to_have_count(16)
    expect(panel.get_by_role("img", name="Piano roll: florid")).to_be_visible()
    heights = [float(n.get_attribute("y") or 0) for n in notes.all()]
    assert heights == sorted(heights, reverse=True)
    expect(panel.get_by_text("scale, version 7")).to_be_visible()

    panel.get_by_role("button", name="Play").click()
    expect(panel.locator(".roll .playing")).to_have_attribute("visibility", "visible")
    expect(panel.get_by_role("button", name="Stop")).to_be_visible()
    expect(panel.get_by_role("button", name="Play")).to_be_visible()  # the end of 1.6 s
    expect(panel.locator(".roll .playing")).to_have_attribute("visibility", "hidden")
    with page.expect_download() as saved:
        panel.get_by_role("button", name="Save MIDI file").click()
    assert saved.value.suggested_filename == "piece.mid"
    reading: dict[str, Any] = {"frames_per_quarter": 1, "tempo": 600.0, "time_signatures": []}
    roll = midi.read(Path(saved.value.path()).read_bytes(), **reading)
    assert (roll == from_notes([Note(t, 1, 60 + t) for t in range(16)])).all()

    begun = from_notes([Note(0, 2, 72), Note(2, 1, 74)])
    content = midi.write(begun, frames_per_quarter=1, quarters_per_minute=90, quarters_per_bar=4)
    file = panel.get_by_label("Begin with a MIDI file")
    file.set_input_files({"name": "my.mid", "mimeType": "audio/midi", "buffer": content})
    expect(panel.get_by_text("Begins with my.mid.")).to_be_visible()
    write.press("Enter")
    expect(panel.locator(".roll .given")).to_have_count(2)
    expect(panel.locator(".roll .made")).to_have_count(13)
    file.set_input_files({"name": "no.mid", "mimeType": "audio/midi", "buffer": b"no music"})
    write.click()
    expect(panel.get_by_text("not a MIDI file")).to_be_visible()
    panel.get_by_role("button", name="Remove").click()
    write.click()
    expect(panel.locator(".roll .made")).to_have_count(16)
    without = open_page("draw")
    assert "Music" not in without.locator("[role=tab]:visible").all_inner_texts()


# Other tabs

CSV = "day;sold;price\n" + "".join(
    f"{day:02d}.11.2026;{10 * day},5;1\n" for day in range(1, 21) if day not in (9, 15)
)
DIRTY = CSV.replace("04.11.2026;40,5", "04.11.2026;many").replace("05.11.", "32.11.") + "x\n"


def csv_file(text: str) -> Any:
    return {"name": "sales.csv", "mimeType": "text/csv", "buffer": text.encode()}


@browser_test
@pytest.mark.slow
def test_a_csv_is_read_forecast_and_compared_with_its_truth(open_page: Open) -> None:
    page = open_page("series")
    page.set_input_files("#panel-series input[type=file]", csv_file(DIRTY))
    expect(page.get_by_label("Column of dates", exact=True)).to_have_value("0")
    expect(page.get_by_label("Column of values", exact=True)).to_have_value("1")
    expect(page.get_by_label("Dates look like")).to_have_value("dmy")
    expect(page.locator(".problems li")).to_have_text([
        "Line 5: found \u201cmany\u201d; expected a number",
        "Line 6: found \u201c32.11.2026\u201d; expected a date such as 30.11.2026 or 30/11/2026",
        "Line 20: found 1 cells; expected 3, as in the header",
    ])  # fmt: skip
    page.get_by_text("Values of sales, version 7").click()
    rows = page.locator("#panel-series tbody tr")
    expect(rows.first).to_have_text("2026-11-21201.5199.5 to 203.5\u2013")
    expect(rows).to_have_count(HORIZON)
    slider = page.get_by_label("Origin of the forecast")
    for _ in range(2):
        slider.press("ArrowLeft")
    # After 2026-11-18 the forecast is 181.5, 182.5, 183.5; the truth 190.5, 200.5.
    expect(page.locator(".figures li")).to_have_text(
        "sales: mean absolute error 13.5 over 2 steps; 0 of 2 in the 80% interval"
    )
    expect(slider).to_have_attribute("aria-valuetext", "after 2026-11-18, 2 rows before the end")
    chart = page.locator("#panel-series svg.chart")
    chart.press("End")
    chart.press("ArrowLeft")
    expect(page.locator("#panel-series .readout")).to_have_text(
        "2026-11-20: truth 200.5; forecast 182.5; 80% interval 180.5 to 184.5"
    )
    page.get_by_label("Column of values", exact=True).select_option("2")
    expect(rows.first).to_contain_text("2026-11-2120 to 4")
    dropped = page.evaluate_handle(
        """(text) => {
          const data = new DataTransfer();
          data.items.add(new File([text], "dropped.csv"));
          return data;
        }""",
        CSV[:60],
    )
    page.dispatch_event("#panel-series .drop", "drop", {"dataTransfer": dropped})
    expect(page.get_by_role("heading", name="dropped.csv")).to_be_visible()
    expect(page.get_by_text("Input 0: 2 values are too few")).to_be_visible()


PARSED = {
    "quotes": ('a,"b,c"\n2026-01-02,"1"\n', ["a", "b,c"], [[1767312000000, 1]]),
    "times": ("t\tv\n2026-01-02T03:30\t-1e3\n", ["t", "v"], [[1767324600000, -1000]]),
    "American": ("d,v\n01/13/2026,\n01/14/2026,2\n", ["d", "v"], [[1768262400000, None],
                                                                 [1768348800000, 2]]),
    "decimal comma": ("d;v\n2026-01-02;1.000,25\n", ["d", "v"], [[1767312000000, 1000.25]]),
    "thousands": ('v,d\n"1,250",2026-01-02\n', ["v", "d"], [[1767312000000, 1250]]),
    "line breaks": ('d,v,x\r\n2026-01-02,1,"a\r\nb"\r\n', ["d", "v", "x"], [[1767312000000, 1]]),
}  # fmt: skip


@browser_test
@pytest.mark.slow
def test_csv_files_of_many_forms_are_read(open_page: Open) -> None:
    page = open_page("monitoring")
    code = """async (text) => {
      const {parse, detect, toSeries} = await import("/page/csv.js");
      const table = parse(text), {rows, problems} = toSeries(table, detect(table));
      return [table.header, rows.map((row) => [row.time, row.value]), problems];
    }"""
    for name, (content, header, rows) in PARSED.items():
        assert page.evaluate(code, content) == [header, rows, []], name
    twice = page.evaluate(code, "d,v\n2026-01-02,1\n2026-01-02,2\n2026-02-30,3\n2026-01-04,4\n")
    assert twice[2] == [
        {"line": 3, "text": "has the date of line 2"},
        {"line": 4, "text": "found \u201c2026-02-30\u201d; expected a date such as 2026-11-30 or "
                            "2026/11/30"},
    ]  # fmt: skip
    assert page.evaluate(code, 'd,v\n2026-01-02,"1\n')[2][0]["text"].startswith("a quotation mark")


@browser_test
@pytest.mark.slow
def test_a_text_is_translated_with_alternatives_and_attention(open_page: Open) -> None:
    page = open_page("text")
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_text("Write a text first")).to_be_visible()
    page.get_by_label("Text in English").fill("a small house")
    page.get_by_role("button", name="Translate").click()
    expect(page.locator(".translation")).to_have_text("HOUSE SMALL A")
    page.get_by_role("button", name="HOUSE", exact=True).hover()
    expect(page.locator(".word.attended")).to_have_text(["house"])
    page.get_by_role("button", name="a small house").click()
    expect(page.locator(".translation")).to_have_text("a small house")
    page.locator(".word.target").first.hover()
    expect(page.get_by_text("\u201ca\u201d attended to \u201ca\u201d 93%")).to_be_visible()


@browser_test
@pytest.mark.slow
def test_a_video_shows_its_frames_classes_and_activation(open_page: Open) -> None:
    page = open_page("video")

    def drop(content: bytes, name: str = "film.gif") -> None:
        buffer = {"name": name, "mimeType": "image/gif", "buffer": content}
        page.set_input_files("#panel-video input[type=file]", buffer)  # type: ignore[arg-type]

    drop(b"a video")
    expect(page.locator("#panel-video .best")).to_have_text("up")
    names = page.locator("#panel-video .bar")
    assert [" ".join(t.split()) for t in names.all_inner_texts()] == ["up 75%", "down 25%"]
    expect(page.get_by_text("read 2 frames of 2 \u00d7 1 pixels over 0.5 s")).to_be_visible()
    pixels = "c => [...c.getContext('2d').getImageData(0, 0, 2, 1).data]"
    frames = page.locator("#panel-video .frame canvas")
    assert frames.first.evaluate(pixels) == [0, 0, 0, 255, 255, 255, 255, 255]
    expect(page.locator(".activation.for")).to_have_count(1)
    expect(page.locator(".activation.against")).to_have_count(1)
    page.locator("#panel-video summary").click()
    expect(page.locator("#panel-video tbody tr")).to_have_text(["1\u221250.0 points",
                                                               "2+25.0 points"])  # fmt: skip
    drop(b"no video")
    expect(page.get_by_text("unreadable: no video at all")).to_be_visible()
    expect(page.locator("#panel-video .frame")).to_have_count(2)
    expect(page.locator("#panel-video .frame").first).to_be_hidden()
    drop(bytes(90_000), "long.gif")
    expect(page.get_by_text("long.gif has 0.1 MB, which is too large")).to_be_visible()


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))  # fmt: skip

    header = struct.pack(">IIBBBBB", 3, 1, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0\0\x80\xff")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def write_report(folder: Path, model: str, day: int, status: Any) -> None:
    """A report as the monitor writes it."""
    time = f"2026-11-{day:02d}T02:00:00+00:00"
    metrics = (
        Measure("accuracy", 0.9 + day / 1000, "estimated", 0.9, 0.95, 0.92),
        Measure("age", 3, "of the model", unit="days"),
    )
    found = MonitoringReport(
        model, "3", time, time, time, 1234, status, f"Summary of {model} on day {day}.", metrics,
        figures={"drift.png": "Drift"},
    )  # fmt: skip
    reports.write(folder, found, {"drift.png": png()})


@browser_test
@pytest.mark.slow
def test_reports_are_shown_with_their_metrics_and_figures(open_page: Open, server: Running) -> None:
    page = open_page("monitoring")
    expect(page.get_by_role("heading", name="There is no report yet")).to_be_visible()
    folder = server.server.settings.monitoring
    for model, day, status in (
        ("shapes", 28, "ok"), ("shapes", 29, "warning"), ("shapes", 30, "retrain"),
        ("sales", 30, "ok"),
    ):  # fmt: skip
        write_report(folder, model, day, status)
    page.get_by_role("button", name="Look again").click()
    page.get_by_label("Model").last.select_option("shapes")
    expect(page.get_by_text("Summary of shapes on day 30")).to_be_visible()
    expect(page.get_by_text("retrain: the model is trained again")).to_be_visible()
    rows = page.get_by_role("region", name="Metrics of shapes").locator("tbody tr")
    expect(rows).to_have_text([
        "accuracy0.930.9 to 0.950.92estimated", "age3\u00a0days\u2013\u2013of the model",
    ])  # fmt: skip
    image = page.get_by_role("img", name="Drift")
    assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") == 3
    page.get_by_label("Report").select_option(index=1)
    expect(page.get_by_text("Summary of shapes on day 29")).to_be_visible()
    chart = page.get_by_role("application", name="accuracy.")
    chart.press("End")
    expect(page.get_by_text("2026-11-30 02:00: accuracy 0.93")).to_be_visible()
    page.get_by_label("Model").last.select_option("sales")
    expect(page.get_by_text("ok: nothing has changed")).to_be_visible()


# States


@browser_test
@pytest.mark.slow
def test_a_key_is_asked_for_and_tabs_without_a_model_say_how_to_serve_one(
    open_page: Open,
) -> None:
    with running(sources()[0], keys=(KEY,)) as closed:
        page = open_page("draw", closed.url)
        dialog = page.get_by_role("dialog", name="This server needs a key")
        dialog.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("The server refused this key")).to_be_visible()
        dialog.get_by_label("API key").fill(KEY)
        dialog.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("1 model")).to_be_visible()
        draw(page, CIRCLE)
        ranked(page, "circle", "zigzag", "line")
        expect(page.get_by_label("Beside it")).to_be_hidden()
        page.get_by_label("It was a").fill("line")
        page.get_by_role("button", name="Send feedback").click()
        expect(page.get_by_text("This server keeps no feedback")).to_be_visible()
        for tab in ("Series", "Text", "Video", "Monitoring"):
            page.get_by_role("tab", name=tab).click()
            code = page.get_by_role("tabpanel").locator("code")
            expect(code).to_contain_text("python -m ostinato serve")
        page.reload()
        expect(page.get_by_text("1 model")).to_be_visible()  # the key is kept until the tab closes
        assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]


@browser_test
@pytest.mark.slow
def test_a_slow_and_a_failing_server_are_told_and_tried_again(open_page: Open) -> None:
    page, held = open_page("text"), list[Route]()
    page.route("**/*:predict", lambda route: held.append(route))
    page.get_by_label("Text in English").fill("one")
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_text("Translating\u2026")).to_be_visible()
    wrong = {"error": {"code": "model_failed", "message": "the model failed"}}
    held[0].fulfill(status=500, json=wrong)
    expect(page.get_by_text("The model failed.")).to_be_visible()
    expect(page.get_by_text("Translating\u2026")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    until_held(page, held, 2)
    held[1].fulfill(status=503, body="<html>a proxy's page</html>")
    expect(page.get_by_text("The server answered with status 503.")).to_be_visible()
    page.unroute("**/*:predict")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".translation")).to_have_text("ONE")
    expect(page.locator("main .note.error")).to_have_count(0)


@browser_test
@pytest.mark.slow
def test_a_server_that_restarts_is_found_again_without_a_reload(open_page: Open) -> None:
    with running(*sources()) as first:
        page = open_page("draw", first.url)
        draw(page, LINE)
        ranked(page, "line", "zigzag", "circle")
        port = int(first.url.rpartition(":")[2])
    draw(page, CIRCLE)
    expect(page.get_by_text("The server cannot be reached.").first).to_be_visible()
    expect(page.get_by_role("status").first).to_have_text("Reconnecting")
    draw(page, [(0.9, 0.2), (0.8, 0.8), (0.9, 0.9)])
    with running(*sources(), port=port):
        ranked(page, "line", "circle", "zigzag")  # of all three strokes
        expect(page.get_by_text("5 models")).to_be_visible()
        expect(page.locator("main .note.error")).to_have_count(0)


@browser_test
@pytest.mark.slow
def test_the_page_fits_a_phone_and_a_finger_draws_on_it(open_page: Open) -> None:
    size = {"width": 360, "height": 720}
    page = open_page(viewport=size, has_touch=True, is_mobile=True, color_scheme="dark")
    left, top, width = box(page)
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": left + x * width, "y": top + y * width} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    send("touchStart", CIRCLE[0])
    for point in CIRCLE[1:]:
        send("touchMove", point)
    send("touchEnd")
    ranked(page, "circle", "zigzag", "line")
    assert page.evaluate("scrollY") == 0
    for tab in ("Draw", "Series", "Text", "Video", "Monitoring"):
        page.get_by_role("tab", name=tab).click()
        if tab == "Series":
            page.set_input_files("#panel-series input[type=file]", csv_file(CSV))
            page.locator("#panel-series .line.forecast").wait_for(state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") == 360, tab
        small = page.get_by_role("tabpanel").locator("button:visible, select:visible")
        heights = small.evaluate_all("all => all.map((e) => e.offsetHeight)")
        assert all(height >= 30 for height in heights), (tab, heights)


PAIRS = {  # colours on grounds, and the contrast that WCAG 2.2 AA asks for
    4.5: [("text", "background"), ("text", "surface"), ("muted", "background"),
          ("muted", "surface"), ("muted", "sunken"), ("accent", "background"),
          ("on-accent", "accent"), ("bad", "bad-soft"), ("good", "good-soft"),
          ("warn", "warn-soft"), ("text", "accent-soft"), ("muted", "accent-soft"),
          ("bad", "background"), ("bad", "surface")],
    3: [("control", "surface"), ("accent", "surface"), ("for", "surface"), ("against", "surface"),
        ("neutral", "surface"), ("ink", "surface"), ("second", "surface"), ("good", "surface"),
        ("accent", "sunken"), ("for", "sunken"), ("against", "sunken")],
}  # fmt: skip


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(theme: int) -> None:
    style = (static.FOLDER / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[0]))
    colours |= dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[1])) if theme else {}
    for least, pairs in PAIRS.items():
        for one, other in pairs:
            low, high = sorted(luminance(colours[name]) for name in (one, other))
            assert (high + 0.05) / (low + 0.05) >= least, (one, other)


@browser_test
@pytest.mark.slow
def test_controls_have_names_and_nothing_moves_where_less_motion_is_asked(
    open_page: Open,
) -> None:
    page = open_page(reduced_motion="reduce")
    draw(page, CIRCLE)
    draw(page, LINE)
    ranked(page, "circle", "line", "zigzag")
    assert page.locator(".bar-fill").first.evaluate("e => getComputedStyle(e).transition") in (
        "none", "none 0s ease 0s", "none 0s",
    )  # fmt: skip
    for tab in ("Draw", "Series", "Text", "Video", "Monitoring"):
        page.get_by_role("tab", name=tab).click()
        nameless = page.evaluate("""() => [...document.querySelectorAll(
            'main button, main input, main select, main textarea, main canvas, main svg, main img')]
          .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.alt))
          .map((e) => e.outerHTML)""")
        assert nameless == []
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
