"""What a newcomer meets: examples, drops anywhere, the camera; taking the answer along; previews of links; feedback."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import draw_car
from tests.helpers.access import violations
from tests.helpers.visit import served, visiting
from twincar.ui import document
from twincar.ui.examples import MOST, from_folder
from twincar.ui.identify import beside
from twincar.ui.known_cars import known_cars

DROP = """([selector, name, bytes]) => {
    const dataTransfer = new DataTransfer(), target = document.querySelector(selector);
    dataTransfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
    ["dragenter", "dragover", "drop"].forEach((kind) => target.dispatchEvent(
        new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true})));
}"""


@pytest.fixture(scope="module")
def asking(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path, Path]]:
    """A page that asks whether its answers were right: its address, its output, and the file."""
    folder = tmp_path_factory.mktemp("asking")
    file = folder / "kept" / "answers.csv"
    with served(folder, TWINCAR_MODEL=str(tiny_model), TWINCAR_FEEDBACK=str(file)) as (url, log):
        yield url, log, file


@pytest.fixture
def page(browser, asking) -> Iterator[Page]:
    with visiting(browser, asking[:2]) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


def drop(page: Page, where: str, photo: Path) -> None:
    expect(page.locator("#shell")).to_have_count(0)  # page.js has run
    page.locator(where).wait_for(state="attached")
    page.evaluate(DROP, [where, photo.name, list(photo.read_bytes())])


def test_an_example_is_one_click_away(page):
    examples = page.locator("#examples button")
    assert 6 <= examples.count() <= MOST
    for each in examples.all():
        assert each.locator("img").get_attribute("alt") and each.inner_text()
    examples.first.click()
    expect(page.locator("#headline .answer")).to_be_visible()
    expect(page.locator("#slider img")).to_have_count(2)


def test_a_drop_anywhere_is_answered_whatever_is_shown(page, car_photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture" * 9)
    draw_car(2).save(tmp_path / "other.png")
    drop(page, "#footer", car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    drop(page, "#slider", tmp_path / "broken.jpg")
    expect(page.locator("#headline .trouble")).to_be_visible()
    drop(page, "#headline .trouble", tmp_path / "other.png")
    expect(page.locator("#headline .answer")).to_be_visible()
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#card")).to_be_visible()
    drop(page, "#card", car_photo)  # a tab that takes no photos
    expect(page.get_by_role("tab", name="Identify")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#headline .answer")).to_be_visible()
    expect(page.locator("html.dragging")).to_have_count(0)


def test_the_buttons_have_text_and_open_the_file_dialog_and_the_camera(page, car_photo):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="New photo").click()
    page.get_by_role("button", name="Remove Image").click()
    page.get_by_role("button", name="Take a photo").click()  # a desktop's webcam
    expect(page.locator("#photo video")).to_be_visible()
    page.get_by_role("button", name="capture photo").click()
    expect(page.locator("#headline .answer")).to_be_visible()
    page.get_by_role("button", name="Remove Image").click()
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("#photo video")).to_be_visible()
    page.get_by_role("button", name="Choose a photo").click()
    expect(page.locator("#photo input[type=file]")).to_be_attached()


def test_a_phone_opens_its_own_camera(browser, asking):
    phone = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = phone.new_page()
    page.goto(asking[0])
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    phone.close()


def test_the_answer_is_copied_and_its_picture_saved(page, car_photo, tmp_path):
    drop(page, "body", car_photo)
    page.get_by_role("button", name="Copy answer").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    name = re.sub(r"\s+", " ", page.locator("#headline h2").inner_text())
    assert name in copied and "%" in copied
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    download.value.save_as(tmp_path / "card.jpg")
    card = np.asarray(Image.open(tmp_path / "card.jpg").convert("RGB"))
    assert card.shape[1] == 1200 and download.value.suggested_filename == f"{name.lower().replace(' ', '-')}.jpg"
    assert card[:400].std() > 20 and (card[-160:] > 200).any()  # the photo above, the name in white below


def test_a_reload_shows_the_last_photo_again_until_it_is_removed(browser, asking, car_photo):
    page = browser.new_page()  # Gradio logs streams that a reload cuts off as errors
    page.goto(asking[0])
    expect(page.locator("#headline .welcome")).to_be_visible()
    drop(page, "body", car_photo)
    name = page.locator("#headline .answer h2").inner_text()
    page.reload()
    expect(page.locator("#headline h2")).to_have_text(name, use_inner_text=True)
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#headline h2")).to_have_text("Which car is it?")
    page.reload()
    expect(page.locator("#headline h2")).to_have_text("Which car is it?")
    page.wait_for_timeout(500)
    expect(page.locator("#headline .answer")).to_have_count(0)
    page.close()


def test_back_returns_to_the_tab_before(page):
    for name in ("Many photos", "About"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        expect(page).to_have_url(re.compile("tab="))
    page.go_back()
    expect(page.get_by_role("tab", name="Many photos")).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page.get_by_role("tab", name="Identify")).to_have_attribute("aria-selected", "true")
    page.go_forward()
    expect(page.get_by_role("tab", name="Many photos")).to_have_attribute("aria-selected", "true")


def test_the_cars_are_listed_and_searched(page):
    page.get_by_text("5 cars it can name").click()
    shown = page.locator("#known-cars li:visible")
    expect(shown).to_have_count(5)
    page.get_by_label("Search").fill("bmw")
    assert 1 <= shown.count() < 5
    page.get_by_label("Search").fill("no such car")
    expect(page.locator("#known-cars .count")).to_have_text("No car matches.")


def test_the_list_escapes_names():
    assert "<script>" not in known_cars(["<script> Car 2012"])


def test_what_visitors_say_is_kept_where_the_operator_asks_for_it(page, asking, car_photo):
    file = asking[2]
    file.unlink(missing_ok=True)
    drop(page, "body", car_photo)
    expect(page.locator("#feedback")).to_contain_text("Was this right?")
    page.get_by_role("button", name="Yes", exact=True).click()
    expect(page.locator("#feedback")).to_contain_text("Thank you.")
    drop(page, "body", car_photo)
    expect(page.locator("#feedback")).to_contain_text("Was this right?")
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_placeholder("make, model, year").fill('=cmd() "quoted", Lada Niva 1977')
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#feedback")).to_contain_text("Thank you.")
    kept = pd.read_csv(file)
    assert list(kept.right) == ["yes", "no"] and kept.car[1] == """'=cmd() "quoted", Lada Niva 1977"""
    assert set(kept) == {"time", "state", "class_name", "probability", "right", "car", "model", "version"}
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#feedback")).to_be_hidden()


