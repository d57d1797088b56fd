"""The page end to end: app.py in a process of its own, a real Chromium, and Gradio's client for the API.

Chromium is `chromium` on the PATH, or the variable CHROMIUM.
"""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import CLASSES, draw_car
from tests.helpers.configs import config_of
from tests.helpers.visit import served, settled, visiting
from twincar import PhotoError
from twincar.config import CHECKOUT
from twincar.features.photo import load_photo
from twincar.modeling.inference.explain import METHODS, describe_method


@pytest.fixture
def page(browser, site) -> Iterator[Page]:
    with visiting(browser, site) as page:
        expect(page.locator("#headline h2")).to_have_text("Which car is it?")
        yield page


def give(page: Page, photo: Path) -> None:
    page.set_input_files("#photo input[type=file]", photo)


def select_method(page: Page, name: str) -> None:
    page.get_by_label("Evidence method").click()
    page.get_by_role("option", name=name, exact=True).click()


def overlay_of(page: Page) -> str:
    return page.locator("#slider img").nth(1).get_attribute("src")


@pytest.fixture(scope="module")
def truth(tiny_model, car_photo):
    """The Prediction for the photo."""
    from twincar import Predictor

    return Predictor.from_pretrained(tiny_model)(car_photo)


def test_a_photo_is_answered_on_upload(page, car_photo, truth):
    give(page, car_photo)
    best = truth.top(1)[0]
    expect(page.locator("#headline .make")).to_have_text(best.make)
    expect(page.locator("#headline .year")).to_have_text(str(best.year))
    expect(page.locator("#headline .sure")).to_contain_text("%")
    rows = page.locator("#top5 input[type=radio]")
    assert [row.get_attribute("value") for row in rows.all()] == [guess.class_name for guess in truth.top(5)]
    expect(rows.nth(0)).to_be_checked()
    expect(page.locator("#slider img")).to_have_count(2)
    expect(page.locator("#sentence")).to_contain_text(best.class_name)
    assert page.locator("#slider img").nth(0).get_attribute("src") != overlay_of(page)
    expect(page.locator("#frame .stage")).to_be_hidden()  # this model has no detector


def test_the_page_names_its_classes(page):
    expect(page.locator("#headline")).to_contain_text("Covers 5 cars, 2000–2012.")
    expect(page.locator("#footer")).to_contain_text("deleted within about an hour")
    expect(page.get_by_role("button", name="Use via API")).to_be_visible()


def test_the_arrow_keys_select_another_car_and_its_evidence(page, car_photo, truth):
    give(page, car_photo)
    first = page.locator("#top5 input[type=radio]").first
    expect(first).to_be_checked()
    before, second = overlay_of(page), truth.top(2)[1].class_name
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#sentence")).to_contain_text(second)
    expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before)
    expect(page.locator("#headline .make")).to_have_text(truth.top(1)[0].make)  # the answer itself does not change


def test_the_evidence_method_can_be_changed(page, car_photo, truth):
    give(page, car_photo)
    method = page.get_by_label("Evidence method")
    expect(method).to_have_value("Grad-CAM++")
    before = overlay_of(page)
    select_method(page, "HiResCAM")
    expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before)
    expect(page.locator("#sentence")).to_contain_text(truth.top(1)[0].class_name)
    expect(page.locator("#method")).to_contain_text(describe_method("HiResCAM"))
    second = truth.top(2)[1].class_name
    page.locator("#top5 input[type=radio]").nth(1).check()
    expect(page.locator("#sentence")).to_contain_text(second)
    expect(method).to_have_value("HiResCAM")  # the method is kept for another class
    select_method(page, "Grad-CAM++")
    page.locator("#top5 input[type=radio]").nth(0).check()
    expect(page.locator("#slider img").nth(1)).to_have_attribute("src", before)


