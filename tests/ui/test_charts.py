"""Charts of the page from small tables: they draw what the table contains, for any number of classes."""

import json

import numpy as np
import pandas as pd
import pytest

from twincar.ui import data_charts, score_charts

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


def texts(figure) -> list[str]:
    return [text for trace in figure.data if trace.type == "scatter" for text in trace.text]


@pytest.mark.parametrize("classes", [1, 2, 9, 300])
def test_all_classes_and_the_largest_by_name(classes):
    rows = distribution(classes)
    everything = data_charts.class_counts(rows)
    assert [trace.name for trace in bars(everything)] == ["training", "validation"]  # no split without a picture
    assert list(bars(everything)[0].y) == sorted(rows["train"], reverse=True)
    top = data_charts.class_counts(rows, 5)
    shown = min(5, classes)
    assert list(bars(top)[0].customdata) == rows["class_name"].tolist()[::-1][:shown]
    assert texts(top)[shown:] == [f"{n + 2:,}" for n in sorted(rows["train"], reverse=True)[:shown]]
    assert drawn(everything) and drawn(top)


def test_the_donut_sums_the_splits():
    ring = data_charts.split_donut(distribution(4)).data[0]
    assert dict(zip(ring.labels, ring.values, strict=True)) == {"training": 46, "validation": 8}
    assert "<b>54</b>" in data_charts.split_donut(distribution(4)).layout.annotations[0].text


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
    log = log.assign(train_top1=0.3, lr_body=[1, 2, 1], lr_fc=[2, 4, 2], image_size=[96, 128, 128])
    figure = score_charts.curves(log, columns)
    assert [trace.name for trace in figure.data] == ["learning rate", "training", "validation"]
    assert list(figure.data[0].y) == [2, 4, 2]  # behind the others, and the highest of the rates
    assert [note.text for note in figure.layout.annotations] == ["128 px"] and figure.layout.shapes[0].x0 == 0.5


def test_the_confusion_matrix_contains_the_counts():
    right, wrong = score_charts.confusion(confusion()).data
    assert [n for n in right.z if n is not None] == [3, 4, 5, 6] and [n for n in wrong.z if n is not None] == [2, 1]
    for trace in (right, wrong):  # every class has a row and a column, so that no cell is wider than another
        assert set(trace.x) == set(trace.y) == {0, 1, 2, 3}
    assert f"{CARS[0]} → {CARS[1]}: 2" in wrong.hovertext


def test_a_make_shows_its_classes_and_those_they_are_confused_with():
    right, wrong = score_charts.confusion(confusion(), "BMW").data
    assert [n for n in right.z if n is not None] == [5] and [n for n in wrong.z if n is not None] == [1]
    assert list(score_charts.confusion(confusion(), "BMW").layout.xaxis.ticktext) == ["M3 Coupe 2012", CARS[3]]


def test_a_model_without_a_mistake_has_a_confusion_matrix():
    counts = confusion().head(4)
    right, wrong = score_charts.confusion(counts).data
    assert [n for n in right.z if n is not None] == [3, 4, 5, 6] and all(n is None for n in wrong.z)


@pytest.mark.parametrize(
    "more", [{}, {"support": [9, 4]}, {"support": [9, 4], "reverse": [1, 0], "reverse_support": 5}]
)
def test_confused_pairs_show_the_number_of_pictures(more):
    pairs = pd.DataFrame({"true": CARS[:2], "predicted": CARS[2:], "count": [3, 1]}).assign(**more)
    figure = score_charts.confused_pairs(pairs)
    expected = {0: ["3", "1"], 1: ["3 of 9", "1 of 4"], 3: ["4 of 14", "1 of 9"]}[len(more)]
    assert texts(figure)[2:] == expected and texts(figure)[0] == f"{CARS[0]}<br>→ {CARS[2]}"
    assert sum(sum(trace.x) for trace in bars(figure)) == 4 + (len(more) == 3)


def test_f1_best_worst_and_all_leave_out_classes_without_pictures():
    rows = pd.DataFrame({"class_name": [f"Car {i}" for i in range(30)], "f1": np.linspace(0, 1, 30), "support": 4})
    rows.loc[0, "support"] = 0
    assert list(bars(score_charts.class_scores(rows, best=2))[0].customdata) == ["Car 29", "Car 28"]
    assert list(bars(score_charts.class_scores(rows, worst=2))[0].customdata) == ["Car 1", "Car 2"]
    assert len(bars(score_charts.class_scores(rows))[0].y) == 29


@pytest.mark.parametrize("bounds", [{}, {"low": [0.1, 0.0, 0.8], "high": [0.5, 1.0, 0.95]}])
def test_reliability_shows_the_bins_that_have_pictures(bounds):
    bins = pd.DataFrame({"confidence": [0.3, 0.5, 0.9], "accuracy": [0.2, 0.0, 0.9], "count": [4, 0, 90], **bounds})
    dots = score_charts.reliability(bins).data[1]
    assert list(dots.x) == [0.3, 0.9] and list(dots.y) == [0.2, 0.9]
    assert (list(dots.error_y.array or []) == pytest.approx([0.3, 0.05])) if bounds else dots.error_y.array is None


@pytest.mark.parametrize(
    "more", [{}, {"status": ["shortened", "whole", None], "top1_low": 0.2, "top1_high": [0.5, 1, 0.3]}]
)
def test_recipes_are_in_order_with_intervals_and_status(more):
    table = pd.DataFrame({"recipe": ["short", "long", "unmeasured"], "top1": [0.4, 0.9, None]}).assign(**more)
    figure = score_charts.recipes(table, "top1")
    assert list(figure.data[0].customdata) == ["long", "short"] and list(figure.data[0].x) == [0.9, 0.4]
    assert list(figure.data[0].marker.symbol) == ["circle", "circle-open" if more else "circle"]
    assert list(figure.data[0].error_x.array) == pytest.approx([0.1, 0.1] if more else [0, 0])


def test_what_the_authors_of_a_recipe_report_stands_beside_it():
    table = pd.DataFrame({"recipe": ["a", "b"], "top1": [0.4, 0.9], "original_top1": [0.79, None]})
    seeds = score_charts.recipes(table, "top1").data[1]
    assert seeds.x[1] == 0.79 and seeds.customdata[1] == "a" and np.isnan(seeds.x[0])


def test_only_zoomable_charts_capture_touch():
    assert data_charts.class_counts(distribution(3)).layout.dragmode is False
    assert data_charts.sizes(sample(5)).layout.dragmode == score_charts.confusion(confusion()).layout.dragmode == "zoom"


def test_a_figure_has_a_transparent_background():
    layout = drawn(data_charts.split_donut(distribution(3)))["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
