"""The tabs *Explore the data*, *How good is it* and *About* in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.conftest import CLASSES, draw_car
from tests.helpers.access import violations
from tests.helpers.visit import served, visiting
from twincar.config import CHECKOUT
from twincar.data import statistics
from twincar.data.table import load_table, prepare
from twincar.ui import explore, quality

EXPLORE, QUALITY, ABOUT = "explore", "quality", "about"  # names in the address
SHOWN = {  # ids of what is shown at first, and of the plotly charts below
    EXPLORE: (("class-counts", "split-donut", "gallery", "top-classes"), ("sizes", "ratios", "sharpness", "colours")),
    QUALITY: (
        ("whole-photos", "tiles", "recipes", "per-class", "pairs", "grad-cam", "damage", "augmentation", "runs"),
        ("confusion", "curves", "reliability"),
    ),
    ABOUT: (("card", "calls"), ()),
}


@pytest.fixture(scope="module")
def data(car_folders, tmp_path_factory) -> Path:
    """A prepared folder with statistics."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(car_folders, folder, progress=False)
    table = load_table(folder)
    found, _ = statistics.measure(table)
    # Photos come in many sizes.
    statistics.save(folder, table, found.assign(width=range(160, 160 + len(found)), box_width=90, box_height=40))
    return folder


@pytest.fixture(scope="module")
def reports(data, tmp_path_factory) -> Path:
    """A recipe with all tables, one with scores only, and the statistics of the data."""
    folder = tmp_path_factory.mktemp("measured") / "reports"
    whole = folder / "whole"
    whole.mkdir(parents=True)
    (folder / "bare").mkdir()
    scores = {"split": "val", "pictures": 1234, "top1": 0.75, "top1_interval": [0.7, 0.8], "f1_macro": 0.5}
    (whole / "scores.json").write_text(json.dumps(scores))
    (whole / "calibration.json").write_text('{"ece": 0.031}')
    (folder / "bare" / "scores.json").write_text('{"split": "test", "pictures": 10, "top1": 0.25}')
    rate = {"epoch": [0, 1, 2], "train_loss": [3, 2, 1], "val_loss": [3, 2.5, 2], "lr_fc": [1, 2, 1]}
    pd.DataFrame(rate | {"val_top1": [0.1, 0.5, 0.75]}).to_csv(whole / "metrics.csv", index=False)
    f1 = [0.9, 0.25, 0.6, 1.0, 0.4]
    per_class = {"class_name": CLASSES, "precision": f1, "recall": f1, "f1": f1, "support": 3}
    pd.DataFrame(per_class).to_csv(whole / "per_class.csv", index=False)
    confusion = {"true": [*CLASSES, CLASSES[0]], "predicted": [*CLASSES, CLASSES[1]], "count": 2}
    pd.DataFrame(confusion).to_csv(whole / "confusion.csv", index=False)
    pairs = {"true": CLASSES[:2], "predicted": CLASSES[1:3], "count": [2, 1], "support": 4}
    pd.DataFrame(pairs).to_csv(whole / "confused_pairs.csv", index=False)
    (whole / "figures").mkdir()
    for name in ("grad_cam", "augmentation"):
        sheet(draw_car(0)).save(whole / "figures" / f"{name}.jpg")
    sheet(draw_car(1)).save(folder / "corruption_robustness.jpg")
    damage = {"corruption": ["none", "noise", "noise", "rain", "rain"], "severity": [0, 1, 2, 1, 2]}
    pd.DataFrame(damage | {"accuracy": [0.9, 0.3, 0.1, 0.8, 0.7]}).to_csv(
        folder / "corruption_robustness.csv", index=False
    )
    passes = {"predicted_from": ["whole photo, one pass", "found box, two passes"], "photos": 40, "correct": [29, 35]}
    pd.DataFrame(passes | {"low": 0.5, "high": 0.95}).to_csv(folder / "two_passes.csv", index=False)
    scene = {"scene": ["two side by side"], "cars": 80, "found": 72, "low": 0.8, "high": 0.95, "named_right": 60}
    pd.DataFrame(scene).to_csv(folder / "every_car.csv", index=False)
    bins = {"confidence": [0.4, 0.9], "accuracy": [0.5, 0.9], "count": [4, 20], "low": [0.2, 0.8], "high": [0.8, 0.95]}
    pd.DataFrame(bins).to_csv(whole / "reliability.csv", index=False)
    table = {"recipe": ["whole", "bare"], "status": ["whole", "shortened"], "top1": [0.75, 0.25], "hours": [1.5, 0.5]}
    pd.DataFrame(table).to_csv(folder / "recipes.csv", index=False)
    (folder / "data").mkdir()
    for file in statistics.FILES:
        shutil.copy(data / file, folder / "data")
    return folder


