"""The tabs of charts in a real browser: *Explore the data* and *How good is it*."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import CLASSES
from tests.helpers.visit import served, visiting
from twincar.config import CHECKOUT
from twincar.data import statistics
from twincar.data.table import load_table, prepare
from twincar.ui import explore, quality

EXPLORE, QUALITY = "explore", "quality"  # names in the address
CHARTS = {
    EXPLORE: ("class-counts", "split-donut", "top-classes", "sizes", "ratios", "sharpness", "colours"),
    QUALITY: ("curves", "confusion", "pairs", "f1", "reliability", "recipes"),
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
    f1 = [0.9, 0.2, 0.6, 1.0, 0.4]
    per_class = {"class_name": CLASSES, "precision": f1, "recall": f1, "f1": f1, "support": 3}
    pd.DataFrame(per_class).to_csv(whole / "per_class.csv", index=False)
    confusion = {"true": [*CLASSES, CLASSES[0]], "predicted": [*CLASSES, CLASSES[1]], "count": 2}
    pd.DataFrame(confusion).to_csv(whole / "confusion.csv", index=False)
    pairs = {"true": CLASSES[:1], "predicted": CLASSES[1:2], "count": 2, "support": 4}
    pd.DataFrame(pairs).to_csv(whole / "confused_pairs.csv", index=False)
    bins = {"confidence": [0.4, 0.9], "accuracy": [0.5, 0.9], "count": [4, 20], "low": [0.2, 0.8], "high": [0.8, 0.95]}
    pd.DataFrame(bins).to_csv(whole / "reliability.csv", index=False)
    table = {"recipe": ["whole", "bare"], "status": ["whole", "shortened"], "top1": [0.75, 0.25], "hours": [1.5, 0.5]}
    pd.DataFrame(table).to_csv(folder / "recipes.csv", index=False)
    (folder / "data").mkdir()
    for file in statistics.FILES:
        shutil.copy(data / file, folder / "data")
    return folder


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
        assert page.locator(".js-plotly-plot").count() == 0  # nothing of a tab is drawn before it is opened
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{site[0]}/?tab={tab}&__theme={theme}")
        yield page


def chart(page: Page, name: str):
    return page.locator(f"#{name} .js-plotly-plot .main-svg").first


@pytest.mark.parametrize(
    ("tab", "width", "theme"),
    [
        (EXPLORE, 1280, "light"),
        (QUALITY, 390, "dark"),
        pytest.param(EXPLORE, 390, "dark", marks=pytest.mark.slow),
        pytest.param(QUALITY, 1280, "light", marks=pytest.mark.slow),
    ],
)
def test_every_chart_is_drawn_and_the_page_is_no_wider_than_the_screen(browser, site, tab, width, theme):
    with visit(browser, site, tab, width, theme) as page:
        for name in CHARTS[tab]:
            expect(chart(page, name)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sentences = page.locator(".view:visible p").all_inner_texts()
        assert len(sentences) >= len(CHARTS[tab]) and all(len(sentence) > 20 for sentence in sentences)
        text = "getComputedStyle(document.querySelector('.xtick text')).fill.match(/\\d+/g).slice(0, 3).map(Number)"
        assert (sum(page.evaluate(text)) > 3 * 128) == (theme == "dark")  # light on dark, dark on light


def test_the_gallery_shows_six_pictures_of_the_selected_class(browser, site, data):
    table = load_table(data)
    with visit(browser, site, EXPLORE) as page:
        captions = page.locator("#gallery .caption-label")
        name = sorted(table["class_name"].unique())[1]
        page.locator("#gallery-class input").click()
        page.get_by_role("option", name=name).click()
        files = [Path(path).name for path in table.loc[table["class_name"] == name, "path"]]
        expect(captions).to_have_text(files[:6])
        expect(page.locator("#gallery img")).to_have_count(6)
        page.get_by_role("button", name="Show six more").click()
        expect(captions).to_have_text(files[6:] + files[:4])


@pytest.mark.slow
def test_without_pictures_the_tables_are_shown_with_a_note(browser, hosted):
    with visit(browser, hosted, EXPLORE) as page:
        expect(page.locator("#data-note")).to_contain_text("The pictures themselves are not on this server.")
        for name in CHARTS[EXPLORE]:
            expect(chart(page, name)).to_be_visible()
        expect(page.get_by_text("The pictures are not on this server")).to_be_visible()
        expect(page.locator("#gallery")).to_be_hidden()


def test_selecting_a_make_and_a_curve_redraws_the_charts(browser, site):
    with visit(browser, site, QUALITY) as page:
        expect(page.locator("#confusion g.ytick")).to_have_text(["AM General", "Audi", "BMW", "Ram", "smart"])
        page.locator("#confusion-make input").click()
        page.get_by_role("option", name="BMW").click()
        expect(page.locator("#confusion g.ytick").first).to_contain_text("M3 Coupe 2012")
        page.locator("#curve label", has_text="Loss").click()
        expect(page.locator("#curves .legendtext")).to_have_text(["learning rate", "training", "validation"])


def test_the_table_of_classes_is_sorted_and_searched(browser, site):
    with visit(browser, site, QUALITY) as page:
        cells = page.locator("#per-class [data-testid^='cell-'][data-testid$='-0']")
        expect(cells).to_have_text(CLASSES)
        page.locator("#per-class [data-testid='header-3'] .cell-menu-button").click()
        page.get_by_role("menuitem", name="Sort ascending").click()
        expect(cells).to_have_text([CLASSES[i] for i in (1, 4, 2, 0, 3)])  # by F1
        page.locator("#per-class .search-input").fill("audi")
        expect(cells).to_have_text([CLASSES[1]])


def test_tiles_show_intervals_and_a_missing_table_is_a_sentence(browser, site):
    with visit(browser, site, QUALITY) as page:
        expect(page.locator("#tiles")).to_contain_text("1,234 validation pictures")
        expect(page.locator("#tiles li").first).to_contain_text("75.0 %")
        expect(page.locator("#tiles li").first).to_contain_text("70.0 % to 80.0 %")
        expect(page.locator("#tiles li").last).to_contain_text("3.1 %")
        expect(chart(page, "reliability")).to_be_visible()
        page.locator("#recipe label", has_text="bare").click()
        expect(page.locator("#tiles li")).to_have_count(1)
        expect(page.get_by_text("There is no reliability.csv for this recipe")).to_be_visible()
        expect(page.locator("#reliability")).to_be_hidden()
        expect(page.locator("#per-class")).to_be_hidden()
        expect(chart(page, "recipes")).to_be_visible()


@pytest.mark.slow
def test_the_slider_sets_the_number_of_classes(browser, hosted):
    with visit(browser, hosted, EXPLORE) as page:
        bars = page.locator("#top-classes .trace.bars").first.locator(".point")
        expect(bars).to_have_count(20)
        number = page.locator("#how-many input[type=number]")
        number.fill("13")
        number.press("Enter")
        expect(bars).to_have_count(13)


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
