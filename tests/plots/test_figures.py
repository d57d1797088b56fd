"""Figures from small tables, for few and for many classes; contrast of the palette."""

import itertools
import warnings

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from twincar.config import STANFORD_CARS, parse_class_name
from twincar.data import statistics
from twincar.plots import confusion, figures, palette, photos
from twincar.report import tables
from twincar.text import percent


def predictions(names, pictures=4, every=7):
    """Predictions in which every seventh picture is predicted as the next class."""
    rows = [
        {"path": f"{i}.jpg", "class_name": name, "predicted": names[(k + (i % every == 0)) % len(names)]}
        for i, (k, name) in enumerate((k, name) for k, name in enumerate(names) for _ in range(pictures))
    ]
    table = pd.DataFrame(rows).assign(probability=lambda t: 0.5 + t.index / (2 * len(t)))
    return table.assign(correct=table["class_name"] == table["predicted"])


def per_class(names):
    report = tables.classification_report(predictions(names), names)
    rows = [{"class_name": n, **{k: report[n][k] for k in ("precision", "recall")},
             "f1": report[n]["f1-score"], "support": int(report[n]["support"])} for n in names]  # fmt: skip
    return pd.DataFrame(rows)


def text_of(figure) -> str:
    """All texts of a figure, one per line, the title first."""
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
        texts += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
    return "\n".join(texts)


def drawn(figure):
    """Draw a figure and check that no text exceeds its left or right edge."""
    figure.canvas.draw()
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1, text.get_text()
    return figure


FEW = ("NA", "2012", "Audi TT Hatchback 2011")  # names that could be parsed as a number or a missing value
MANY = tuple(f"Make{i // 4} Model{i} Sedan 2012" for i in range(500))


@pytest.mark.parametrize("names", [FEW, STANFORD_CARS, MANY], ids=["3", "196", "500"])
def test_confusion_contains_every_prediction(names):
    answers = predictions(names)
    counts = tables.confusion(answers)
    assert counts["count"].sum() == len(answers)
    assert set(counts.columns) == {"true", "predicted", "count"}
    figure = drawn(confusion.confusion(counts, names))
    wrong = int((~answers["correct"]).sum())
    assert f"{wrong:,} of {len(answers):,} pictures misclassified" in text_of(figure)
    if names is FEW:
        assert all(name in text_of(figure) for name in names)
    if names is STANFORD_CARS:
        assert "Chevrolet" in text_of(figure)
        assert "Ram C/V Cargo Van Minivan 2012" in text_of(confusion.confusion(counts, names, all_names=True))


@pytest.mark.parametrize("names", [FEW, STANFORD_CARS, MANY], ids=["3", "196", "500"])
def test_f1_and_distribution_for_any_number_of_classes(names):
    rows = per_class(names)
    makes = {name: parse_class_name(name).make for name in names}
    perfect = (rows["f1"] == 1).sum()
    assert f"{perfect} of {len(names)} classes" in text_of(drawn(figures.f1_all(rows, makes)))
    assert f"F1 {rows['f1'].min():.2f}" in text_of(drawn(figures.f1_extremes(rows))).splitlines()[0]
    table = pd.DataFrame({"class_name": n, "split": s} for n in names for s in ("train", "train", "val"))
    counts = statistics.distribution(table, [*names, "Lada Niva SUV 1977"])
    assert list(counts.columns) == ["class_name", "make", "train", "val", "test", "holdout"]
    assert counts["train"].tolist() == [2] * len(names) + [0]
    assert f"{3 * len(names):,} pictures of {len(names) + 1} classes" in text_of(
        drawn(figures.class_distribution(counts))
    )


NASTY = (
    "Make$$Model$$2012",
    "Make$$\\frac{1}{0}$$1999",
    "比亚迪 汉 2022",
    "سيارة تويوتا 2012",
    "🚙 Car\a 2012\n",
    "W" * 200,
)


def figures_with_names(names):
    """Every figure that contains class names."""
    answers, rows, photo = predictions(names, every=3), per_class(names), Image.new("RGB", (60, 40))
    counts, makes = tables.confusion(answers), {name: parse_class_name(name).make for name in names}
    table = pd.DataFrame({"class_name": n, "split": s} for n in names for s in ("train", "train", "val"))
    yield confusion.confusion(counts, names)
    yield confusion.confusion(counts, [*names, *map(str, range(40))], all_names=True)
    yield confusion.confusion(counts, [*names, *map(str, range(40))])
    yield confusion.confusion_makes(counts, names)
    yield figures.f1_all(rows, makes)
    yield figures.f1_extremes(rows)
    yield figures.class_distribution(statistics.distribution(table, names))
    yield photos.confused_pairs([pair | {"photo": photo, "other": photo} for pair in
                                 tables.confused_pairs(answers).to_dict("records")])  # fmt: skip
    cards = [{"photo": photo, "evidence": photo, "predicted": name, "probability": 0.9, "true": names[0],
              "true_evidence": photo, "true_probability": 0.1} for name in names]  # fmt: skip
    yield photos.grad_cam(cards[:3], cards[3:])
    yield photos.augmentation([[photo, photo]], names[0])


