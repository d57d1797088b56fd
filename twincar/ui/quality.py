"""The tab *How good is it*: scores on whole photos and on cropped pictures, mistakes, damage, training and calibration.

It shows the tables of `reports/`, which the benchmarks of the published model and `twincar train`, `evaluate` and
`report` write, one folder per recipe, and computes nothing itself. What has no table has no card. Apart from the names
of the recipes, nothing is read or drawn before a visitor opens the tab.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from twincar.config import parse_class_name
from twincar.text import count, percent
from twincar.ui import html_charts
from twincar.ui.answer_html import with_code
from twincar.ui.chart_view import PRIVATE, View, on_first_opening, read_table, view, watcher

INTERVAL = "95\N{NO-BREAK SPACE}% interval"
ALL = "all makes"
CURVES = {  # choice -> name in the chart -> column of metrics.csv
    "Top-1, 3 and 5": {"top-1": "val_top1", "top-3": "val_top3", "top-5": "val_top5"},
    "Accuracy": {"training": "train_top1", "validation": "val_top1"},
    "Loss": {"training": "train_loss", "validation": "val_loss"},
    "Macro F1": {"macro F1": "val_f1_macro"},
    "Precision and recall": {"precision": "val_precision_macro", "recall": "val_recall_macro"},
}
FIRST_CURVES = next(iter(CURVES))
PER_CLASS = {  # column of per_class.csv -> heading
    "class_name": "Class", "f1": "F1", "precision": "Precision", "recall": "Recall", "support": "Pictures",
}  # fmt: skip
SPLITS = {"train": "training", "val": "validation", "test": "test", "holdout": "held-out"}
WHOLE = {  # source in two_passes.csv -> title and explanation
    "found box, two passes": ("Named correctly", "the car is found first, then named, as on this page"),
    "whole photo, one pass": ("… without finding the car", "named from the whole photo at once"),
    "annotated box": ("… with the car marked", "named from the box that a person drew"),
}
TABLES = {  # file of a recipe -> the command that writes it
    "per_class.csv": "evaluate", "confusion.csv": "report", "confused_pairs.csv": "report",
    "reliability.csv": "report", "metrics.csv": "train",
}  # fmt: skip
SCENES = {"two side by side": "two cars", "three side by side": "three cars"}  # scene in every_car.csv -> its name
TILES = {  # score -> title and explanation
    "top1": ("Top-1", "the most probable class is correct"),
    "top3": ("Top-3", "the correct class is among the first three"),
    "top5": ("Top-5", "the correct class is among the first five"),
    "f1_macro": ("Macro F1", "harmonic mean of precision and recall, averaged over classes"),
    "balanced_accuracy": ("Balanced accuracy", "recall, averaged over classes"),
}


def recipes_in(reports: Path | None) -> list[str]:
    """Names of the folders of `reports` with scores or a training log, best top-1 first."""
    if not reports or not reports.is_dir():
        return []
    found = [p for p in reports.iterdir() if (p / "scores.json").is_file() or (p / "metrics.csv").is_file()]
    return [
        path.name for path in sorted(found, key=lambda path: (-_json(path / "scores.json").get("top1", 0), path.name))
    ]


def whole_photos(reports: Path | None, brief: bool = False) -> str:
    """The scores of the published model on whole photos as HTML; empty where they were not measured.

    Args:
        reports: The folder of reports, if there is one.
        brief: Only as the page answers photos of one and of two cars.
    """
    rows = read_table(reports and reports / "two_passes.csv", "predicted_from", "photos", "correct", "low", "high")
    if rows is None:
        return ""
    tiles, measured = [], rows.set_index("predicted_from")
    for source, (title, explanation) in list(WHOLE.items())[: 1 if brief else None]:
        if source in measured.index:
            row = measured.loc[source]
            tiles.append(_tile(row["correct"] / row["photos"], title, explanation, (row["low"], row["high"])))
    scenes = read_table(reports and reports / "every_car.csv", "scene", "cars", "found", "low", "high", "named_right")
    for row in [] if scenes is None else scenes.to_dict("records"):
        if row["scene"] in list(SCENES)[: 1 if brief else None]:
            title = f"Cars found in photos of {SCENES[row['scene']]}"
            explanation = f"{percent(row['named_right'] / row['cars'])} of them all are found and named correctly"
            tiles.append(_tile(row["found"] / row["cars"], title, explanation, (row["low"], row["high"])))
    note = (
        f"{count(int(rows['photos'].max()), 'photo')} as people take them, with surroundings, none of them used in "
        "training, answered by the published model. These figures come closest to what a photo of your own gets."
    )
    return f'<p class="note">{note}</p><ul class="tiles">{"".join(tiles)}</ul>'


def tab(reports: Path | None) -> None:
    """Draw the tab into the open gr.Tab; `reports` is the folder of reports, if there is one."""
    names = recipes_in(reports)
    if reports is None or not names:
        gr.HTML('<p class="note">There are no results yet: <code>twincar report</code> writes them.</p>')
        return
    with gr.Column(elem_classes="views"):
        whole = gr.HTML(elem_id="whole-photos", visible=False)
        gr.HTML("<h2>Pictures cropped to the car</h2>", elem_classes="section")
        recipe = gr.Radio(names, value=names[0], label="Recipe", elem_id="recipe", visible=len(names) > 1)
        tiles = gr.HTML(elem_id="tiles")
        others, measure = view(
            "Comparison of recipes",
            elem_id="recipes",
            html={},
            controls=lambda: gr.Radio([], label="Score", show_label=False, elem_id="measure"),
        )
        table = view("Scores per class", elem_id="per-class", html={"js_on_load": _script("class_table.js")})
        pairs = view("Most confused pairs", elem_id="pairs", html={})
        near = watcher()
        matrix, make = view(
            "Confusion matrix: what gets mistaken for what",
            elem_id="confusion",
            controls=lambda: gr.Dropdown([ALL], value=ALL, label="Make", elem_id="confusion-make"),
        )
        evidence = view("Evidence for right and wrong answers", elem_id="grad-cam", html={})
        damage = view("Damaged pictures", elem_id="damage", html={})
        curves, shown_curves = view(
            "Training curves",
            elem_id="curves",
            controls=lambda: gr.Radio(
                list(CURVES), value=FIRST_CURVES, label="Curves", show_label=False, elem_id="curve"
            ),
        )
        augmented = view("Augmentation", elem_id="augmentation", html={})
        sure = view("Calibration", elem_id="reliability")
        runs = view("Runs", elem_id="runs", html={})

    seen = gr.State(False)  # whether the visitor has come to the charts

    def fill() -> dict[Any, Any]:
        found = whole_photos(reports)
        first = {whole: gr.HTML(f"<h2>Whole photos</h2>{found}", visible=bool(found))}
        return first | _scores(names[0]) | _recipes() | _damage() | {near: gr.HTML(visible=True)}

    def _scores(name: str) -> dict[Any, Any]:
        """All of a recipe that needs no plotly."""
        folder = reports / name
        missing = [f"{file} (`twincar {verb}`)" for file, verb in TABLES.items() if read_table(folder / file) is None]
        return {
            tiles: _tiles(_json(folder / "scores.json"), _json(folder / "calibration.json"), missing),
            **_table(folder),
            **_pairs(folder),
            **_sheet(folder / "figures" / "grad_cam.jpg", evidence, EVIDENCE),
            **_sheet(folder / "figures" / "augmentation.jpg", augmented, AUGMENTATION),
        }

    def charts(name: str, curve: str) -> dict[Any, Any]:
        counts = read_table(reports / name / "confusion.csv", "true", "predicted", "count")
        makes = [] if counts is None else sorted({parse_class_name(one).make for one in counts["true"]})
        choices = {make: gr.Dropdown([ALL, *makes], value=ALL), seen: True}
        return choices | _matrix(name, ALL) | _curves(name, curve) | _sure(reports / name)

    def another(name: str, curve: str, seen: bool) -> dict[Any, Any]:
        return _scores(name) | (charts(name, curve) if seen else {})

    def _curves(name: str, shown: str) -> dict[Any, Any]:
        metrics = read_table(reports / name / "metrics.csv", "epoch")
        if metrics is None:
            return curves.hide()
        from twincar.ui import score_charts

        last, fractions = metrics["epoch"].max() + 1, shown != "Loss"
        sentence = f"{last} epochs, measured on the validation pictures. The grey area is the learning rate."
        if "image_size" in metrics and metrics["image_size"].nunique() > 1:
            sentence += " Dotted lines mark an increase in image size."
        columns = CURVES[shown]
        words = score_charts.curves_in_words(metrics, columns, fractions)
        return curves.show(sentence, score_charts.curves(metrics, columns, fractions), words)

    def _matrix(name: str, wanted: str) -> dict[Any, Any]:
        counts = read_table(reports / name / "confusion.csv", "true", "predicted", "count")
        if counts is None:
            return matrix.hide()
        from twincar.ui import score_charts

        shown = None if wanted == ALL else wanted
        sentence, mistakes = score_charts.confusion_in_words(counts, shown)
        words = " ".join([sentence, "Most frequent mistakes:", "; ".join(mistakes[:5])]) if mistakes else sentence
        listed = "".join(f"<li>{escape(line)}</li>" for line in mistakes)
        as_list = f"<details><summary>The mistakes as a list</summary><ul>{listed}</ul></details>" if mistakes else ""
        sentence += " Rows are true classes, columns predicted classes, in the same order"
        sentence += "; lines separate the makes." if shown is None else "."
        return matrix.show(sentence, score_charts.confusion(counts, shown), words, as_list)

    def _pairs(folder: Path) -> dict[Any, Any]:
        rows = read_table(folder / "confused_pairs.csv", "true", "predicted", "count")
        return pairs.hide() if rows is None else pairs.draw(*confused(rows))

    def _sure(folder: Path) -> dict[Any, Any]:
        bins = read_table(folder / "reliability.csv", "confidence", "accuracy", "count")
        if bins is None:
            return sure.hide()
        from twincar.ui import score_charts

        sentence = "Dots on the dashed line are well calibrated; above it the model is underconfident, below it "
        sentence += "overconfident."
        ece = _json(folder / "calibration.json").get("ece")
        if ece is not None:
            sentence += f" On average, its confidence is off by {percent(ece)}."
        return sure.show(sentence, score_charts.reliability(bins), score_charts.reliability_in_words(bins))

    def _table(folder: Path) -> dict[Any, Any]:
        rows = read_table(folder / "per_class.csv", *PER_CLASS)
        if rows is None:
            return table.hide()
        rows = rows[rows["support"] > 0]
        sentence = (
            f"{(rows['f1'] >= 0.9995).sum():,} of {count(len(rows), 'class', 'classes')} have no mistake. With only "
            f"{rows['support'].min():,} to {rows['support'].max():,} pictures per class, one mistake changes F1 a lot. "
            "A click on a heading sorts the table."
        )
        return table.draw(sentence, html_charts.classes(rows, PER_CLASS))

    def _sheet(path: Path, part: View, text: tuple[str, str]) -> dict[Any, Any]:
        if not path.is_file():
            return part.hide()
        from twincar.ui import report_pictures

        sentence, alt = text
        assert isinstance(part.chart, gr.HTML)
        return part.draw(sentence, report_pictures.figure(path, alt, part.chart))

    def _damage() -> dict[Any, Any]:
        rows = read_table(reports / "corruption_robustness.csv", "corruption", "severity", "accuracy")
        if rows is None:
            return damage.hide()
        clean, damaged = rows[rows["severity"] == 0]["accuracy"], rows[rows["severity"] > 0]
        grid = damaged.pivot(index="corruption", columns="severity", values="accuracy")
        grid = grid.loc[damaged.groupby("corruption")["accuracy"].mean().sort_values(ascending=False).index]
        sentence = f"Top-1 accuracy on pictures with {len(grid)} kinds of damage in {grid.shape[1]} severities"
        sentence += f"; without damage it is {percent(clean.iloc[0])}." if len(clean) else "."
        html, sheet = html_charts.shaded(grid, "severity"), reports / "corruption_robustness.jpg"
        if sheet.is_file():
            from twincar.ui import report_pictures

            alt = "One picture with every kind of damage in every severity"
            html = f'<div class="both">{html}{report_pictures.figure(sheet, alt, damage.chart)}</div>'
        return damage.draw(sentence, html)

    def _recipes(wanted: str | None = None) -> dict[Any, Any]:
        rows = read_table(reports / "recipes.csv", "recipe")
        measures = [] if rows is None else [name for name in TILES if name in rows and rows[name].notna().any()]
        if rows is None or not measures:
            return others.hide() | runs.hide()
        wanted = wanted or measures[0]
        sentence = f"One dot per recipe; the line is its {INTERVAL}."
        if rows.get("status", pd.Series(dtype=str)).astype(str).str.startswith("shortened").any():
            sentence += " Hollow: trained for less than the full schedule."
        if f"original_{wanted}" in rows and rows[f"original_{wanted}"].notna().any():
            sentence += " Diamonds: results of the original systems on their own pictures."
        return {
            **others.draw(sentence, html_charts.intervals(rows, wanted)),
            measure: gr.Radio([(TILES[name][0], name) for name in measures], value=wanted),
            **runs.draw("How each recipe was trained.", html_charts.plain(run_table(rows), "Runs of the recipes")),
        }

    of_scores, of_charts = [tiles], [make, seen]
    for part in (table, pairs, evidence, augmented):
        of_scores += part.parts
    for part in (matrix, curves, sure):
        of_charts += part.parts
    of_recipes = [*others.parts, measure, *runs.parts]
    on_first_opening(fill, [whole, *of_scores, *of_recipes, *damage.parts, near])
    near.click(charts, [recipe, shown_curves], of_charts, **PRIVATE)
    recipe.input(another, [recipe, shown_curves, seen], [*of_scores, *of_charts], **PRIVATE)
    shown_curves.input(_curves, [recipe, shown_curves], curves.parts, **PRIVATE)
    make.input(_matrix, [recipe, make], matrix.parts, **PRIVATE)
    measure.input(_recipes, measure, of_recipes, **PRIVATE)


EVIDENCE = (  # a sentence, and the alternative of the picture
    "Bright areas are evidence for the class (Grad-CAM++). Correct predictions run from the least to the most "
    "confident; the wrong ones are the most confident, with the evidence for the predicted and for the true class. An "
    "area that is bright in both does not separate the two.",
    "Photos of cars, each next to the same photo with the evidence over it: first correct, then wrong predictions",
)
AUGMENTATION = (
    "Training pictures in the top row and, below, how augmentation changes them: every epoch uses a new variant.",
    "Training pictures of cars above their augmented variants",
)


def confused(rows: pd.DataFrame, least: int = 2) -> tuple[str, str]:
    """The pairs of classes that were confused at least `least` times: a sentence, and bars.

    Args:
        rows: true, predicted, count and, where known, support, reverse and reverse_support; the last two are the
            count and support of the opposite direction.
        least: Fewest mistakes of a pair, both directions together. A single one says little.
    """
    reverse = rows["reverse"] if "reverse" in rows else pd.Series(0, rows.index)
    rows = rows.assign(reverse=reverse, total=rows["count"] + reverse)
    if "support" in rows:
        rows["pictures"] = rows["support"] + rows["reverse_support"] if "reverse_support" in rows else rows["support"]
    shown = rows[rows["total"] >= least].sort_values("total", ascending=False, kind="stable")
    if shown.empty:
        return "No two classes were confused more than once.", ""
    known = "pictures" in shown
    bars = [
        html_charts.Bar(
            f"{row['true']}\n→ {row['predicted']}",
            (row["count"], row["reverse"]),
            f"{row['total']:,}" + (f" of {row['pictures']:,}" if known else ""),
        )
        for row in shown.to_dict("records")
    ]
    both = bool(shown["reverse"].any())
    if not both:
        bars = [bar._replace(values=bar.values[:1]) for bar in bars]
    full = float(shown["pictures"].max() if known else shown["total"].max())
    sentence = "Pairs that were confused at least twice: true class → predicted class"
    sentence += ", and how many pictures of the two there are." if known else "."
    series = ["as shown", "in reverse"] if both else ["as shown"]
    return sentence, html_charts.ranked(bars, series, full, html_charts.MISTAKES)


def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _tile(value: float, title: str, explanation: str, interval: tuple[float, float] | None = None) -> str:
    low_high = (
        "" if interval is None else f"<small>{INTERVAL}: {percent(interval[0])} to {percent(interval[1])}</small>"
    )
    return f"<li><b>{percent(value)}</b><span>{title}</span><p>{explanation}</p>{low_high}</li>"


def _tiles(scores: dict, calibration: dict, missing: list[str]) -> str:
    """The headline scores with their intervals, what they were measured on, and which tables are missing."""
    lacking = f"Not there yet: {', '.join(missing)}." if missing else ""
    if not scores:
        return f'<p class="note">{with_code(f"Not there yet: scores.json (`twincar evaluate`). {lacking}")}</p>'
    shown = [
        _tile(scores[name], title, explanation, scores.get(f"{name}_interval"))
        for name, (title, explanation) in TILES.items()
        if name in scores
    ]
    if "ece" in calibration:
        shown.append(_tile(calibration["ece"], "Calibration error", "how far the confidence is off, on average"))
    pictures, split = scores.get("pictures"), scores.get("split", "")
    on = f"On {pictures:,} {SPLITS.get(split, split)} pictures never used in training. " if pictures else ""
    on += "The frame around the car is given here, so these figures compare recipes and classes."
    if split == "val":
        on += (
            " The epoch or the picture size was chosen on the same pictures, so these figures are slightly optimistic."
        )
    note = f'<p class="note">{with_code(lacking)}</p>' if lacking else ""
    return f'<p class="note">{escape(on)}</p><ul class="tiles">{"".join(shown)}</ul>{note}'


def run_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of recipes with readable headings and texts in its cells."""
    headings = {
        "recipe": "Recipe", "status": "Run", **{name: title for name, (title, _) in TILES.items()},
        "train_size": "Pixels", "epochs": "Epochs", "hours": "Hours", "hardware": "Hardware",
        "original_note": "Original system",
    }  # fmt: skip
    rows = rows.copy()
    for name in set(TILES) & set(rows):
        rows[name] = [percent(value) if value == value else "" for value in rows[name]]
    for name in {"train_size", "epochs"} & set(rows):  # and what was planned, where the run was shortened
        planned = rows.get(f"{name}_planned", rows[name])
        rows[name] = [f"{a:g}" + (f" of {b:g}" if b > a else "") for a, b in zip(rows[name], planned, strict=True)]
    if "hours" in rows:
        rows["hours"] = [f"{value:.1f}" if value == value else "" for value in rows["hours"]]
    if "original_note" in rows:
        rows["original_note"] = rows["original_note"].fillna("").str.replace(" %", "\N{NO-BREAK SPACE}%")
    shown = [name for name in headings if name in rows]
    return rows[shown].fillna("").rename(columns=headings)


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
