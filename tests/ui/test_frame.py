"""The page of a model with a detector, in a real browser: the frames over the photo, and the text of every state."""

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.conftest import CLASSES, draw_car
from tests.helpers.fake_predictor import fake_predictor
from tests.helpers.visit import served, visiting
from twincar import Predictor
from twincar.features.photo import load_photo
from twincar.modeling.inference.describe import describe
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.open_set.open_set import Threshold
from twincar.ui.frame import Selection

SMALL, LARGE = (0.0, 0.1, 0.25, 0.4), (0.4, 0.4, 1, 1)  # the cars that are detected in every photo
BMW = [*CLASSES[:3], "BMW 3 Series Sedan 2012", "BMW 3 Series Sedan 2007"]
STATES = {  # width of a photo -> its probabilities for the classes of BMW, is_car, is_known
    500: ((0.96, 0.04, 0, 0, 0), True, True),
    510: ((0.1, 0.05, 0, 0.45, 0.4), True, True),
    520: ((0.35, 0.02, 0, 0.42, 0.21), True, True),
    530: ((0.3, 0.3, 0.1, 0.2, 0.1), True, True),
    540: ((0.96, 0.04, 0, 0, 0), True, False),
    550: ((0.96, 0.04, 0, 0, 0), False, False),
}
LOCK = Lock()
APP = """
from tests.ui.test_frame import predictor
from twincar.ui import page
answers = predictor()
page.build(answers).launch(**page.launch_options(answers))
"""


class Scripted(Predictor):
    """Answers photos of the widths above with the STATES, all others with its network."""

    def __call__(self, photo, box=None, refine=True, side=None, found=()):
        probabilities, is_car, is_known = STATES.get(load_photo(photo).width, (None, True, True))
        with LOCK:  # a page that was closed may still have a photo in the queue
            self.open_set.is_car = Threshold(-1e9 if is_car else 1e9, 0.05)
            self.open_set.is_known = Threshold(-1e9 if is_known else 1e9, 0.05)
            answer = super().__call__(photo, box, refine, found=found)
        if probabilities:
            answer.probabilities = np.array(probabilities)
            answer._smaller = ()
        return answer


def predictor() -> Predictor:
    made = fake_predictor(SMALL, LARGE)
    made.__class__, made.class_names = Scripted, tuple(BMW)
    made._context = made._context._replace(class_names=tuple(BMW))
    made.open_set.confusion[0, 3] = 2
    made.open_set.class_means[3] = made.open_set.class_means[0]  # similar in any case
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("framed")
    (folder / "app.py").write_text(APP)
    with served(folder, folder / "app.py") as running:
        yield running


@pytest.fixture
def page(browser, site) -> Iterator[Page]:
    with visiting(browser, site) as page:
        expect(page.locator("#headline h2")).to_have_text("Which car is it?")
        expect(page.locator("#frame .stage")).to_be_hidden()
        yield page


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """Larger than the picture on the page, so that a frame must be cropped from the file."""
    path = tmp_path_factory.mktemp("photo") / "street.jpg"
    picture = draw_car(1, size=(1600, 1200))
    picture.paste(draw_car(3, size=(400, 360)), (0, 120))
    picture.save(path, quality=92)
    return path


def give(page: Page, photo: Path) -> Locator:
    """Upload the photo; returns the frame once it is answered."""
    page.set_input_files("#photo input[type=file]", photo)
    expect(page.locator("#frame .stage:not(.busy)")).to_be_visible()
    return page.locator("#frame .frame")


def frame_of(page: Page) -> tuple[float, ...]:
    style = page.locator("#frame .frame").get_attribute("style")
    return tuple(float(re.search(rf"--{side}: ([\d.e-]+)%", style)[1]) / 100 for side in ("x1", "y1", "x2", "y2"))


def expect_answer(page: Page, photo: Path, **how) -> None:
    """The page shows the answer of the Predictor; for a frame, within the effect of one pixel."""
    if "box" in how:
        size = Image.open(photo).size
        how["box"] = tuple(round(fraction * side) for fraction, side in zip(how["box"], size * 2, strict=True))
    expect_top(page, predictor()(photo, **how), 4e-3 if "box" in how else 2e-4)


def expect_top(page: Page, answer: Prediction, tolerance: float = 2e-3) -> None:
    top = answer.top(5)
    for row, guess in zip(page.locator("#top5 input[type=radio]").all(), top, strict=True):
        expect(row).to_have_attribute("value", guess.class_name)
    shown = [float(fraction) for fraction in re.findall(r"--fraction:([\d.]+)", page.locator("#bars").inner_html())]
    assert shown == pytest.approx([guess.probability for guess in top], abs=tolerance)