def test_names_of_any_characters_are_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawings = list(figures_with_names(NASTY))
        text = "\n".join(text_of(figures.styled(drawn)(figure)) for figure in drawings)
    assert len(drawings) == 10
    assert {"Make$$Model$$2012", "比亚迪 汉 2022", "سيارة تويوتا 2012", "🚙 Car\ufffd 2012 "} <= set(text.splitlines())


@settings(max_examples=60)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200))
@example("$x")
@example("\\$_{2}^$$")
@example("界" * 200)
@example("<b>&\ufffe\0")
def test_a_name_of_any_characters_is_drawn_on_one_line_and_in_the_figure(name):
    label = figures.short(name)
    assert label.isprintable()
    assert len(label) <= 42
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.styled(figures.canvas)(1.5, f"Lowest: {label}", f"{label} has the most, {label} the fewest.")
        figures.styled(lambda: figure.subplots().set_xticks([0], [label]))()
        figures.styled(drawn)(figure)


def test_no_error_gives_no_figure_and_no_pair():
    answers = predictions(STANFORD_CARS, every=10**6).iloc[1:]
    assert answers["correct"].all()
    assert tables.confused_pairs(answers).empty
    assert confusion.confusion_makes(tables.confusion(answers), STANFORD_CARS) is None
    right, wrong = tables.examples(answers)
    assert (len(right), len(wrong)) == (6, 0)


def test_pairs_are_counted_once_in_both_directions():
    rows = [("A", "B", 0.9), ("A", "B", 0.6), ("B", "A", 0.5), ("B", "B", 0.9), ("C", "A", 0.99), ("A", "A", 0.8)]
    answers = pd.DataFrame(rows, columns=["class_name", "predicted", "probability"])
    pairs = tables.confused_pairs(answers)
    assert pairs.to_dict("records") == [
        {"true": "A", "predicted": "B", "count": 2, "support": 3, "reverse": 1, "reverse_support": 2},
        {"true": "C", "predicted": "A", "count": 1, "support": 1, "reverse": 0, "reverse_support": 3},
    ]


def test_labels_are_spread_and_keep_their_order():
    places = confusion.spread([0, 0.1, 0.2, 9.9, 10], 1, 0, 10)
    assert (np.diff(places) >= 1 - 1e-9).all()
    assert places.min() >= -1e-9
    assert places.max() <= 10 + 1e-9
    assert confusion.spread([1.0, 5.0], 1, 0, 10) == pytest.approx([1, 5])


def test_training_curves_of_one_epoch_and_of_many():
    metrics = ["val_loss", "val_top1", "val_top3", "val_top5", "val_f1_macro", "val_precision_macro",
               "val_recall_macro", "train_loss", "train_top1"]  # fmt: skip
    for epochs in (1, 12):
        log = pd.DataFrame({name: np.linspace(0.1, 0.5, epochs) for name in metrics})
        log = log.assign(epoch=range(epochs), image_size=[64] + [96] * (epochs - 1), lr_body=0.1, lr_fc=0.2)
        assert f"Epoch {epochs} of {epochs} was best" in text_of(drawn(figures.training(log)))
        # The loss rises from the first epoch on, but that one has smaller pictures: the training does not select it.
        assert f"Epoch {min(2, epochs)} of" in text_of(drawn(figures.training(log, "val_loss", "min")))
        assert f"Epoch {epochs} of {epochs} was kept" in text_of(drawn(figures.training(log, "epoch")))
        figure = text_of(drawn(figures.top_k(log)))
        assert "learning rate (fc)" in figure
        assert ("96 px" in figure) == (epochs > 1)


def test_percent_is_formatted():
    assert percent(0.9178).replace("\N{NO-BREAK SPACE}", " ") == "91.8 %"
    assert percent(0.0001).replace("\N{NO-BREAK SPACE}", " ") == "< 0.1 %"
    assert percent(0).startswith("0.0")


# Linear RGB as perceived without one of the three cones: Machado, Oliveira and Fernandes, "A Physiologically-based
# Model for Simulation of Color Vision Deficiency", 2009.
VISION = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(color: str) -> np.ndarray:
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("vision", VISION)
def test_colors_can_be_distinguished_with_any_two_cones(vision):
    rgb = [np.clip(np.array(VISION[vision]) @ linear(color), 0, 1) for color in palette.CATEGORICAL]
    rgb = [np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055) for c in rgb]
    lab = [cv2.cvtColor(np.float32(c)[None, None], cv2.COLOR_RGB2LAB)[0, 0] for c in rgb]
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))
    assert closest > 15  # CIE76; 2.3 is just noticeable


@pytest.mark.parametrize("ground", [palette.GROUND, palette.DARK_GROUND])
def test_colors_have_contrast_to_both_grounds(ground):
    weights = [0.2126, 0.7152, 0.0722]
    for color in palette.CATEGORICAL:
        low, high = sorted((linear(color) @ weights, linear(ground) @ weights))
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11
