"""Charts of the page from small tables: they draw what the table contains, for any number of classes."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from twincar.ui import data_charts, html_charts, quality, report_pictures, score_charts

CARS = ["Audi TT Coupe 2012", "Audi S4 Sedan 2007", "BMW M3 Coupe 2012", "Lada Niva SUV 1977"]


def distribution(classes: int) -> pd.DataFrame:
    names = [f"Make{i % 7} Model{i} Sedan 2000" for i in range(classes)]
    counts = {"train": [10 + i for i in range(classes)], "val": 2, "test": 0, "holdout": 0}
    return pd.DataFrame({"class_name": names, "make": "Make", **counts})


def sample(pictures: int, boxes: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"class_name": [CARS[i % 4] for i in range(pictures)], "width": 200 + 7 * np.arange(pictures)})
    rows = rows.assign(
        make=rows["class_name"].str.split().str[0], height=150, sharpness=np.geomspace(20, 4000, pictures)
    )
    rows["aspect_ratio"] = rows["width"] / rows["height"]
    rows[["red", "green", "blue"]] = rng.uniform(20, 230, (pictures, 3))
    return rows.assign(box_width=100.0, box_height=50.0) if boxes else rows


def confusion() -> pd.DataFrame:
    cells = [(0, 0, 3), (1, 1, 4), (2, 2, 5), (3, 3, 6), (0, 1, 2), (2, 3, 1), (1, 0, 0)]
    return pd.DataFrame([(CARS[a], CARS[b], n) for a, b, n in cells], columns=["true", "predicted", "count"])


def drawn(figure) -> dict:
    """The figure as JSON, as it is sent to the page."""
    return json.loads(figure.to_json())


def bars(figure) -> list:
    return [trace for trace in figure.data if trace.type == "bar"]


def plain(html: str) -> str:
    """The text of HTML, with spaces in place of tags and of no-break spaces."""
    return " ".join(re.sub("<[^>]*>", " ", html).replace("\N{NO-BREAK SPACE}", " ").split())


def widths(html: str, side: str = "width") -> list[float]:
    return [float(width) for width in re.findall(rf'style="{side}:([\d.]+)%', html)]


@pytest.mark.parametrize("classes", [1, 2, 9, 300])
def test_all_classes_and_the_largest_by_name(classes):
    rows = distribution(classes)
    everything = data_charts.class_counts(rows, "in words")
    assert everything.count("<i title=") == classes and 'aria-label="in words"' in everything
    assert f"{rows['class_name'].iloc[-1]}: {rows['train'].iloc[-1]} training, 2 validation" in everything
    assert "test" not in plain(everything)  # no split without a picture
    assert max(widths(everything, "height")) <= 100
    top = data_charts.largest(rows, 5)
    names = re.findall("<span>(.*?)</span><em>(.*?)</em>", top)
    assert names == [(row["class_name"], str(row["train"] + 2)) for row in rows.to_dict("records")[::-1][:5]]
    assert sum(widths(top)[:2]) == pytest.approx(100, abs=0.02)
    assert len(re.findall("<li title", data_charts.largest(rows, classes))) == classes


def test_the_ring_sums_the_splits():
    assert plain(data_charts.splits(distribution(4))) == "54 pictures training 46 85.2 % validation 8 14.8 %"


@pytest.mark.parametrize("make", [None, "Audi"])
@pytest.mark.parametrize("boxes", [False, True])
def test_sizes_highlight_the_selected_classes_and_show_every_picture(make, boxes):
    figure = data_charts.sizes(sample(40, boxes), make)
    assert sum(len(trace.x) for trace in figure.data) == 40
    coloured = {trace.name for trace in figure.data} - {"other classes"}
    assert coloured == {name for name in CARS if not make or name.startswith(make)}
    name, ratio, box = figure.data[-1].customdata[0]
    assert (
        name in CARS and ratio == pytest.approx(figure.data[-1].x[0] / 150, abs=1e-3) and ("100 × 50" in box) == boxes
    )


def test_sizes_highlight_a_few_of_many_classes():
    rows = sample(60).assign(class_name=[f"Audi {i % 30}" for i in range(60)], make="Audi")
    figure = data_charts.sizes(rows, "Audi", most=8)
    assert len(figure.data) == 9 and len({(t.marker.color, t.marker.symbol) for t in figure.data}) == 9


@pytest.mark.parametrize("boxes", [False, True])
def test_histograms_count_every_picture(boxes):
    rows = sample(50, boxes)
    ratios = bars(data_charts.aspect_ratios(rows))
    assert [trace.name for trace in ratios] == ["picture", "car"][: 1 + boxes]
    assert all(sum(trace.y) == 50 for trace in ratios)
    channels = bars(data_charts.channel_means(rows))
    assert len(channels) == 3 and all(sum(trace.y) == 50 for trace in channels)
    assert sum(bars(data_charts.sharpness(rows))[0].y) == 50


def test_sharpness_marks_its_bands_and_counts_them():
    figure = data_charts.sharpness(pd.DataFrame({"sharpness": [0, 50, 100, 300, 499, 500, 90000]}))
    assert sum(bars(figure)[0].y) == 7
    assert [note.text.split("<b>")[1] for note in figure.layout.annotations] == ["2</b>", "3</b>", "2</b>"]
    assert [line.x0 for line in figure.layout.shapes] == pytest.approx([2, np.log10(500)])


def test_one_picture_is_enough_for_every_chart_of_a_sample():
    for draw in (data_charts.sizes, data_charts.aspect_ratios, data_charts.channel_means, data_charts.sharpness):
        assert drawn(draw(sample(1)))["data"]


def test_curves_skip_columns_that_the_log_does_not_have():
    log = pd.DataFrame({"epoch": [0, 1, 2], "val_top1": [0.1, 0.5, 0.6]})
    columns = {"training": "train_top1", "validation": "val_top1"}
    assert [trace.name for trace in score_charts.curves(log, columns).data] == ["validation"]
    assert list(score_charts.curves(log, columns).data[0].x) == [1, 2, 3]  # epochs from 1
    log = log.assign(train_top1=0.3, lr_body=[1, 2, 1], lr_fc=[2, 4, 2], image_size=[96, 128, 128])
    figure = score_charts.curves(log, columns)
    assert [trace.name for trace in figure.data] == ["learning rate", "training", "validation"]
    assert list(figure.data[0].y) == [2, 4, 2]  # behind the others, and the highest of the rates
    assert [note.text for note in figure.layout.annotations] == ["128 px"] and figure.layout.shapes[0].x0 == 1.5
    assert figure.layout.yaxis2.visible is not False and figure.layout.yaxis2.title.text == "learning rate"
    assert list(figure.data[2].y) == [10, 50, 60] and figure.layout.yaxis.ticksuffix == "\N{NO-BREAK SPACE}%"


def test_the_confusion_matrix_contains_the_counts():
    right, wrong = score_charts.confusion(confusion()).data
    assert list(right.customdata) == [3, 4, 5, 6] and list(wrong.customdata) == [2, 1]
    assert list(right.x) == list(right.y) == [1, 0, 2, 3]  # ordered by make
    assert f"{CARS[0]} → {CARS[1]}: 2" in wrong.hovertext
    sentence, mistakes = score_charts.confusion_in_words(confusion())
    assert sentence == "18 correct, 3 wrong, 2 of them within one make."
    assert mistakes == [f"{CARS[0]} → {CARS[1]}: 2", f"{CARS[2]} → {CARS[3]}: 1"]


def test_a_make_shows_its_classes_and_those_they_are_confused_with():
    figure = score_charts.confusion(confusion(), "BMW")
    assert [list(trace.customdata) for trace in figure.data] == [[5], [1]]
    assert list(figure.layout.xaxis.ticktext) == ["M3 Coupe 2012", CARS[3]]
    sentence, _ = score_charts.confusion_in_words(confusion(), "BMW")
    assert sentence == "BMW: 5 correct, 1 wrong, 0 of them within one make."


@pytest.mark.parametrize("classes", [2, 20, 200, 2000])
def test_marks_of_the_confusion_matrix_are_wider_than_its_lines(classes):
    names = [f"Make{i % 40} Model{i} Sedan 2000" for i in range(classes)]
    figure = score_charts.confusion(pd.DataFrame({"true": names, "predicted": names, "count": 1}))
    assert 6 <= figure.data[0].marker.size <= 22 and figure.layout.xaxis.minor.gridwidth < 1


def test_a_model_without_a_mistake_has_a_confusion_matrix():
    right, wrong = score_charts.confusion(confusion().head(4)).data
    assert len(right.x) == 4 and len(wrong.x) == 0
    assert score_charts.confusion_in_words(confusion().head(4))[0] == "18 correct, 0 wrong."


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["3"]),
        ({"support": [9, 4, 5]}, ["3 of 9"]),
        ({"support": [9, 4, 5], "reverse": [1, 1, 0], "reverse_support": 5}, ["4 of 14", "2 of 9"]),
    ],
)
def test_pairs_confused_once_are_not_shown(more, expected):
    pairs = pd.DataFrame({"true": CARS[:3], "predicted": CARS[1:], "count": [3, 1, 1]}).assign(**more)
    sentence, html = quality.confused(pairs)
    assert "at least twice" in sentence and re.findall("<em>(.*?)</em>", html) == expected
    assert f"{CARS[0]}<br>→ {CARS[1]}" in html
    assert quality.confused(pairs.assign(count=1, reverse=0)) == ("No two classes were confused more than once.", "")


def test_the_table_of_classes_has_equal_decimals_and_bars_from_0_to_1():
    rows = pd.DataFrame({"class_name": [f"Car {i:02}" for i in range(30)], "f1": np.linspace(0, 1, 30)[::-1]})
    html = html_charts.classes(rows.assign(support=4), {"class_name": "Class", "f1": "F1", "support": "Pictures"})
    assert widths(html) == [round(100 * f1, 1) for f1 in np.linspace(0, 1, 30)]
    assert plain(html).count("Car 29 0.00 4") == plain(html).count("Car 00 1.00 4") == 1
    assert html.count("<tr hidden>") == 10 and "Show all 30 classes" in html


@pytest.mark.parametrize("bounds", [{}, {"low": [0.1, 0.0, 0.8], "high": [0.5, 1.0, 0.95]}])
def test_reliability_shows_the_bins_that_have_pictures(bounds):
    bins = pd.DataFrame({"confidence": [0.3, 0.5, 0.9], "accuracy": [0.2, 0.0, 0.9], "count": [4, 0, 90], **bounds})
    dots = score_charts.reliability(bins).data[1]
    assert list(dots.x) == [30, 90] and list(dots.y) == [20, 90]
    assert (list(dots.error_y.array or []) == pytest.approx([30, 5])) if bounds else dots.error_y.array is None
    assert score_charts.reliability_in_words(bins).startswith("2 groups of pictures: at 30")


@pytest.mark.parametrize(
    "more", [{}, {"status": ["shortened", "whole", None], "top1_low": 0.2, "top1_high": [0.5, 1, 0.3]}]
)
def test_recipes_are_in_order_with_intervals_and_status(more):
    table = pd.DataFrame({"recipe": ["short", "long", "unmeasured"], "top1": [0.4, 0.9, None]}).assign(**more)
    html = html_charts.intervals(table, "top1")
    assert re.findall("<em>(.*?)</em>", html.replace("\N{NO-BREAK SPACE}", " ")) == ["90.0 %", "40.0 %"]
    assert re.findall('<b class="(.*?)" style="left:(.*?)%"', html) == [
        ("", "90.00"),
        ("hollow" if more else "", "40.00"),
    ]
    assert re.findall('<u style="left:(.*?)%;width:(.*?)%"', html) == (
        [("20.00", "80.00"), ("20.00", "30.00")] if more else []
    )


def test_what_the_authors_of_a_recipe_report_stands_beside_it():
    table = pd.DataFrame({"recipe": ["a", "b"], "top1": [0.4, 0.9], "original_top1": [0.79, None]})
    assert re.findall('<s style="left:(.*?)%"', html_charts.intervals(table, "top1")) == ["79.00"]


def test_names_in_html_are_escaped():
    rows = pd.DataFrame({"class_name": ["<img src=x>"], "f1": [1.0], "train": [1], "count": [2]})
    rows = rows.assign(true=rows["class_name"], predicted=rows["class_name"], recipe=rows["class_name"], top1=0.5)
    for html in (
        html_charts.classes(rows, {"class_name": "Class", "f1": "F1"}), data_charts.largest(rows, 1),
        data_charts.class_counts(rows, "<img>"), quality.confused(rows)[1], html_charts.intervals(rows, "top1"),
        html_charts.plain(rows, "<img>"),
    ):  # fmt: skip
        assert "<img" not in html and "&lt;img" in html


def test_a_sheet_without_its_title_keeps_its_photos_on_a_dark_ground():
    sheet = np.full((300, 300, 3), 255, np.uint8)
    sheet[14:38, 10:150] = sheet[57:76, 10:290] = sheet[80:100, 10:200] = 27  # the title, and a caption of two lines
    sheet[150:280, 20:180] = (200, 30, 30)
    cut = report_pictures.without_title(sheet)
    assert cut.shape[0] == 300 - 104 and (cut[60, 30] == (200, 30, 30)).all()
    dark = report_pictures.for_dark(cut)
    assert dark[2, 2].max() < 60 and (dark[60, 30] == (200, 30, 30)).all()
    assert report_pictures.for_dark(sheet)[20, 20].min() > 200  # text
    blank = np.full((50, 50, 3), 255, np.uint8)
    assert report_pictures.without_title(blank).shape == blank.shape


def test_only_zoomable_charts_capture_the_mouse():
    assert data_charts.sharpness(sample(3)).layout.dragmode is False
    assert data_charts.sizes(sample(5)).layout.dragmode == score_charts.confusion(confusion()).layout.dragmode == "zoom"


def test_a_figure_has_a_transparent_background():
    layout = drawn(data_charts.sizes(sample(3)))["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