def sheet(photo: Image.Image) -> Image.Image:
    """A picture as `twincar report` draws it: a title, a line of caption and a photo on a white ground."""
    page = np.full((260, 400, 3), 255, np.uint8)
    page[14:38, 10:200] = page[57:76, 10:390] = 20
    page[110:230, 20:180] = np.asarray(photo)
    return Image.fromarray(page)


@pytest.fixture(scope="module")
def site(tiny_model, data, reports, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    with running(tmp_path_factory.mktemp("site"), tiny_model, reports, TWINCAR_DATA=str(data)) as address:
        yield address


@pytest.fixture(scope="module")
def hosted(tiny_model, reports, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A page without pictures, with a class distribution of 30 classes."""
    folder = tmp_path_factory.mktemp("hosted")
    own = shutil.copytree(reports, tmp_path_factory.mktemp("kept") / "reports")
    counts = {"train": range(30, 60), "val": 3, "test": 0, "holdout": 0}
    names = [f"Make Model{i} Sedan 2000" for i in range(30)]
    pd.DataFrame({"class_name": names, "make": "Make", **counts}).to_csv(
        own / "data" / statistics.FILES[1], index=False
    )
    with running(folder, tiny_model, own) as address:
        yield address


@contextmanager
def running(folder: Path, model: Path, reports: Path, **variables: str) -> Iterator[tuple[str, Path]]:
    """The app in a folder of its own, with these reports."""
    shutil.copy(CHECKOUT / "app.py", folder)
    shutil.copytree(reports, folder / "reports")
    with served(folder, folder / "app.py", TWINCAR_MODEL=str(model), **variables) as address:
        yield address


@contextmanager
def visit(
    browser: Browser, site: tuple[str, Path], tab: str, width: int = 1280, theme: str = "light"
) -> Iterator[Page]:
    """A new visit that opens the tab from the address."""
    with visiting(browser, site) as page:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{site[0]}/?tab={tab}&__theme={theme}")
        yield page


def charts(page: Page, name: str):
    """The plotly chart with this id, scrolled to."""
    page.locator(".watcher").first.wait_for(state="attached")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    return page.locator(f"#{name} .js-plotly-plot .main-svg").first


GROUND = """(img) => img.decode().then(() => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.drawImage(img, 0, 0);
    return canvas.getImageData(2, 2, 1, 1).data[0];
})"""
TICK = "getComputedStyle(document.querySelector('.xtick text')).fill.match(/\\d+/g).slice(0, 3).map(Number)"


@pytest.mark.parametrize("tab", SHOWN)
def test_a_tab_is_drawn_accessible_and_no_wider_than_the_screen(browser, site, tab):
    with visit(browser, site, tab) as page:
        page.emulate_media(reduced_motion="reduce")  # else colors change slowly
        first, below = SHOWN[tab]
        for name in first:
            expect(page.locator(f"#{name}")).to_be_visible()
        page.wait_for_timeout(300)
        loaded = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
        assert loaded and not any("Plotly" in url for url in loaded)  # 1.3 MB, for those who scroll to its charts
        for name in below:
            expect(charts(page, name)).to_be_visible()
            expect(page.locator(f"#{name}")).to_have_attribute("role", "img")
            assert len(page.locator(f"#{name}").get_attribute("aria-label") or "") > 40
        sentences = page.locator(".view:visible p").all_inner_texts()
        assert len(sentences) >= len(below) and all(len(sentence) > 20 for sentence in sentences)
        for dark, width in ((False, 1280), (True, 390)):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
            for picture in page.locator(".sideways img:visible").all():
                picture.scroll_into_view_if_needed()
                assert (picture.evaluate(GROUND) < 60) == dark
            if below:
                assert (sum(page.evaluate(TICK)) > 3 * 128) == dark  # light on dark, dark on light
            page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
            assert violations(page) == []


def test_a_picture_of_the_gallery_is_identified(browser, site, data):
    table = load_table(data)
    with visit(browser, site, EXPLORE) as page:
        captions, pictures = page.locator("#gallery li p"), page.locator("#gallery img")
        name = sorted(table["class_name"].unique())[1]
        page.locator("#gallery-class input").click()
        page.get_by_role("option", name=name).click()
        expect(captions).to_have_text([re.compile(f"^{name}.*used in training$")] * 6)
        assert pictures.first.get_attribute("alt") == f"{name}, picture 1 of 8"
        page.get_by_role("button", name="Show six more").click()
        expect(pictures.nth(1)).to_have_attribute("alt", f"{name}, picture 8 of 8")
        expect(pictures.nth(2)).to_have_attribute("alt", f"{name}, picture 1 of 8")
        page.get_by_role("button", name="Identify this one: picture 8 of 8").click()
        expect(page.get_by_role("tab", name="Identify")).to_have_attribute("aria-selected", "true")
        expect(page.locator("#headline .make")).to_be_visible()
        expect(page.locator("#photo img")).to_have_attribute("src", re.compile(r"\d{5}\.jpg$"))


def test_whole_photos_come_first(browser, site):
    with visit(browser, site, QUALITY) as page:
        expect(page.locator("#tiles li").first).to_be_visible()
        headings = page.locator("#tabs h2:visible").all_inner_texts()
        assert headings == ["Whole photos", "Pictures cropped to the car"]
        whole = page.locator("#whole-photos")
        expect(whole).to_contain_text("40 photos as people take them")
        expect(whole.locator("li").first).to_contain_text("87.5 %")
        expect(whole.locator("li").last).to_contain_text("75.0 % of them all are found and named correctly")
        expect(page.locator("#damage tbody tr").first).to_have_text(re.compile("rain.*80.%.*70.%"))
        page.goto(f"{site[0]}/?tab={ABOUT}")
        expect(page.locator("#card li").first).to_contain_text("87.5 %")
        expect(page.locator("#calls pre").last).to_contain_text(f"{site[0]}/api/identify")


@pytest.mark.slow
def test_without_pictures_the_tables_are_shown_with_a_note(browser, hosted):
    with visit(browser, hosted, EXPLORE) as page:
        expect(page.locator("#data-note")).to_contain_text("The pictures themselves are not on this server.")
        for name in SHOWN[EXPLORE][1]:
            expect(charts(page, name)).to_be_visible()
        expect(page.get_by_text("Example pictures")).to_be_hidden()  # no empty card


def test_selecting_a_make_and_a_curve_redraws_the_charts(browser, site):
    with visit(browser, site, QUALITY) as page:
        expect(charts(page, "confusion")).to_be_visible()
        sentence = page.locator("[data-chart=confusion] p")
        expect(sentence).to_contain_text("10 correct, 2 wrong, 0 of them within one make.")
        expect(page.locator("#confusion g.ytick")).to_have_text(["AM General", "Audi", "BMW", "Ram", "smart"])
        area = page.locator("#confusion .nsewdrag").bounding_box()
        assert area and area["width"] == pytest.approx(area["height"], abs=2) and area["width"] > 900
        page.locator("#confusion-make input").click()
        page.get_by_role("option", name="BMW").click()
        expect(page.locator("#confusion g.ytick").first).to_contain_text("M3 Coupe 2012")
        expect(sentence).to_contain_text("BMW: 2 correct, 2 wrong")
        page.locator("#curve label", has_text="Loss").click()
        expect(page.locator("#curves .legendtext")).to_have_text(["learning rate", "training", "validation"])
        expect(page.locator("#curves .y2tick").first).to_be_visible()
        page.get_by_text("The mistakes as a list").click()
        expect(page.locator(".view details li")).to_have_text([f"{CLASSES[0]} → {CLASSES[1]}: 2"])


def test_the_table_of_classes_is_sorted_and_searched(browser, site):
    with visit(browser, site, QUALITY, 390) as page:
        table = page.locator("#per-class")
        cells = table.locator("tbody th:visible")
        expect(cells).to_have_text([CLASSES[i] for i in (1, 4, 2, 0, 3)])  # the lowest F1 first
        expect(table.locator("td.f1")).to_have_text(["0.25", "0.40", "0.60", "0.90", "1.00"])
        box = table.locator("td.f1").first.bounding_box()
        assert box and box["x"] + box["width"] < 390
        bar = "(cell) => cell.querySelector('b').clientWidth / cell.querySelector('i').clientWidth"
        assert table.locator("td.f1").first.evaluate(bar) == pytest.approx(0.25, abs=0.05)  # bars from 0 to 1
        table.get_by_role("button", name="F1").click()
        expect(cells).to_have_text([CLASSES[i] for i in (3, 0, 2, 4, 1)])
        expect(table.locator("th[aria-sort=descending]")).to_have_text("F1")
        table.get_by_role("button", name="Class").click()
        expect(cells).to_have_text(sorted(CLASSES, key=str.lower))
        table.get_by_label("Search").fill("audi")
        expect(cells).to_have_text([CLASSES[1]])


def test_tiles_show_intervals_and_a_missing_table_is_a_sentence(browser, site):
    with visit(browser, site, QUALITY) as page:
        expect(page.locator("#tiles")).to_contain_text("1,234 validation pictures")
        expect(page.locator("#tiles li").first).to_contain_text("75.0 %")
        expect(page.locator("#tiles li").first).to_contain_text("70.0 % to 80.0 %")
        expect(page.locator("#tiles li").last).to_contain_text("3.1 %")
        expect(charts(page, "reliability")).to_be_visible()
        page.locator("#recipe label", has_text="bare").click()
        expect(page.locator("#tiles li")).to_have_count(1)
        expect(page.locator("#tiles")).to_contain_text("reliability.csv (twincar report)")
        for name in ("reliability", "confusion", "per-class", "grad-cam"):
            expect(page.locator(f"#{name}")).to_be_hidden()
        expect(page.locator("#recipes li")).to_have_count(2)


@pytest.mark.slow
def test_the_slider_sets_the_number_of_classes(browser, hosted):
    with visit(browser, hosted, EXPLORE) as page:
        bars = page.locator("#top-classes li[title]")
        expect(bars).to_have_count(20)
        number = page.locator("#how-many input[type=number]")
        number.fill("30")  # all of them
        number.press("Enter")
        expect(bars).to_have_count(30)


def test_broken_and_missing_tables_are_skipped(tmp_path, data):
    assert explore.find(None, None).describe().startswith("No data was found.")
    assert explore.find(tmp_path / "nowhere", tmp_path / "nowhere").samples == {}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "statistics.csv").write_text("width,height\n1,2\n")
    (tmp_path / "data" / "class_distribution.csv").write_bytes(b"\x00\xff\x00")
    shown = explore.find(None, tmp_path)
    assert shown.samples == {} and shown.distribution is None
    assert quality.recipes_in(tmp_path) == quality.recipes_in(None) == []


def test_a_copy_of_this_datas_statistics_is_not_shown_twice(data, reports):
    assert list(explore.find(data, reports).samples) == ["this data"]
    assert list(explore.find(None, reports).samples) == ["data"]