def drag(page: Page, start: tuple[float, float], by: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0] / 2, start[1] + by[1] / 2)
    page.mouse.move(start[0] + by[0], start[1] + by[1])
    page.mouse.up()


def answered(page: Page, text: str) -> None:
    expect(page.locator("#frame .below p")).to_contain_text(text)
    expect(page.locator("#frame .stage:not(.busy)")).to_be_visible()


def test_every_car_is_framed_with_its_name_and_one_is_selected(page, photo):
    frame = give(page, photo)
    assert np.abs(np.array(frame_of(page)) - LARGE).max() < 0.05
    answered(page, "2 cars found. Pick one, or draw a frame around another.")
    cars = predictor()(photo).cars
    large, small = page.locator("#frame .cars button").all()
    for place, (button, car) in enumerate(zip((large, small), cars, strict=True), 1):
        described = describe(car)
        expect(button).to_have_text(f"{place}{described.label}")
        expect(button).to_have_attribute("aria-label", f"Car {place} of 2: {described.first}")
    expect(page.locator("#headline .which")).to_have_text("Car 1 of 2")
    expect(large).to_have_attribute("aria-pressed", "true")
    expect_top(page, cars[0])
    before = page.locator("#slider img").nth(1).get_attribute("src")
    small.click()
    expect(page.locator("#headline .which")).to_have_text("Car 2 of 2")
    expect(small).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#frame .stage:not(.busy)")).to_be_visible()
    assert np.abs(np.array(frame_of(page)) - SMALL).max() < 0.05
    expect_top(page, cars[1])
    expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before)
    page.keyboard.press("Shift+Tab")  # by keyboard, the car that has the focus is selected
    expect(large).to_be_focused()
    expect(page.locator("#headline .which")).to_have_text("Car 1 of 2")
    page.keyboard.press("Tab")
    expect(page.locator("#headline .which")).to_have_text("Car 2 of 2")
    expect(small).to_be_focused()
    page.keyboard.press("Tab")
    expect(frame).to_be_focused()


def test_the_frame_is_moved_resized_and_drawn_by_dragging(page, photo):
    frame = give(page, photo)
    start, box = frame_of(page), frame.bounding_box()
    drag(page, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), (-40, -20))
    answered(page, "Only the area in your frame was used.")
    moved = frame_of(page)
    assert moved[0] < start[0] - 0.05 and moved[1] < start[1] - 0.02
    assert moved[2] - moved[0] == pytest.approx(start[2] - start[0], abs=1e-6)
    expect_answer(page, photo, box=moved)
    handle = page.locator("#frame [data-edges=nw]").bounding_box()
    drag(page, (handle["x"] + 14, handle["y"] + 14), (50, 30))
    expect(page.locator("#frame .stage:not(.busy)")).to_be_visible()
    resized = frame_of(page)
    assert resized[0] > moved[0] + 0.05 and resized[2:] == pytest.approx(moved[2:], abs=1e-6)
    picture = page.locator("#frame .picture").bounding_box()
    drag(page, (picture["x"] + 4, picture["y"] + picture["height"] - 4), (80, -60))
    expect(page.locator("#frame .stage:not(.busy)")).to_be_visible()
    drawn = frame_of(page)
    assert drawn[0] < 0.05 and drawn[3] > 0.95 and drawn[2] < resized[0]
    expect_answer(page, photo, box=drawn)


def test_the_keyboard_moves_and_resizes_it(page, photo):
    frame = give(page, photo)
    start = frame_of(page)
    frame.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    answered(page, "Only the area in your frame was used.")
    now = frame_of(page)
    assert now == pytest.approx((start[0] - 0.03, start[1], start[2] - 0.03, start[3] - 0.01), abs=1e-6)
    expect(frame).to_be_focused()
    expect_answer(page, photo, box=now)


def test_the_whole_photo_and_back(page, photo):
    frame = give(page, photo)
    found, buttons = frame_of(page), page.get_by_role("group", name="Area to use")
    buttons.get_by_role("button", name="Whole photo").click()
    answered(page, "The whole photo was used.")
    expect(frame).to_be_hidden()
    expect(page.locator("#frame .cars button")).to_have_count(2)
    expect_answer(page, photo, refine=False)
    expect(page.locator("#frame .cars [aria-pressed=true]")).to_have_count(0)
    buttons.get_by_role("button", name="My own frame").click()
    answered(page, "Only the area in your frame was used.")
    expect(frame).to_be_focused()
    buttons.get_by_role("button", name="Found cars").click()
    answered(page, "2 cars found.")
    assert frame_of(page) == pytest.approx(found, abs=1e-6)
    expect_answer(page, photo)
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#headline h2")).to_have_text("Which car is it?")
    expect(page.locator("#frame .stage")).to_be_hidden()