def test_a_method_of_the_library_is_drawn_or_its_error_is_shown(page, car_photo):
    give(page, car_photo)
    expect(page.locator("#slider img")).to_have_count(2)
    before = overlay_of(page)
    page.get_by_label("Evidence method").click()
    offered = page.locator("#method [role=option]")
    assert [name.split(" (")[0].split("\n")[-1].strip("✓ ") for name in offered.all_inner_texts()] == list(METHODS)
    page.get_by_role("option", name="XGrad-CAM", exact=True).click()
    if find_spec("pytorch_grad_cam"):
        expect(page.locator("#slider img").nth(1)).not_to_have_attribute("src", before)
    else:
        expect(page.locator("#sentence [role=alert]")).to_contain_text("pip install grad-cam")
    expect(page.locator("#slider img")).to_have_count(2)


def test_the_slider_moves_with_the_arrow_keys(page, car_photo):
    give(page, car_photo)
    handle = page.get_by_role("slider")
    at = settled(handle)
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(handle).to_have_attribute("aria-valuenow", str(at + 5))
    page.keyboard.press("Home")
    expect(handle).to_have_attribute("aria-valuenow", "0")


def test_the_class_name_is_shown_in_parts(page, car_photo, truth):
    give(page, car_photo)
    best = truth.top(1)[0]
    parts = {"make": best.make, "body": best.body, "year": str(best.year)}
    for part, text in parts.items():
        expect(page.locator(f"#headline h2 .{part}")).to_have_text(text)
    expect(page.locator("#headline h2")).to_have_text(
        re.compile(rf"{best.make}\s+{best.model}\s+{best.body}\s+{best.year}")
    )


def test_parts_missing_in_a_name_are_left_out():
    from twincar.config import parse_class_name
    from twincar.modeling.inference.prediction import Guess
    from twincar.ui.answer_html import _name

    car = parse_class_name("Lada <Niva>")
    html = _name(Guess("Lada <Niva>", car.make, car.model, car.body, car.year, 0.5))
    assert "Lada" in html and "&lt;Niva&gt;" in html
    assert "body" not in html and "year" not in html


def test_two_classes_are_compared(page, car_photo, truth):
    give(page, car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    expect(page.locator("#difference-picture img")).to_have_count(0)  # nothing is drawn before the drawer is opened
    page.get_by_role("button", name="Why this car and not another?").click()
    first, second, *_, last = (guess.class_name for guess in truth.top(5))
    expect(page.get_by_label("This car")).to_have_value(first)
    expect(page.get_by_label("Other car")).to_have_value(second)
    pictures = [page.locator(f"#{side}-picture img") for side in ("one", "other", "difference")]
    for picture in pictures:
        expect(picture).to_be_visible()
    expect(page.locator("#one-caption")).to_contain_text(first)
    expect(page.locator("#other-caption")).to_contain_text("%")
    expect(page.locator("#verdict")).to_contain_text("likely")
    before = [picture.get_attribute("src") for picture in pictures]
    assert len(set(before)) == 3
    page.get_by_label("Other car").click()
    page.get_by_role("option", name=last).click()
    expect(page.locator("#other-caption")).to_contain_text(last)
    expect(pictures[2]).not_to_have_attribute("src", before[2])
    assert pictures[0].get_attribute("alt") == f"The photo with the evidence for {first} over it"
    give(page, car_photo)  # a new photo starts with the drawer closed
    expect(page.get_by_label("This car")).to_be_hidden()


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "tiny"])
def test_an_unreadable_file_gives_a_sentence_and_the_next_photo_is_answered(page, car_photo, tmp_path, kind):
    broken = tmp_path / "broken.jpg"
    if kind == "tiny":
        Image.new("RGB", (3, 2)).save(broken)
    else:
        content = {"text": b"no picture at all\n" * 20, "empty": b"", "cut": car_photo.read_bytes()[:2000]}
        broken.write_bytes(content[kind])
    with pytest.raises(PhotoError) as sentence:
        load_photo(broken)
    give(page, broken)
    expect(page.locator("#headline .trouble p").first).to_have_text(str(sentence.value))
    expect(page.locator("#top5")).to_be_hidden()
    give(page, car_photo)  # on top of the broken one
    expect(page.locator("#headline .answer")).to_be_visible()
    expect(page.locator("#slider img")).to_have_count(2)


def test_removing_the_photo_restores_the_welcome(page, car_photo):
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


