"""The Teach it tab in a real browser: a car is added from drawings, is known in this visit only, and is removed."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.conftest import CLASSES, draw_car
from tests.helpers.access import violations
from tests.helpers.visit import served, visiting
from twincar import Predictor
from twincar.config import TwinCarError
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.new_classes import Examples, pooled_features
from twincar.modeling.networks.closed_form_head import ClassStatistics
from twincar.modeling.open_set.open_set import OpenSet, Threshold, car_features
from twincar.ui import added_cars
from twincar.ui.added_cars import AddedCar, AddedCars

BEFORE, NEW = CLASSES[:4], "Trabant 601 Sedan 1964"  # drawn in a color and a shape that none of the others has
SHOTS = "#teach-photos .shots li"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of four classes with statistics, which takes a plain picture for one without a car."""
    torch.manual_seed(0)
    config = {"architecture": {"name": "resnet18"}, "class_names": BEFORE, "input": {"size": 64}}
    made = CarModel(config).eval()
    predictor = Predictor(made, "cpu", "torch:f32")
    answers = [predictor(draw_car(label, seed), refine=False) for label in range(4) for seed in range(8)]
    labels = torch.arange(4).repeat_interleave(8)
    made.config["class_statistics"] = {"pictures": 32}
    made.class_statistics = ClassStatistics.fit(pooled_features(predictor, answers), labels, 4)
    weight, bias = made.class_statistics.head()
    made.network.fc.load_state_dict({"weight": weight, "bias": bias})
    cars = torch.stack([car_features(answer.features) for answer in answers])
    plain = car_features(predictor(grey(), refine=False).features)
    toward = cars.mean(0) - plain
    least = float(((cars @ toward).min() + plain @ toward) / 2)
    means, confusion = made.class_statistics.means, torch.zeros(4, 4, dtype=torch.int)
    made.open_set = OpenSet(toward, 0.0, means, confusion, Threshold(least, 0.05), Threshold(-1e9, 0.05))
    return model_folder.save(made, tmp_path_factory.mktemp("model") / "four")


