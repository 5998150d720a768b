"""Tests of a report in Chromium: it loads, sorts, plays, steps and votes, and asks for nothing outside its folder."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from reports import CLIPS, make_runs

import vfbench

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

SIDE, SCALE = 32, 4  # pixels of a clip, and its enlargement on the page
NAMES = ("<img src=x onerror=alert(1)>", "b")  # of the two models


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two models, which are controls under other names, and of recorded results."""
    folder = tmp_path_factory.mktemp("report")
    runs = make_runs(folder)
    for run, name in zip(runs, NAMES, strict=True):
        (result,) = vfbench.load_results(run)
        result.model_copy(update={"model": name, "model_spec": name, "reference": False}).write(run / "results.json")
    records = [ROOT / "results" / "records" / f"{name}.json" for name in ("vdm", "real")]
    return vfbench.write_report([*runs, *records], folder / "out", allow_mixed=True)


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report in a window, which must not log an error nor ask for anything outside its folder."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    opened, faults = context.new_page(), list[str]()
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: faults.append(dialog.message))
    inside = report.parent.as_uri()
    opened.on(
        "request", lambda asked: None if asked.url.startswith((inside, "data:", "blob:")) else faults.append(asked.url)
    )
    opened.goto(report.as_uri())
    yield opened
    assert faults == []
    context.close()


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#scores tbody tr > :nth-child({number + 1})").all_inner_texts()


def test_a_click_sorts_and_a_third_one_restores_the_order(page: Page) -> None:
    original = column(page, 1)
    heading = page.locator("#scores thead th", has_text="FVD")
    orders = []
    for direction in ("ascending", "descending", None):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == direction
        orders.append(column(page, 1))
    values = [float(text.split()[0]) for text in orders[0] if "—" not in text]
    assert values == sorted(values)
    assert [text for text in orders[1] if "—" not in text] == [text for text in orders[0][::-1] if "—" not in text]
    assert orders[2] == original


def pixels(page: Page, row: int, number: int) -> Any:
    """Pixels of a clip on the page, (32, 32, 3)."""
    canvas = page.locator(f"#clip-{row} canvas").nth(number)
    shot = np.array(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"))
    return shot[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]


def frame_of(report: Path, row: int, number: int, frame: int) -> Any:
    """Pixels of a frame in the sheet of a clip."""
    data = json.loads(report.read_text().partition('id="data">')[2].partition("</script>")[0])
    clip = data["requests"][row]["clips"][number]
    top, left = frame // clip["columns"] * SIDE, frame % clip["columns"] * SIDE
    sheet = np.array(Image.open(report.parent / clip["file"]).convert("RGB"))
    return sheet[top : top + SIDE, left : left + SIDE]


def test_all_clips_show_the_same_frame_exactly(page: Page, report: Path) -> None:
    page.locator("#clips").scroll_into_view_if_needed()
    page.locator("#clips ~ .player [data-action=forward]").click()
    page.keyboard.press(".")
    page.keyboard.press(".")
    page.keyboard.press(",")
    page.locator("#clip-1 canvas[data-frame='2']").nth(2).wait_for()
    for row, number in ((0, 0), (0, 1), (1, 2)):
        assert np.array_equal(pixels(page, row, number), frame_of(report, row, number, 2))


def test_clips_play_and_pause_together(page: Page) -> None:
    page.locator("#clips").scroll_into_view_if_needed()
    button = page.locator("[data-action=play]").first
    button.click()
    page.locator("#gallery canvas[data-frame='3']").first.wait_for()
    button.click()
    frames = page.locator("#gallery canvas").evaluate_all("all => all.map(canvas => canvas.dataset.frame)")
    assert set(frames) == {page.evaluate("String(player.frame)")}
    assert button.inner_text() == "Play"


def test_clips_are_found_by_caption_ordered_and_enlarged(page: Page) -> None:
    assert page.locator("#gallery tbody tr").count() == CLIPS
    caption = page.locator("#clip-2 th").inner_text().partition(" ")[2]
    page.locator("#find").fill(caption)
    assert page.locator("#clip-2").count() == 1
    page.locator("#find").fill("")
    page.locator("#order").select_option(index=2)  # the largest of the first number
    values = page.locator("#gallery tbody tr td:nth-child(3) small:first-of-type").all_inner_texts()
    assert len(values) == CLIPS
    numbers = [float(text.removeprefix("nearest real ")) for text in values]
    assert numbers == sorted(numbers, reverse=True)
    page.locator("#zoom").select_option("256")
    assert page.locator("#gallery canvas").first.bounding_box()["width"] == 256  # type: ignore[index]


def test_examples_show_the_nearest_real_clips(page: Page) -> None:
    details = page.locator("#example-groups details").first
    details.locator("summary").click()
    assert details.locator("h3").count() == 4
    assert details.get_by_text("real, at").count() == 2 * 3 * 3  # nearest and farthest, three clips with three each
    details.locator("canvas").nth(1).scroll_into_view_if_needed()
    details.locator("canvas[data-frame]").nth(3).wait_for()


def test_votes_are_counted_kept_and_exported(page: Page) -> None:
    page.locator("#vote-pair").focus()
    for key in ("1", "1", "2", "0", "s"):
        page.keyboard.press(key)
    assert page.locator("#vote-count").inner_text() == "4 votes"
    page.reload()
    assert page.locator("#vote-count").inner_text() == "4 votes"
    assert not page.locator("#votes").is_visible()  # the vote is blind until the outcome is asked for
    page.locator("#show-votes").click()
    assert NAMES[0] in page.locator("#votes").inner_text()
    with page.expect_download() as download:
        page.locator("#export-votes").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert [vote["better"] for vote in exported["votes"]] == ["left", "left", "right", "equal"]
    assert exported["models"] == list(NAMES)
    assert sum(map(sum, exported["wins"])) == 4
    wins = np.array(exported["wins"]) + 0.5
    assert exported["strengths"][0] - exported["strengths"][1] == pytest.approx(math.log(wins[0, 1] / wins[1, 0]))
    page.locator("#clear-votes").click()
    assert page.locator("#vote-count").inner_text() == "0 votes"


def test_strengths_solve_the_equations_of_bradley_and_terry(page: Page) -> None:
    wins = np.array([[0.0, 7, 9], [3, 0, 6], [1, 2.5, 0]])
    strengths = np.array(page.evaluate(f"strengths({wins.tolist()})"))
    chance = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    pairs = wins + wins.T + 1 - np.eye(3)  # half a win each way for every pair
    expected = (pairs * chance).sum(1) - np.diag(pairs * chance)
    assert expected == pytest.approx((wins + 0.5).sum(1) - 0.5)
    assert strengths.sum() == pytest.approx(0)


def test_a_clip_whose_file_is_gone_has_a_placeholder_that_names_it(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(report.parent, tmp_path / "copy")
    (copy / "clips" / "0-000000.webp").unlink()
    opened = browser.new_page()
    opened.goto((copy / "index.html").as_uri())
    opened.locator("#clip-0").scroll_into_view_if_needed()
    placeholder = opened.get_by_text("clips/0-000000.webp cannot be read")
    placeholder.wait_for()
    assert placeholder.count() == 1
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_scrolls_tables_and_not_the_page(browser: Browser, report: Path, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert opened.evaluate("document.scrollingElement.scrollWidth") <= 360
    colours = opened.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    brightness = [sum(map(int, colour.strip("rgb()").split(","))) for colour in colours]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    context.close()