BRING = {  # a file of unknown type, as an <input>, a drop or the clipboard hands it over
    "select": """(input, files) => {
        input.files = files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
    }""",
    "drop": """(input, dataTransfer) => input.parentElement.dispatchEvent(
        new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}))""",
    "paste": """(input, clipboardData) => document.dispatchEvent(
        new ClipboardEvent("paste", {clipboardData, bubbles: true}))""",
}


def bring(page: Page, way: str, where: str, name: str, content: bytes, kind: str = "") -> None:
    page.evaluate(
        f"""([where, name, bytes, type]) => {{
            const input = document.querySelector(where + " input[type=file]"), given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], name, {{type}}));
            ({BRING[way]})(input, "{way}" === "select" ? given.files : given);
        }}""",
        [where, name, list(content), kind],
    )


@pytest.mark.parametrize("way", BRING)
def test_a_file_is_judged_by_its_content_and_not_by_the_type_that_the_browser_gives(page, car_photo, way):
    """No browser but Safari knows .heic, and none knows a photo without a suffix."""
    selectable = re.compile(r"image/\*,.*\.heic")  # in the browser's dialog
    expect(page.locator("#photo input[type=file]")).to_have_attribute("accept", selectable)
    bring(page, way, "#photo", "notes", b"no picture at all\n" * 20)
    expect(page.locator("#headline .trouble")).to_contain_text("This file is not a picture that can be read")
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#headline h2")).to_have_text("Which car is it?")
    bring(page, way, "#photo", "IMG_0001.HEIC", as_heic(car_photo))
    expect(page.locator("#headline .answer")).to_be_visible()
    page.get_by_role("tab", name="Many photos").click()
    expect(page.locator("#many-welcome h2")).to_be_visible()  # an earlier upload may be lost
    bring(page, way, "#files", "IMG_0001.HEIC", as_heic(car_photo), "application/octet-stream")
    expect(page.locator("#table tbody tr")).to_have_count(1)
    expect(page.locator("#status")).to_contain_text("1 photo answered")


def as_heic(photo: Path) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.open(photo)).save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_in_one_column(page, site, car_photo, theme):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site[0]}/?__theme={theme}")
    expect(page.locator("#headline h2")).to_be_visible()
    give(page, car_photo)
    expect(page.locator("#slider img")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [page.locator(part).bounding_box()["y"] for part in ("#photo", "#headline", "#top5", "#evidence")]
    assert tops == sorted(tops)
    small = """() => [...document.querySelectorAll("#identify button, #tabs [role=tab], summary")].filter((each) => {
        const { width, height } = each.getBoundingClientRect();
        return width && height < 44 && !each.closest("#frame .cars, #slider, #photo, #evidence");
    }).map((each) => each.outerHTML.slice(0, 90))"""
    assert page.evaluate(small) == []  # targets of a thumb
    expect(page.get_by_role("tab")).to_have_count(6)  # none is in a menu
    colour = "([part, of]) => getComputedStyle(document.querySelector(part))[of].match(/\\d+/g).slice(0, 3).map(Number)"
    background = sum(page.evaluate(colour, ["body", "backgroundColor"]))
    assert (background < sum(page.evaluate(colour, ["#headline h2", "color"]))) == (theme == "dark")


def test_the_api_returns_the_top_5_and_the_overlay(site, car_photo, truth):
    client = Client(site[0], verbose=False)
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/identify", "/many"]
    answer, overlay = client.predict(photo=handle_file(car_photo), api_name="/identify")
    assert [guess["class_name"] for guess in answer["top"]] == [guess.class_name for guess in truth.top(5)]
    assert [make["make"] for make in answer["makes"]] == [guess.make for guess in truth.top(3)]
    assert [answer[key] for key in ("is_car", "is_known", "box", "others")] == [None, None, None, []]
    assert [car["top"] for car in answer["cars"]] == [answer["top"]]
    assert answer["state"] in ("car", "make", "model", "unsure") and answer["model"]["name"] == "twincar"
    assert set(answer["top"][0]) == {"class_name", "make", "model", "body", "year", "probability"}
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1, abs=1e-4)  # all of the five classes
    assert Image.open(overlay).size == Image.open(car_photo).size