@pytest.fixture(scope="module")
def keep(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("keep") / "mine"


@pytest.fixture(scope="module")
def site(model, keep, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("site")
    with served(folder, TWINCAR_MODEL=str(model), TWINCAR_TEACH=str(keep)) as running:
        yield running


@pytest.fixture
def page(browser, site) -> Iterator[Page]:
    with visiting(browser, site, "/?tab=teach") as page:
        expect(page.get_by_label("Name of the car")).to_be_visible()
        yield page


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Drawings 0.jpg to 21.jpg of the new car."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(22):
        draw_car(4, seed, (320, 240)).save(folder / f"{seed}.jpg")
    return folder


def grey() -> Image.Image:
    return Image.new("RGB", (320, 240), "grey")


def give(page: Page, *files: Path) -> None:
    page.set_input_files("#teach-files input[type=file]", files)


def named(page: Page, photo: Path) -> str:
    """The name that Identify gives to the car of a photo."""
    page.get_by_role("tab", name="Identify").click()
    page.set_input_files("#photo input[type=file]", photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    return page.locator("#top5 input[type=radio]").first.get_attribute("value")


def test_a_car_is_added_from_drawings_and_known_in_this_visit_only(
    browser: Browser, site, page, photos, keep, tmp_path
):
    expect(page.locator("#teach-welcome")).to_contain_text("Whoever runs this page keeps the names")
    grey().save(tmp_path / "grey.png")
    (tmp_path / "again.jpg").write_bytes((photos / "0.jpg").read_bytes())
    draw_car(1, 90, (320, 240)).save(tmp_path / "known.jpg")
    (tmp_path / "broken.jpg").write_text("no picture")
    page.get_by_label("Name of the car").fill(f"  {NEW} ")
    give(page, *(photos / f"{seed}.jpg" for seed in range(3)), *sorted(tmp_path.iterdir()))
    said = page.locator(f"{SHOTS} .said")
    expect(page.locator(SHOTS)).to_have_count(7)
    expect(said.nth(3)).to_have_text("The same picture as 0.jpg.")
    expect(said.nth(4)).to_contain_text("This file is not a picture that can be read")
    expect(said.nth(5)).to_have_text("No car was found. If there is one, draw a frame around it.")
    expect(said.nth(6)).to_have_text(f"It looks like the {BEFORE[1]}, which is known already.")
    page.get_by_role("group", name="known.jpg").get_by_role("button", name="Remove").click()
    expect(page.locator(SHOTS)).to_have_count(6)
    page.get_by_role("button", name="Add this car").click()
    expect(page.locator("#teach-status")).to_contain_text(f"{NEW} was added from 3 photos.")
    expect(page.locator(SHOTS)).to_have_count(0)
    assert named(page, photos / "20.jpg") == NEW
    expect(page.locator("#headline .note")).to_have_text("You added this car, from 3 photos.")
    page.get_by_text("Why this car and not another?").click()
    expect(page.locator("#verdict")).to_contain_text("times as likely")
    page.get_by_role("tab", name="Many photos").click()
    expect(page.locator("#many-welcome h2")).to_be_visible()  # an earlier upload may be lost
    page.set_input_files("#files input[type=file]", photos / "21.jpg")
    expect(page.locator("#table tbody td.name button")).to_have_text(NEW)

    with visiting(browser, site, "/") as other:
        assert named(other, photos / "20.jpg") in BEFORE

    page.get_by_role("tab", name="Teach it").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the model with your cars").click()
    with ZipFile(download.value.path()) as file:
        file.extractall(tmp_path / "zip")
    (folder,) = (tmp_path / "zip").iterdir()
    for each in (folder, keep):  # what the visitor takes along, and what the next start of the page loads
        again = Predictor.from_pretrained(each)
        assert again.class_names == (*BEFORE, NEW) and again(photos / "20.jpg").top(1)[0].class_name == NEW
    page.get_by_role("button", name=f"Remove {NEW}").click()
    expect(page.locator("#teach-status")).to_have_text(f"{NEW} was removed.")
    named(page, photos / "19.jpg")
    expect(page.locator("#headline .note")).to_have_count(0)
    expect(page.locator("#top5 input[type=radio]").first).not_to_have_attribute("value", NEW)
    assert model_folder.load(keep).config["class_names"] == BEFORE


def test_what_is_missing_or_too_much_is_said_in_one_sentence(page, photos):
    name, status = page.get_by_label("Name of the car"), page.locator("#teach-status")
    add = page.get_by_role("button", name="Add this car")
    add.click()
    expect(status).to_have_text("Give the name of the car first, such as Tesla Model 3 Sedan 2021.")
    name.fill(BEFORE[0].upper())
    add.click()
    expect(status).to_have_text(f"The {BEFORE[0].upper()} is known already: give another name.")
    name.fill("<b>Lada</b>")
    name.press("Enter")
    expect(status).to_have_text("Add 3 to 20 photos of it first.")
    give(page, photos / "0.jpg")
    expect(page.locator(SHOTS)).to_have_count(1)
    add.click()
    expect(status).to_have_text("2 more photos of this car are needed: 3 or more.")
    give(page, *(photos / f"{seed}.jpg" for seed in range(1, 22)))
    expect(page.locator("#teach-files .note")).to_have_text("At most 20 at a time: the first 20 of 21 were taken.")
    expect(status).to_have_text("At most 20 photos of a car: the others were left out.")
    expect(page.locator(SHOTS)).to_have_count(20)
    add.click()
    expect(page.locator("#teach-cars li")).to_contain_text(re.compile(r"<b>Lada</b> from \d+ photos"))
    page.get_by_role("button", name="Remove <b>Lada</b>").click()
    expect(page.locator("#teach-cars li")).to_have_count(0)


def test_a_wrong_frame_is_mended_by_mouse_and_keys(page, photos):
    give(page, photos / "0.jpg")
    frame, picture = page.locator(f"{SHOTS} .own"), page.locator(f"{SHOTS} img")
    expect(frame).to_be_visible()
    sides = "element => [...element.style].map((name) => parseFloat(element.style.getPropertyValue(name)))"
    assert frame.evaluate(sides) == [0, 0, 100, 100]
    box = picture.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"], steps=4)
    page.mouse.up()
    expect(page.locator(f"{SHOTS}:not(.busy)")).to_have_count(1)
    assert frame.evaluate(sides) == pytest.approx([25, 25, 75, 75], abs=1.5)
    page.get_by_role("button", name="Draw a frame").click()
    expect(frame).to_be_focused()
    for key in ("ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(f"{SHOTS}:not(.busy):not(.drawing)")).to_have_count(1)
    assert frame.evaluate(sides) == pytest.approx([27, 25, 77, 77], abs=1.5)
    page.get_by_role("button", name="Whole photo").click()
    expect(page.locator(f"{SHOTS}:not(.busy)")).to_have_count(1)
    assert frame.evaluate(sides) == [0, 0, 100, 100]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_here_is_inaccessible_on_a_phone(browser: Browser, site, photos, theme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    with visiting(context, site, f"/?tab=teach&__theme={theme}") as page:
        expect(page.get_by_label("Name of the car")).to_be_visible()
        assert violations(page) == []
        page.get_by_label("Name of the car").fill(NEW)
        give(page, *(photos / f"{seed}.jpg" for seed in range(3)), Path(__file__).parents[1] / "conftest.py")
        expect(page.locator("#teach-files .note")).to_contain_text("left out: conftest.py")
        expect(page.locator(SHOTS)).to_have_count(3)
        expect(page.locator("#teach-files .dropzone:not(.busy)")).to_be_visible()
        assert violations(page) == []
        small = """() => [...document.querySelectorAll("#teach-files button, #teach-photos button, #teach-row button")]
            .filter((one) => one.getClientRects().length && one.getBoundingClientRect().height < 44)
            .map((one) => one.outerHTML)"""
        assert page.evaluate(small) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("button", name="Add this car").tap()
        expect(page.locator("#teach-cars li")).to_have_count(1)
        assert violations(page) == []
        page.get_by_role("button", name=f"Remove {NEW}").tap()
        expect(page.locator("#teach-cars li")).to_have_count(0)
    context.close()


def test_a_model_without_statistics_says_what_to_run(browser, tiny_model, tmp_path_factory):
    from twincar.ui import page as built

    page = built.build(Predictor.from_pretrained(tiny_model, engine="torch:f32"))
    texts = [str(block.value) for block in page.blocks.values() if getattr(block, "elem_id", "") == "teach-impossible"]
    assert len(texts) == 1 and "<code>twincar fit-head --model models/twincar --data data</code>" in texts[0]


def car(name: str) -> AddedCar:
    return AddedCar(Examples(name, torch.rand(512), 3))


def test_visitors_share_the_engine_and_few_of_them_are_kept_in_memory(model, monkeypatch):
    monkeypatch.setattr(added_cars, "PREDICTORS", 2)
    own = Predictor.from_pretrained(model, engine="torch:f32")
    cars = AddedCars(own)
    made = [cars.predictor([car(str(number))]) for number in range(4)]
    assert cars.predictor(()) is own and cars.predictor(None) is own and own.class_names == tuple(BEFORE)
    assert all(each.engine is own.engine and each.network.layer4 is own.network.layer4 for each in made)
    assert {id(each.model.class_statistics._cholesky) for each in made} == {id(own.model.class_statistics._cholesky)}
    assert len(cars._made) == 2
    cars.store(car("nothing is written"))  # by default the page keeps nothing


def test_several_visitors_at_once_are_all_kept(model, tmp_path):
    keep = tmp_path / "mine"
    cars = AddedCars(Predictor.from_pretrained(model, engine="torch:f32"), keep)
    added = [car(f"Car {number}") for number in range(4)]
    threads = [threading.Thread(target=cars.store, args=(each,)) for each in added]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert set(model_folder.load(keep).config["class_names"]) == {*BEFORE, *(each.name for each in added)}
    cars.store(added[0])  # once only
    other = car("car 0")
    with pytest.raises(TwinCarError, match="kept for this visit only"):
        cars.store(other)
    cars.discard(other)  # it is not in the folder: the car of the other visitor stays
    cars.discard(added[1])
    assert set(model_folder.load(keep).config["class_names"]) == {*BEFORE, "Car 0", "Car 2", "Car 3"}
    assert cars.archive(added[:1], str) and not list(tmp_path.glob(".mine*tmp*"))
