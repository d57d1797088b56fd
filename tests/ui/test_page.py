"""The page as a visitor meets it: app.py in a process of its own, a real Chromium, and Gradio's client for the API.

pytest tests/test_page.py        # Chromium is found as `chromium`, or where the variable CHROMIUM says
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import CLASSES, draw_car
from tests.helpers.visit import served, visiting
from twincar import PhotoError
from twincar.config import CHECKOUT
from twincar.features.photo import load_photo


@pytest.fixture(scope="module")
def site(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    with served(tmp_path_factory.mktemp("site"), TWINCAR_MODEL=str(tiny_model)) as running:
        yield running


@pytest.fixture
def page(browser, site) -> Iterator[Page]:
    with visiting(browser, site) as page:
        expect(page.locator("#headline h2")).to_have_text("Which car is it?")
        yield page


def give(page: Page, photo: Path) -> None:
    page.set_input_files("#photo input[type=file]", photo)


def overlay_of(page: Page) -> str:
    return page.locator("#slider img").nth(1).get_attribute("src")


@pytest.fixture(scope="module")
def truth(tiny_model, car_photo):
    """What the Predictor itself says of the photo."""
    from twincar import Predictor

    return Predictor.from_pretrained(tiny_model)(car_photo)


def test_a_photo_is_answered_by_itself(page, car_photo, truth):
    give(page, car_photo)
    best = truth.top(1)[0]
    expect(page.locator("#headline .make")).to_have_text(best.make)
    expect(page.locator("#headline .year")).to_have_text(str(best.year))
    expect(page.locator("#headline .sure")).to_contain_text("%")
    rows = page.locator("#five input[type=radio]")
    assert [row.get_attribute("value") for row in rows.all()] == [guess.class_name for guess in truth.top(5)]
    expect(rows.nth(0)).to_be_checked()
    expect(page.locator("#slider img")).to_have_count(2)
    expect(page.locator("#sentence")).to_contain_text(best.class_name)
    assert page.locator("#slider img").nth(0).get_attribute("src") != overlay_of(page)
    expect(page.locator("#frame .stage")).to_be_hidden()  # this model was not taught where cars are


def test_the_page_says_what_it_knows(page):
    expect(page.locator("#headline")).to_contain_text("It knows the 5 cars (2000–2012).")
    expect(page.locator("#footer")).to_contain_text("deleted within about an hour")
    expect(page.get_by_role("button", name="Use via API")).to_be_visible()


def test_the_arrow_keys_choose_another_car_and_its_evidence(page, car_photo, truth):
    give(page, car_photo)
    first = page.locator("#five input[type=radio]").first
    expect(first).to_be_checked()
    before, second = overlay_of(page), truth.top(2)[1].class_name
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#sentence")).to_contain_text(second)
    expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before)
    expect(page.locator("#headline .make")).to_have_text(truth.top(1)[0].make)  # the answer itself stays


def test_the_evidence_can_be_drawn_by_another_method(page, car_photo, truth):
    give(page, car_photo)
    expect(page.get_by_label("Grad-CAM++", exact=True)).to_be_checked()
    before = overlay_of(page)
    page.get_by_text("HiResCAM", exact=True).click()
    expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before)
    expect(page.locator("#sentence")).to_contain_text(truth.top(1)[0].class_name)
    second = truth.top(2)[1].class_name
    page.locator("#five input[type=radio]").nth(1).check()
    expect(page.locator("#sentence")).to_contain_text(second)
    expect(page.get_by_label("HiResCAM", exact=True)).to_be_checked()  # the method stays, whatever the name
    page.get_by_text("Grad-CAM++", exact=True).click()
    page.locator("#five input[type=radio]").nth(0).check()
    expect(page.locator("#slider img").nth(1)).to_have_attribute("src", before)


def test_the_slider_moves_with_the_arrow_keys(page, car_photo):
    give(page, car_photo)
    handle = page.get_by_role("slider")
    handle.focus()
    expect(handle).to_have_attribute("aria-valuenow", "50")
    page.keyboard.press("ArrowRight")
    expect(handle).to_have_attribute("aria-valuenow", "55")
    page.keyboard.press("Home")
    expect(handle).to_have_attribute("aria-valuenow", "0")


def test_the_car_is_named_in_parts(page, car_photo, truth):
    give(page, car_photo)
    best = truth.top(1)[0]
    parts = {"Make": best.make, "Model": best.model, "Body": best.body, "Year": str(best.year)}
    expect(page.locator("#headline dt")).to_have_text(list(parts))
    expect(page.locator("#headline dd")).to_have_text(list(parts.values()))


def test_parts_that_a_name_does_not_tell_are_left_out():
    from twincar.config import parse_class_name
    from twincar.ui.answer import facts

    told = facts(parse_class_name("Lada <Niva>"))
    assert "Lada" in told and "&lt;Niva&gt;" in told
    assert "Body" not in told and "Year" not in told


def test_why_this_car_and_not_another(page, car_photo, truth):
    give(page, car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    expect(page.locator("#apart-picture img")).to_have_count(0)  # nothing is drawn before it is asked for
    page.get_by_role("button", name="Why this car and not another?").click()
    first, second, *_, last = (guess.class_name for guess in truth.top(5))
    expect(page.get_by_label("This car")).to_have_value(first)
    expect(page.get_by_label("and that one")).to_have_value(second)
    pictures = [page.locator(f"#{side}-picture img") for side in ("one", "other", "apart")]
    for picture in pictures:
        expect(picture).to_be_visible()
    expect(page.locator("#one-words")).to_contain_text(first)
    expect(page.locator("#other-words")).to_contain_text("%")
    expect(page.locator("#verdict")).to_contain_text("as likely")
    before = [picture.get_attribute("src") for picture in pictures]
    assert len(set(before)) == 3
    page.get_by_label("and that one").click()
    page.get_by_role("option", name=last).click()
    expect(page.locator("#other-words")).to_contain_text(last)
    expect(pictures[2]).not_to_have_attribute("src", before[2])
    assert pictures[0].get_attribute("alt") == f"The photo with the evidence for {first} over it"
    give(page, car_photo)  # a new photo starts with the drawer closed
    expect(page.get_by_label("This car")).to_be_hidden()


@pytest.mark.parametrize("nonsense", ["text", "empty", "cut", "tiny"])
def test_nonsense_gets_a_sentence_and_the_page_goes_on(page, car_photo, tmp_path, nonsense):
    broken = tmp_path / "broken.jpg"
    if nonsense == "tiny":
        Image.new("RGB", (3, 2)).save(broken)
    else:
        content = {"text": b"no picture at all\n" * 20, "empty": b"", "cut": car_photo.read_bytes()[:2000]}
        broken.write_bytes(content[nonsense])
    with pytest.raises(PhotoError) as sentence:
        load_photo(broken)
    give(page, broken)
    expect(page.locator("#headline .trouble p").first).to_have_text(str(sentence.value))
    expect(page.locator("#five")).to_be_hidden()
    give(page, car_photo)  # on top of the broken one
    expect(page.locator("#headline .answer")).to_be_visible()
    expect(page.locator("#slider img")).to_have_count(2)


def test_taking_the_photo_away_starts_again(page, car_photo):
    give(page, car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#headline h2")).to_have_text("Which car is it?")
    expect(page.locator("#evidence")).to_be_hidden()


def test_a_picture_pasted_anywhere_is_answered(page, car_photo):
    page.evaluate(
        """async (bytes) => {
            const clipboard = new DataTransfer();
            clipboard.items.add(new File([new Uint8Array(bytes)], "pasted.jpg", {type: "image/jpeg"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: clipboard, bubbles: true}));
        }""",
        list(car_photo.read_bytes()),
    )
    expect(page.locator("#headline .answer")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_in_one_column(page, site, car_photo, theme):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site[0]}/?__theme={theme}")
    expect(page.locator("#headline h2")).to_be_visible()
    give(page, car_photo)
    expect(page.locator("#slider img")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [page.locator(part).bounding_box()["y"] for part in ("#photo", "#headline", "#five", "#evidence")]
    assert tops == sorted(tops)
    colour = "([part, of]) => getComputedStyle(document.querySelector(part))[of].match(/\\d+/g).slice(0, 3).map(Number)"
    background = sum(page.evaluate(colour, ["body", "backgroundColor"]))
    assert (background < sum(page.evaluate(colour, ["#headline h2", "color"]))) == (theme == "dark")


def test_the_api_gives_the_five_and_the_overlay(site, car_photo, truth):
    client = Client(site[0], verbose=False)
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/identify", "/many"]
    answer, overlay = client.predict(photo=handle_file(car_photo), api_name="/identify")
    assert [guess["class_name"] for guess in answer["top"]] == [guess.class_name for guess in truth.top(5)]
    assert [make["make"] for make in answer["makes"]] == [guess.make for guess in truth.top(3)]
    assert [answer[key] for key in ("is_car", "is_known", "box", "others")] == [None, None, None, []]
    assert set(answer["top"][0]) == {"class_name", "make", "model", "body", "year", "probability"}
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1, abs=1e-4)  # all of the five classes
    assert Image.open(overlay).size == Image.open(car_photo).size


def test_the_api_answers_a_turned_photo_upright(site, car_photo, tmp_path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.open(car_photo).save(turned, exif=exif)
    _, overlay = Client(site[0], verbose=False).predict(photo=handle_file(turned), api_name="/identify")
    assert Image.open(overlay).size == (240, 320)


def test_the_api_says_the_same_sentence_about_a_broken_photo(site, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture at all\n" * 20)
    with pytest.raises(AppError, match="This file is not a picture that can be read"):
        Client(site[0], verbose=False).predict(photo=handle_file(broken), api_name="/identify")
    assert "Traceback" not in site[1].read_text()


def test_the_address_names_the_tab(browser, site, page):
    page.get_by_role("tab", name="About").click()
    expect(page).to_have_url(f"{site[0]}/?tab=about")
    with visiting(browser, site, "/?tab=about") as other:
        expect(other.get_by_role("tab", name="About")).to_have_attribute("aria-selected", "true")
        expect(other.locator("#card")).to_be_visible()
        other.get_by_role("tab", name="Identify").click()
        expect(other).to_have_url(f"{site[0]}/")
    with visiting(browser, site, "/?tab=nonsense") as other:
        expect(other.locator("#headline h2")).to_be_visible()


def test_about_shows_code_that_runs_against_this_page(page, site, car_photo, tmp_path, truth):
    shutil.copy(car_photo, tmp_path / "photo.jpg")
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#card")).to_contain_text("knows 5 cars")
    expect(page.locator("#card-text")).to_contain_text("Limits")
    code = page.locator("#about .code .cm-content")
    expect(code.nth(1)).to_contain_text(f'Client("{site[0]}")')
    expect(code.nth(2)).to_contain_text(f"API={site[0]}/gradio_api")
    text = code.nth(1).inner_text()
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert truth.top(1)[0].class_name in done.stdout, done.stderr
    if shutil.which("curl"):
        text = code.nth(2).inner_text()
        done = subprocess.run(["sh", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert "event: complete" in done.stdout and truth.top(1)[0].class_name in done.stdout, done.stderr


def test_about_tells_the_figures_of_the_published_model():
    from types import SimpleNamespace

    from twincar.config import PUBLISHED
    from twincar.ui.about import _model

    config = json.loads((PUBLISHED / "config.json").read_text())
    told = _model(SimpleNamespace(config=config, class_names=config["class_names"]))
    low, high = config["scores"]["top1_interval"]
    assert f"{config['scores']['top1']:.1%}" in told and f"{low:.1%} to {high:.1%}" in told


def test_an_unreachable_model_gives_way_to_the_copy_beside_the_app(browser, tiny_model, car_photo, tmp_path):
    shutil.copy(CHECKOUT / "app.py", tmp_path)
    shutil.copytree(tiny_model, tmp_path / "models" / "twincar")
    pictures = shutil.copytree(car_photo.parent, tmp_path / "photos")
    nowhere = {"TWINCAR_MODEL": "nobody/nothing", "HF_ENDPOINT": "http://127.0.0.1:9"}
    with served(tmp_path, tmp_path / "app.py", **nowhere, TWINCAR_EXAMPLES=str(pictures)) as (url, _):
        page = browser.new_page()
        page.goto(url)
        expect(page.locator("#notice")).to_contain_text("The Hub cannot be reached")
        expect(page.locator("#notice")).to_contain_text("This page answers with the copy that came with it.")
        page.locator("#examples button").first.click()
        expect(page.locator("#headline .answer")).to_be_visible()
        page.close()


def test_without_any_model_the_app_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    import app

    monkeypatch.setenv("TWINCAR_MODEL", str(tmp_path))  # a folder without a model
    monkeypatch.setattr(app.load, "__defaults__", (tmp_path / "models" / "twincar",))
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert "holds no config.json" in stopped.value.code and "TWINCAR_MODEL=user/repo" in stopped.value.code
    assert "\n" not in stopped.value.code  # sys.exit with a sentence prints it and ends with code 1


@pytest.mark.parametrize(
    ("probability", "words"), [(1.0, "over 99 %"), (0.912, "91 %"), (0.006, "1 %"), (0.0, "under 1 %")]
)
def test_per_cent_is_written_for_people(probability, words):
    from twincar.ui.answer import percent

    assert percent(probability).replace("\N{NO-BREAK SPACE}", " ") == words


def test_what_it_knows_is_read_from_the_class_names():
    from types import SimpleNamespace

    from twincar.config import STANFORD_CARS
    from twincar.ui.page import scope

    assert scope(SimpleNamespace(class_names=STANFORD_CARS)) == "the 196 cars of Stanford Cars (1991–2012)"
    assert scope(SimpleNamespace(class_names=("Lada Niva", "Dacia 1300"), config={})) == "the 2 cars"
    assert scope(SimpleNamespace(class_names=tuple(CLASSES[:1]), config={})) == "the 1 cars (2012)"


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_the_api_reads_no_file_that_gradio_did_not_store(site, tmp_path, meta):
    """A caller that names a path on the server, with and without the word that makes Gradio check it."""
    address, _ = site
    draw_car(1).save(tmp_path / "secret.png")
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=60) as client:
        photo = {"path": str(tmp_path / "secret.png")} | meta
        event = client.post("/call/identify", json={"data": [photo]})
        answer = client.get(f"/call/identify/{event.json()['event_id']}") if event.is_success else event
    assert "event: complete" not in answer.text
    assert "class_name" not in answer.text
