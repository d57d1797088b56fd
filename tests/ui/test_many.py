"""The tab Many photos in a real browser: files and a zip in; the table is sorted, filtered, stopped and downloaded."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import draw_car
from tests.helpers.access import violations
from tests.helpers.fake_predictor import fake_predictor
from tests.helpers.visit import settled, visiting
from twincar.ui.many import _same_car, _shown_rows

ROWS = "#table tbody tr"
FAILED = "This file is not a picture that can be read: send a photo as JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP."


@pytest.fixture
def page(browser, site) -> Iterator[Page]:
    with visiting(browser, site, "/?tab=many") as page:
        expect(page.locator("#many-welcome h2")).to_be_visible()
        yield page


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Four photos, one of them named like a formula, and a file that is not a photo."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["=1+1.jpg", "b.png", "c.jpg", "d.webp"]
    for label, name in enumerate(names):
        draw_car(label, size=(320, 240)).save(folder / name)
    (folder / "broken.jpg").write_text("no picture at all\n" * 20)
    return [folder / name for name in [*names, "broken.jpg"]]


@pytest.fixture(scope="module")
def trip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "trip.zip"
    with ZipFile(path, "w") as file:
        for label in range(3):
            file.writestr(f"summer/{label}.jpg", encoded(draw_car(label)))
        file.writestr("__MACOSX/._0.jpg", b"written by macOS")
        file.writestr("inner.zip", b"PK\3\4")
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """Photos that keep the page busy for a while: large, and PNG, which cannot be decoded at a part of its size."""
    path = tmp_path_factory.mktemp("long") / "long.zip"
    picture = encoded(Image.new("RGB", (2400, 1800), "grey"), "PNG")
    with ZipFile(path, "w") as file:
        for number in range(490):
            file.writestr(f"{number}.png", picture)
    return path


@pytest.fixture(scope="module")
def truth(tiny_model, photos):
    """The top 5 of the Predictor for each photo."""
    from twincar import Predictor

    return [answer.top(5) for answer in Predictor.from_pretrained(tiny_model).batch(photos[:4])]


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos) -> Path:
    """A folder with photos in it and below it, and with files that are no photos."""
    folder = tmp_path_factory.mktemp("folder") / "holiday"
    for name, content in {
        "1.jpg": photos[2].read_bytes(), "sea/10.jpg": photos[1].read_bytes(), "sea/2.jpg": photos[2].read_bytes(),
        "notes.txt": b"text", "sea/film.mp4": b"film", ".hidden.jpg": b"hidden", "Thumbs.db": b"system",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders of this machine in the middle of the window, as a person does."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 640, "y": 700, "data": data})


def give(page: Page, *files: Path) -> None:
    page.set_input_files("#files input[type=file]", [str(file) for file in files])


def names(page: Page) -> list[str]:
    return [text.split("\n")[0] for text in page.locator(f"{ROWS} td.file").all_inner_texts()]


def test_files_and_a_broken_one_become_rows(page, photos, truth):
    give(page, *photos)
    expect(page.locator("#status")).to_contain_text("4 photos answered, 4 cars found, 1 could not be read.")
    assert names(page) == [path.name for path in photos]
    answered = page.locator(f"{ROWS}:not(.failed)")
    assert answered.locator("td.name button").all_inner_texts() == [top[0].class_name for top in truth]
    assert answered.locator("td.make").all_inner_texts() == [top[0].make for top in truth]
    assert answered.locator("td.year").all_inner_texts() == [str(top[0].year or "") for top in truth]
    assert answered.locator("td.picture img").count() == 4
    failed = page.locator(f"{ROWS}.failed")
    expect(failed.locator(".why")).to_have_text(FAILED)
    expect(failed.locator("td.state")).to_have_text("Unreadable")


def test_a_dropped_folder_is_walked_and_names_its_subfolders(page, folder, photos):
    drop(page, folder, photos[3])
    expect(page.locator("#status")).to_contain_text("4 photos answered")
    assert [each.get_attribute("title") for each in page.locator(f"{ROWS} td.file").all()] == [
        "holiday/1.jpg", "holiday/sea/2.jpg", "holiday/sea/10.jpg", "d.webp",
    ]  # fmt: skip
    note = page.locator("#files .note")
    expect(note).to_have_text("2 files are not pictures and were left out: notes.txt, film.mp4.")
    page.locator("#files input[webkitdirectory]").set_input_files(folder)
    expect(page.locator("#status")).to_contain_text("3 photos answered")
    assert names(page) == ["1.jpg", "2.jpg", "10.jpg"]


def test_a_folder_that_is_dropped_on_another_tab_is_answered_here(browser, site, folder):
    with visiting(browser, site) as page:
        expect(page.locator("#headline h2")).to_be_visible()
        drop(page, folder)
        expect(page.locator("#status")).to_contain_text("3 photos answered")


def test_what_is_no_photo_is_refused_in_one_sentence(page, folder, photos, tmp_path):
    note = page.locator("#files .note")
    drop(page, folder / "notes.txt")
    expect(note).to_have_text("No photo to read: notes.txt is not a picture.")
    (tmp_path / "empty").mkdir()
    drop(page, tmp_path / "empty")
    expect(note).to_have_text("There are no photos in this folder.")
    (tmp_path / "huge.jpg").write_bytes(bytes(26_000_000))
    drop(page, tmp_path / "huge.jpg", photos[2])
    expect(page.locator(f"{ROWS}.failed .why")).to_have_text("This file has 26 MB: photos of up to 25 MB are accepted.")
    assert names(page) == ["huge.jpg", "c.jpg"]
    expect(note).to_be_empty()


def test_the_table_sorts_with_unreadable_files_last(page, photos, truth):
    give(page, photos[4], *photos[:4])
    expect(page.locator(ROWS)).to_have_count(5)
    header = page.locator("#table th.sure")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    sure = [top[0].probability for top in truth]
    order = sorted(range(4), key=lambda place: -sure[place])
    assert names(page) == [photos[place].name for place in order] + ["broken.jpg"]
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert names(page) == [photos[place].name for place in reversed(order)] + ["broken.jpg"]
    header.get_by_role("button").click()
    assert names(page)[0] == "broken.jpg"  # order of arrival


def test_the_table_filters_by_confidence_and_text(page, photos, truth):
    give(page, *photos)
    expect(page.locator(ROWS)).to_have_count(5)
    slider, search = page.locator("#table [type=range]"), page.locator("#table [type=search]")
    sure = sorted(top[0].probability for top in truth)
    least = next(step for step in range(5, 100, 5) if sure[0] * 100 < step)
    slider.fill(str(least))
    left = sum(probability * 100 >= least for probability in sure)
    expect(page.locator(ROWS)).to_have_count(left)
    expect(page.locator("#table .count")).to_have_text(f"{left} of 5 shown")
    slider.fill("0")
    search.fill("BROKEN not a picture")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.locator(ROWS)).to_contain_text("broken.jpg")
    widths = "headers => headers.map((th) => th.getBoundingClientRect().width)"
    before = page.locator("#table th").evaluate_all(widths)
    search.fill("no such car")
    expect(page.locator(ROWS)).to_have_count(0)
    expect(page.locator("#table .none")).to_contain_text("None of the 5 rows matches.")
    assert page.locator("#table th").evaluate_all(widths) == before  # the columns do not jump
    page.get_by_role("button", name="Show all rows").click()
    expect(page.locator(ROWS)).to_have_count(5)
    page.locator("#table .states").get_by_role("button", name="Unreadable 1").click()
    assert names(page) == ["broken.jpg"]
    page.locator("#table .states").get_by_role("button", name="Unreadable 1").click()
    expect(page.locator(ROWS)).to_have_count(5)


def test_photos_pasted_here_are_answered_here(page, photos):
    page.evaluate(
        """async (pictures) => {
            const clipboard = new DataTransfer();
            pictures.forEach((bytes, i) => clipboard.items.add(
                new File([new Uint8Array(bytes)], `pasted${i}.jpg`, {type: "image/jpeg"})));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: clipboard, bubbles: true}));
        }""",
        [list(path.read_bytes()) for path in photos[:2]],
    )
    expect(page.locator("#status")).to_contain_text("2 photos answered")
    assert names(page) == ["pasted0.jpg", "pasted1.jpg"]


def test_a_row_of_a_zip_shows_its_evidence(page, trip):
    give(page, trip)
    expect(page.locator("#status")).to_contain_text("3 photos answered, 3 cars found, 1 could not be read.")
    assert names(page) == ["0.jpg", "1.jpg", "2.jpg", "inner.zip"]
    row = page.locator(ROWS).nth(1).locator("td.name button")
    name = row.inner_text()
    row.press("Enter")  # by keyboard, as by mouse
    expect(page.locator("#detail-headline")).to_contain_text("trip.zip/summer/1.jpg")
    expect(page.locator("#detail-slider img")).to_have_count(2)
    expect(page.locator("#detail .top-list li")).to_have_count(5)
    expect(page.locator("#detail .top-list li").first).to_contain_text(name)
    expect(page.locator(f"{ROWS}.selected td.file")).to_have_attribute("title", "trip.zip/summer/1.jpg")
    handle = page.locator("#detail-slider").get_by_role("slider")
    left = settled(handle)
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(handle).to_have_attribute("aria-valuenow", re.compile(f"{left + 4}|{left + 5}|{left + 6}"))
    expect(page.locator("#detail-legend")).to_contain_text(f"towards {name}")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(row).to_be_focused()
    row.click()
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator(f"{ROWS}.selected")).to_have_count(0)


def test_the_table_is_downloaded_as_csv(page, photos, truth, tmp_path):
    give(page, *photos)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "twincar.csv"
    download.value.save_as(tmp_path / "twincar.csv")
    assert (tmp_path / "twincar.csv").read_bytes().startswith(b"\xef\xbb\xbf")  # else Excel misreads it
    rows = list(csv.DictReader((tmp_path / "twincar.csv").open(encoding="utf-8-sig")))
    assert [row["file"] for row in rows] == ["'=1+1.jpg", "b.png", "c.jpg", "d.webp", "broken.jpg"]
    assert [row["class_name"] for row in rows] == [top[0].class_name for top in truth] + [""]
    assert [row["year"] for row in rows] == [str(top[0].year or "") for top in truth] + [""]
    assert all(row["state"] and row["said"].strip() for row in rows[:4]) and rows[0]["is_car"] == ""  # it cannot tell
    assert float(rows[0]["probability"]) == pytest.approx(truth[0][0].probability, abs=1e-3)
    assert rows[4]["error"] == FAILED


def test_a_stopped_batch_keeps_its_rows(page, photos, long):
    give(page, long)
    expect(page.locator(ROWS).first).to_be_visible()
    expect(page.locator("#status progress")).to_have_attribute("max", "490")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped after")
    done = int(page.locator("#status b").inner_text().split()[2])
    assert 0 < done < 490
    expect(page.locator(ROWS)).to_have_count(done)
    expect(page.get_by_role("button", name="Download CSV")).to_be_visible()
    give(page, *photos[:2])  # the page is ready for the next batch
    expect(page.locator("#status")).to_contain_text("2 photos answered")
    expect(page.locator(ROWS)).to_have_count(2)


def test_one_photo_is_answered_while_many_are(page, car_photo, long):
    give(page, long)
    expect(page.locator(ROWS).first).to_be_visible()
    page.get_by_role("tab", name="Identify").click()
    page.set_input_files("#photo input[type=file]", car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    page.get_by_role("tab", name="Many photos").click()
    page.get_by_role("button", name="Stop").click()  # it is still running
    expect(page.locator("#status")).to_contain_text("Stopped after")


def test_a_phone_shows_the_table_or_the_detail_without_scrolling_sideways(browser, site, photos):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    with visiting(context, site, "/?tab=many") as page:
        expect(page.get_by_role("button", name="Choose a folder")).to_be_hidden()  # phones have none
        give(page, *photos)
        expect(page.locator(ROWS)).to_have_count(5)
        small = """() => [...document.querySelectorAll("#many :is(button, input), #files button, #progress button")]
            .filter((one) => one.getClientRects().length && one.getBoundingClientRect().height < 44)
            .map((one) => one.outerHTML)"""
        assert page.evaluate(small) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        rows = page.locator("#table .rows")
        assert rows.evaluate("element => element.scrollWidth <= element.clientWidth")
        last = page.locator(f"{ROWS}:not(.failed) td.name button").last
        last.tap()
        expect(page.locator("#detail-slider img")).to_have_count(2)
        expect(page.locator("#table")).to_be_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("button", name="Back to table").tap()
        expect(last).to_be_in_viewport()
        expect(last).to_be_focused()
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_here_is_inaccessible(browser, site, photos, theme):
    with visiting(browser, site, f"/?tab=many&__theme={theme}") as page:
        expect(page.locator("#many-welcome h2")).to_be_visible()
        assert violations(page) == []
        give(page, *photos)
        expect(page.locator("#status")).to_contain_text("4 photos answered")
        assert violations(page) == []
        page.locator(f"{ROWS} td.name button").first.click()
        expect(page.locator("#detail-slider img")).to_have_count(2)
        assert violations(page) == []
        page.locator("#table [type=search]").fill("no such car")
        expect(page.locator("#table .none")).to_be_visible()
        assert violations(page) == []


def test_a_photo_has_a_row_per_car():
    small, large = (0.0, 0.1, 0.25, 0.4), (0.4, 0.4, 1.0, 1.0)
    photo = draw_car(1, size=(640, 480))
    predictor = fake_predictor(small, large)
    answer = predictor(photo)
    rows = _shown_rows("street.jpg", 7, answer)
    assert [(row["file"], row["photo"], row["car"], row["cars"]) for row in rows] == [
        ("street.jpg", 7, 1, 2),
        ("street.jpg", 7, 2, 2),
    ]
    assert [row["class_name"] for row in rows] == [car.top(1)[0].class_name for car in answer.cars]
    assert rows[0]["thumbnail"] != rows[1]["thumbnail"]
    again = predictor(photo.resize((1280, 960)))
    assert [_same_car(again, row["bounds"]) for row in rows] == again.cars
    assert all(row["said"] and row["is_car"] for row in rows)
    (empty,) = _shown_rows("sky.jpg", 0, fake_predictor(is_car=1e9)(photo))
    assert (empty["cars"], empty["state"], empty["class_name"], empty["label"]) == (0, "no_car", None, "No car")


def test_the_api_answers_files_and_zips(site, photos, trip, truth):
    client = Client(site[0], verbose=False)
    answer = client.predict(photos=[handle_file(path) for path in (*photos, trip)], api_name="/many")
    rows = answer["rows"]
    inside = ["summer/0.jpg", "summer/1.jpg", "summer/2.jpg", "inner.zip"]
    assert [row["file"] for row in rows[-4:]] == [f"trip.zip/{name}" for name in inside]
    assert [row["class_name"] for row in rows[:4]] == [top[0].class_name for top in truth]
    assert rows[0]["probability"] == pytest.approx(truth[0][0].probability, abs=1e-3)
    assert rows[4] == {"file": "broken.jpg", "error": FAILED}
    single = client.predict(handle_file(photos[0]), api_name="/identify")[0]
    assert {key: answer[key] for key in ("model", "version")} == {key: single[key] for key in ("model", "version")}


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_the_api_reads_only_files_that_gradio_stored(site, tmp_path, meta):
    draw_car(1).save(tmp_path / "secret.png")
    with httpx.Client(base_url=f"{site[0]}/gradio_api", timeout=60) as client:
        photo = {"path": str(tmp_path / "secret.png")} | meta
        event = client.post("/call/many", json={"data": [[photo]]})
        answer = client.get(f"/call/many/{event.json()['event_id']}") if event.is_success else event
    assert "class_name" not in answer.text