def test_every_state_has_its_text(page, tmp_path):
    texts = {
        500: ["Very sure 96 %", "M3 Coupe 2012", "Similar: BMW 3 Series Sedan 2012 (confused twice in validation)"],
        510: ["Fairly sure of the model 85 %", "A BMW 3 Series Sedan", "most likely that of 2012 (45 %)"],
        520: ["Very sure of the make 98 %", "A BMW", "most likely the 3 Series Sedan 2012 (42 %)"],
        530: ["Not sure 30 %", "Closest match:", "The runner-up is the Audi TT Hatchback 2011 (30 %)."],
        540: ["A car, but maybe none of the 5 known models", "The closest match would be the BMW M3 Coupe 2012."],
        550: ["No car found in this photo", "The closest match would be the BMW M3 Coupe 2012."],
    }
    for width, sentences in texts.items():
        draw_car(0, size=(width, 360)).save(tmp_path / f"{width}.png")
        give(page, tmp_path / f"{width}.png")
        evidence = page.locator("#slider")
        for sentence in sentences:
            expect(page.locator("#headline")).to_contain_text(sentence.replace(" %", "\N{NO-BREAK SPACE}%"))
        expect(evidence).to_be_visible(visible=width != 550)  # folded away where there is no car
        note = page.get_by_text("These percentages only compare the known cars.")
        expect(note).to_have_count(int(width >= 540))
        expect(page.locator("#top5 input[type=radio]")).to_have_count(5)  # the closest matches are shown in every state
    expect(page.locator("#frame .frame")).to_be_hidden()  # no frame where there is no car
    expect(page.locator("#frame .cars button")).to_have_count(0)
    expect(page.locator("#frame .stage:not(.busy)")).to_be_visible()
    page.get_by_role("button", name="My own frame").click()  # at once: no late answer for the photo may undo it
    expect(page.locator("#headline h2")).to_have_text("No car found in this frame")


def test_a_phone_has_the_frame_on_the_photo(page, photo):
    page.set_viewport_size({"width": 390, "height": 844})
    frame = give(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    outer, inner = page.locator("#photo").bounding_box(), frame.bounding_box()
    assert outer["x"] <= inner["x"] and inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1
    assert outer["y"] <= inner["y"] and inner["y"] + inner["height"] <= outer["y"] + outer["height"]
    assert page.locator("#headline").bounding_box()["y"] > page.locator("#frame .below").bounding_box()["y"]
    start = frame_of(page)
    swipe(page, frame, (-40, -40), hold=500)  # a finger that rests first moves the frame
    answered(page, "Only the area in your frame was used.")
    moved = frame_of(page)
    assert moved[0] < start[0] - 0.05 and moved[1] < start[1] - 0.05
    expect_answer(page, photo, box=moved)


def test_a_thumb_scrolls_the_page_over_the_photo_and_the_evidence(page, photo):
    page.set_viewport_size({"width": 390, "height": 844})
    frame = give(page, photo)
    before = frame_of(page)
    swipe(page, frame, (0, -200))
    page.wait_for_function("scrollY > 100")
    assert frame_of(page) == before
    expect(page.locator("#frame .below p")).to_contain_text("2 cars found.")
    page.locator("#slider").scroll_into_view_if_needed()
    at = page.evaluate("scrollY")
    swipe(page, page.locator("#slider img").first, (0, 150))
    page.wait_for_function(f"scrollY < {at} - 50")


def swipe(page: Page, over: Locator, by: tuple[float, float], hold: float = 0) -> None:
    """A finger on the middle of something, moved in steps; `hold` is the time in milliseconds that it rests first."""
    box, finger = over.bounding_box(), page.context.new_cdp_session(page)
    finger.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for step in range(11):
        points = [{"x": x + by[0] * step / 10, "y": y + by[1] * step / 10}]
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove" if step else "touchStart", "touchPoints": points})
        page.wait_for_timeout(16 if step else hold)
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize(
    "sent",
    [None, "own", {"mode": "own"}, {"mode": "own", "box": [0, 0, 2, 1]}, {"mode": "own", "box": [0, 0, "1", 1]},
     {"mode": "own", "box": [0.5, 0, 0.5, 1]}, {"mode": "own", "box": [0, 0, float("nan"), 1]}, {"mode": ["whole"]},
     {"mode": "own", "box": [0, 0, 1]}, {"mode": "found", "car": -1}, {"mode": "found", "car": "1"}],
)  # fmt: skip
def test_an_invalid_selection_finds_the_car(sent):
    assert Selection.of(sent) == Selection("found", 0)
