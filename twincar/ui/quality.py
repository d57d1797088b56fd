"""The tab *How good is it*: scores, training curves, confusion matrix and calibration of each recipe, as charts.

It shows the folders of `reports/` that `twincar train`, `evaluate` and `report` wrote, one per recipe, and computes
nothing itself. Where a table is missing, a sentence takes the place of its chart. Apart from the names of the recipes,
nothing is read or drawn before a visitor opens the tab.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from twincar.config import parse_class_name
from twincar.ui.answer_html import with_code
from twincar.ui.chart_view import PRIVATE, heading, on_first_opening, percent, read_table, view

ALL = "all makes"
CURVES = {  # choice -> name in the chart -> column of metrics.csv
    "Top-1, 3 and 5": {"top-1": "val_top1", "top-3": "val_top3", "top-5": "val_top5"},
    "Accuracy": {"training": "train_top1", "validation": "val_top1"},
    "Loss": {"training": "train_loss", "validation": "val_loss"},
    "Macro F1": {"macro F1": "val_f1_macro"},
    "Precision and recall": {"precision": "val_precision_macro", "recall": "val_recall_macro"},
}
CLASSES: dict[str, dict[str, int]] = {"Worst 20": {"worst": 20}, "Best 20": {"best": 20}, "All": {}}
PER_CLASS = {  # column of per_class.csv -> heading
    "class_name": "Class", "precision": "Precision", "recall": "Recall", "f1": "F1", "support": "Pictures",
}  # fmt: skip
SPLITS = {"train": "training", "val": "validation", "test": "test", "holdout": "held-out"}
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


def tab(reports: Path | None) -> None:
    """Draw the tab into the open gr.Tab; `reports` is the folder of reports, if there is one."""
    names = recipes_in(reports)
    if reports is None or not names:
        gr.HTML('<p class="note">There are no results yet: <code>twincar report</code> writes them.</p>')
        return
    with gr.Column(elem_classes="views"):
        recipe = gr.Radio(names, value=names[0], label="Recipe", elem_id="recipe", visible=len(names) > 1)
        tiles = gr.HTML(elem_id="tiles")
        with gr.Column(elem_classes="card"):
            curves, shown_curves = view(
                "Training curves",
                elem_id="curves",
                controls=lambda: gr.Radio(list(CURVES), value=next(iter(CURVES)), show_label=False, elem_id="curve"),
            )
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                matrix, make = view(
                    "Confusion matrix",
                    elem_id="confusion",
                    controls=lambda: gr.Dropdown([ALL], value=ALL, label="Make", elem_id="confusion-make"),
                )
            with gr.Column(elem_classes="card"):
                table_text = gr.HTML(elem_classes="view-text")
                table = gr.Dataframe(
                    visible=False, interactive=False, show_label=False, show_search="search", max_height=700, wrap=True,
                    buttons=["fullscreen"], datatype=["str", "number", "number", "number", "number"],
                    column_widths=[138, 112, 86, 66, 104], elem_id="per-class",
                )  # fmt: skip
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                pairs = view("Most confused pairs", elem_id="pairs")
            with gr.Column(elem_classes="card"):
                f1, shown_f1 = view(
                    "F1 per class",
                    elem_id="f1",
                    controls=lambda: gr.Radio(
                        list(CLASSES), value=next(iter(CLASSES)), show_label=False, elem_id="f1-choice"
                    ),
                )
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                sure = view("Calibration", elem_id="reliability")
            with gr.Column(elem_classes="card"):
                others, measure = view(
                    "Comparison of recipes",
                    elem_id="recipes",
                    controls=lambda: gr.Radio([], show_label=False, elem_id="measure", visible=False),
                )
        with gr.Column(elem_classes="card", visible=False) as recipe_card:
            recipe_table = gr.Dataframe(
                interactive=False, show_label=False, buttons=[], wrap=True, elem_id="recipe-table"
            )

    def fill() -> dict[Any, Any]:
        return _recipe(names[0]) | _recipes()

    def _recipe(name: str, curve: str = next(iter(CURVES)), classes: str = next(iter(CLASSES))) -> dict[Any, Any]:
        folder = reports / name
        counts = read_table(folder / "confusion.csv", "true", "predicted", "count")
        makes = [] if counts is None else sorted({parse_class_name(one).make for one in counts["true"]})
        return {
            tiles: _tiles(_json(folder / "scores.json"), _json(folder / "calibration.json")),
            make: gr.Dropdown([ALL, *makes], value=ALL, visible=counts is not None),
            **_curves(name, curve),
            **_matrix(name, ALL),
            **_pairs(folder),
            **_f1(name, classes),
            **_sure(folder),
            **_table(folder),
        }

    def _curves(name: str, shown: str) -> dict[Any, Any]:
        metrics = read_table(reports / name / "metrics.csv", "epoch")
        if metrics is None:
            return curves.show(_missing("metrics.csv", "train"))
        from twincar.ui import score_charts

        last = metrics["epoch"].max() + 1
        sentence = f"{last} epochs, measured on the validation pictures. The grey area is the learning rate."
        if "image_size" in metrics and metrics["image_size"].nunique() > 1:
            sentence += " Dotted lines mark an increase in image size."
        return curves.show(sentence, score_charts.curves(metrics, CURVES[shown], percent=shown != "Loss"))

    def _matrix(name: str, wanted: str) -> dict[Any, Any]:
        counts = read_table(reports / name / "confusion.csv", "true", "predicted", "count")
        if counts is None:
            return matrix.show(_missing("confusion.csv"))
        from twincar.ui import score_charts

        right = int(counts.loc[counts["true"] == counts["predicted"], "count"].sum())
        wrong = int(counts["count"].sum()) - right
        make_of = {one: parse_class_name(one).make for one in {*counts["true"], *counts["predicted"]}}
        mistakes = counts[counts["true"] != counts["predicted"]]
        within = int(mistakes.loc[mistakes["true"].map(make_of) == mistakes["predicted"].map(make_of), "count"].sum())
        sentence = (
            f"Violet: correct ({right:,}). Amber: wrong ({wrong:,}), {within:,} of them within the same make. Lines "
            "separate the makes. Drag to zoom in, double-click to reset."
        )
        return matrix.show(sentence, score_charts.confusion(counts, None if wanted == ALL else wanted))

    def _pairs(folder: Path) -> dict[Any, Any]:
        rows = read_table(folder / "confused_pairs.csv", "true", "predicted", "count")
        if rows is None:
            return pairs.show(_missing("confused_pairs.csv"))
        from twincar.ui import score_charts

        sentence = f"The {min(len(rows), 20)} most frequent mistakes: true class → predicted class."
        return pairs.show(sentence, score_charts.confused_pairs(rows))

    def _f1(name: str, shown: str) -> dict[Any, Any]:
        rows = read_table(reports / name / "per_class.csv", "class_name", "f1", "support")
        if rows is None:
            return f1.show(_missing("per_class.csv", "evaluate"))
        from twincar.ui import score_charts

        rows = rows[rows["support"] > 0]
        sentence = (
            f"{(rows['f1'] >= 0.9995).sum():,} of {len(rows):,} classes have no mistake. With only "
            f"{rows['support'].min():,} to {rows['support'].max():,} pictures per class, one mistake changes F1 a lot."
        )
        return f1.show(sentence, score_charts.class_scores(rows, **CLASSES[shown]))

    def _sure(folder: Path) -> dict[Any, Any]:
        bins = read_table(folder / "reliability.csv", "confidence", "accuracy", "count")
        if bins is None:
            return sure.show(_missing("reliability.csv"))
        from twincar.ui import score_charts

        sentence = "Dots on the dashed line are well calibrated; above it the model is underconfident, below it "
        sentence += "overconfident."
        ece = _json(folder / "calibration.json").get("ece")
        if ece is not None:
            sentence += f" The expected calibration error is {percent(ece)}."
        return sure.show(sentence, score_charts.reliability(bins))

    def _table(folder: Path) -> dict[Any, Any]:
        title, rows = "Scores per class", read_table(folder / "per_class.csv", *PER_CLASS)
        if rows is None:
            return {
                table_text: heading(title, _missing("per_class.csv", "evaluate")),
                table: gr.Dataframe(visible=False),
            }
        rows = rows[list(PER_CLASS)].rename(columns=PER_CLASS).round(3)  # numbers, so that they sort as numbers
        sentence = "Sort with the ⋮ menu of a column; search for a make, model or year."
        return {table_text: heading(title, sentence), table: gr.Dataframe(rows, visible=True)}

    def _recipes(wanted: str | None = None) -> dict[Any, Any]:
        rows = read_table(reports / "recipes.csv", "recipe")
        measures = [] if rows is None else [name for name in TILES if name in rows and rows[name].notna().any()]
        if rows is None or not measures:
            nothing = {measure: gr.Radio(visible=False), recipe_card: gr.Column(visible=False)}
            return others.show("reports/recipes.csv is missing: `twincar report` writes it.") | nothing
        from twincar.ui import score_charts

        wanted = wanted or measures[0]
        sentence = (
            "One dot per recipe with its 95 % interval: where two intervals overlap widely, the difference may be "
            "random. Hollow dots: trained for less than the full schedule."
        )
        if f"original_{wanted}" in rows and rows[f"original_{wanted}"].notna().any():
            sentence += " Diamonds: results of the original systems on their own pictures."
        return {
            **others.show(sentence, score_charts.recipes(rows, wanted)),
            measure: gr.Radio([(TILES[name][0], name) for name in measures], value=wanted, visible=True),
            recipe_card: gr.Column(visible=True),
            recipe_table: _recipe_table(rows),
        }

    of_recipe = [
        tiles, make, *curves.parts, *matrix.parts, *pairs.parts, *f1.parts, *sure.parts, table_text, table,
    ]  # fmt: skip
    of_recipes = [*others.parts, measure, recipe_card, recipe_table]
    on_first_opening(fill, [*of_recipe, *of_recipes])
    recipe.input(_recipe, [recipe, shown_curves, shown_f1], of_recipe, **PRIVATE)
    shown_curves.input(_curves, [recipe, shown_curves], curves.parts, **PRIVATE)
    make.input(_matrix, [recipe, make], matrix.parts, **PRIVATE)
    shown_f1.input(_f1, [recipe, shown_f1], f1.parts, **PRIVATE)
    measure.input(_recipes, measure, of_recipes, **PRIVATE)


def _tiles(scores: dict, calibration: dict) -> str:
    """The headline scores with their 95 % intervals, and the pictures that they were measured on."""
    if not scores:
        return f'<p class="note">{with_code(_missing("scores.json", "evaluate"))}</p>'
    shown = []
    for name, (title, explanation) in TILES.items():
        if name not in scores:
            continue
        low, high = scores.get(f"{name}_interval", (None, None))
        interval = "" if low is None else f"<small>95 % interval: {percent(low)} to {percent(high)}</small>"
        shown.append(f"<li><b>{percent(scores[name])}</b><span>{title}</span><p>{explanation}</p>{interval}</li>")
    if "ece" in calibration:
        explanation = "mean difference between confidence and accuracy"
        shown.append(f"<li><b>{percent(calibration['ece'])}</b><span>Calibration error</span><p>{explanation}</p></li>")
    count, split = scores.get("pictures"), scores.get("split", "")
    on = f"Measured on {count:,} {SPLITS.get(split, split)} pictures, which are not used for training." if count else ""
    if split == "val":
        on += " The best epoch was chosen on the same pictures, so the scores are slightly optimistic."
    return f'<p class="note">{escape(on)}</p><ul class="tiles">{"".join(shown)}</ul>'


def _recipe_table(rows: pd.DataFrame) -> gr.Dataframe:
    """The table of recipes with readable headings, and fractions as percentages."""
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
    shown = [name for name in headings if name in rows]
    widths: list[str | int] = [
        {"status": 104, "hardware": 118, "original_note": 190, "balanced_accuracy": 92}.get(name, 72) for name in shown
    ]
    return gr.Dataframe(rows[shown].fillna("").rename(columns=headings), column_widths=widths)


def _missing(file: str, verb: str = "report") -> str:
    return f"There is no {file} for this recipe: `twincar {verb}` writes it."


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