def test_the_api_answers_a_rotated_photo_upright(site, car_photo, tmp_path):
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
    expect(page.locator("#card")).to_contain_text("with 5 classes")
    expect(page.locator("#card-text")).to_contain_text("Limitations")
    code = page.locator("#calls pre code")
    expect(code.nth(1)).to_contain_text(f'Client("{site[0]}")')
    expect(code.nth(2)).to_contain_text(f"{site[0]}/api/identify")
    text = code.nth(1).inner_text()
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert truth.top(1)[0].class_name in done.stdout, done.stderr
    if shutil.which("curl"):
        text = code.nth(2).inner_text()
        done = subprocess.run(["sh", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert truth.top(1)[0].class_name in done.stdout, done.stderr


def test_about_shows_the_scores_of_the_published_model():
    from types import SimpleNamespace

    from twincar.config import PUBLISHED
    from twincar.text import percent
    from twincar.ui.about import _model

    config = config_of(PUBLISHED)
    html = _model(SimpleNamespace(config=config, class_names=config["class_names"]), None)
    low, high = config["scores"]["top1_interval"]
    assert percent(config["scores"]["top1"]) in html and f"{percent(low)} to {percent(high)}" in html


@pytest.mark.slow
def test_an_unreachable_model_is_replaced_by_the_shipped_one(browser, tiny_model, car_photo, tmp_path):
    shutil.copy(CHECKOUT / "app.py", tmp_path)
    shutil.copytree(tiny_model, tmp_path / "models" / "twincar")
    pictures = shutil.copytree(car_photo.parent, tmp_path / "photos")
    nowhere = {"TWINCAR_MODEL": "nobody/nothing", "HF_ENDPOINT": "http://127.0.0.1:9"}
    with served(tmp_path, tmp_path / "app.py", **nowhere, TWINCAR_EXAMPLES=str(pictures)) as (url, _):
        page = browser.new_page()
        page.goto(url)
        expect(page.locator("#notice")).to_contain_text("The Hub cannot be reached")
        expect(page.locator("#notice")).to_contain_text("This page uses the model that it was shipped with.")
        page.locator("#examples button").first.click()
        expect(page.locator("#headline .answer")).to_be_visible()
        page.close()


def test_without_a_model_the_app_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    import app

    monkeypatch.setenv("TWINCAR_MODEL", str(tmp_path))  # a folder without a model
    monkeypatch.setattr(app.load, "__defaults__", (tmp_path / "models" / "twincar",))
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert "is empty" in stopped.value.code and "TWINCAR_MODEL=user/repo" in stopped.value.code
    assert "\n" not in stopped.value.code  # sys.exit with a sentence prints it and ends with code 1


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "over 99 %"), (0.912, "91 %"), (0.006, "1 %"), (0.0, "under 1 %")]
)
def test_percentages_are_never_0_or_100(probability, text):
    from twincar.modeling.inference.describe import percent

    assert percent(probability).replace("\N{NO-BREAK SPACE}", " ") == text


def test_the_scope_is_read_from_the_class_names():
    from types import SimpleNamespace

    from twincar.config import STANFORD_CARS
    from twincar.ui.page import scope

    assert scope(SimpleNamespace(class_names=STANFORD_CARS)) == "196 cars of Stanford Cars, 1991–2012"
    assert scope(SimpleNamespace(class_names=("Lada Niva", "Dacia 1300"), config={})) == "2 cars"
    assert scope(SimpleNamespace(class_names=tuple(CLASSES[:1]), config={})) == "1 car, 2012"


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_the_api_reads_only_files_that_gradio_stored(site, tmp_path, meta):
    """A caller that gives a path of the server, with and without the mark that makes Gradio check it."""
    address, _ = site
    draw_car(1).save(tmp_path / "secret.png")
    with httpx.Client(base_url=f"{address}/gradio_api", timeout=60) as client:
        photo = {"path": str(tmp_path / "secret.png")} | meta
        event = client.post("/call/identify", json={"data": [photo]})
        answer = client.get(f"/call/identify/{event.json()['event_id']}") if event.is_success else event
    assert "event: complete" not in answer.text
    assert "class_name" not in answer.text