def test_nobody_is_asked_by_default(browser, site, car_photo):
    with visiting(browser, site) as page:
        drop(page, "body", car_photo)
        expect(page.locator("#headline .answer")).to_be_visible()
        expect(page.locator("#feedback")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_identify_is_accessible(browser, asking, car_photo, theme):
    with visiting(browser, asking[:2], f"/?__theme={theme}") as page:
        expect(page.locator("#headline .welcome")).to_be_visible()
        expect(page.locator("p.loading:visible")).to_have_count(0)  # of Gradio's components, on a slow machine
        assert violations(page) == []
        drop(page, "body", car_photo)
        expect(page.locator("#slider img")).to_have_count(2)
        page.get_by_role("button", name="Why this car and not another?").click()
        expect(page.locator("#difference-picture img")).to_be_visible()
        page.get_by_text("5 cars it can name").click()
        expect(page.locator("p.loading:visible")).to_have_count(0)
        page.wait_for_timeout(500)  # colours that fade in
        assert violations(page) == []


def test_a_link_preview_is_the_pages_own_and_files_are_cached(asking):
    with httpx.Client(base_url=asking[0], timeout=60) as client:
        answer = client.get("/", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cars.example"})
        html = answer.text
        tags = dict(re.findall(r'<meta (?:property|name)="([^"]+)"\s+content="([^"]*)"', html))
        assert tags["og:title"] == document.TITLE and tags["description"] == document.DESCRIPTION
        assert "{url}" not in html and "gradio.app" not in html.split("<script")[0]
        assert html.count('property="og:title"') == html.count('property="og:image"') == 1
        assert answer.headers["content-encoding"] == "gzip"
        preview = client.get("/" + tags["og:image"].split("/", 3)[3])
        assert preview.headers["content-type"] == "image/jpeg"
        plain = client.get("/", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers and 'id="shell"' in plain.text
        assert html.index('id="shell"') < html.index("window.gradio_config =")  # painted before the scripts run
        assert document.MODULE.search(html) is None
        script = re.search(r'assets/[^"]+\.js', html)[0]
        assert "immutable" in client.get("/" + script).headers["cache-control"]
        assert client.get("/examples/999").status_code == 404
        assert client.get("/examples/../app.py").status_code == 404


def test_the_document_without_a_body_is_passed_on():
    assert gzip.decompress(gzip.compress(document.rewrite("<p>", "http://x/").encode())) == b"<p>"


def test_a_folder_of_examples_names_what_it_leaves_out(tmp_path, capsys):
    for place in range(MOST + 2):
        draw_car(place % 5).save(tmp_path / f"my_car-{place:02}.png")
    (tmp_path / "my_car-00.png").write_bytes(b"no picture")
    found = from_folder(str(tmp_path))
    assert [each.name for each in found] == [f"my car {place:02}" for place in range(1, MOST + 1)]
    assert "my_car-00.png is not among the examples" in capsys.readouterr().err
    assert from_folder(str(tmp_path / "nothing")) == [] and "contains no pictures" in capsys.readouterr().err


def test_the_slider_starts_beside_the_bright_part():
    heatmap = np.zeros((20, 100), np.float32)
    assert beside(heatmap) == 50
    heatmap[5:9, 30:90] = 1
    assert beside(heatmap) == pytest.approx(27)
    heatmap[:] = 1
    assert beside(heatmap) == 4
