"""The tab *How good is it*: every figure of the reports, to look into.

It reads the folders of `reports/` that `twincar train`, `evaluate` and `report` wrote, one a recipe, and computes
nothing itself. A table that is missing hides its view behind a sentence. Nothing is read or drawn before a visitor
opens the tab, but for the names of the recipes.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from twincar.config import parse_class_name
from twincar.ui.views import PRIVATE, heading, on_first_opening, read_table, share, view

ALL = "all makes"
CURVES = {  # what is shown -> name in the chart -> column of metrics.csv
    "Top-1, 3 and 5": {"top-1": "val_top1", "top-3": "val_top3", "top-5": "val_top5"},
    "Accuracy": {"training": "train_top1", "validation": "val_top1"},
    "Loss": {"training": "train_loss", "validation": "val_loss"},
    "Macro F1": {"macro F1": "val_f1_macro"},
    "Precision and recall": {"precision": "val_precision_macro", "recall": "val_recall_macro"},
}
CLASSES = {"Worst 20": {"worst": 20}, "Best 20": {"best": 20}, "All": {}}  # what is shown -> of `class_scores`
PER_CLASS = {  # column of per_class.csv -> its heading
    "class_name": "Class", "precision": "Precision", "recall": "Recall", "f1": "F1", "support": "Pictures",
}  # fmt: skip
SPLITS = {"train": "training", "val": "validation", "test": "test", "holdout": "held-out"}
TILES = {  # score -> what the tile calls it, and what it means
    "top1": ("Top-1", "the first answer is right"),
    "top3": ("Top-3", "the right car is among the first three"),
    "top5": ("Top-5", "the right car is among the first five"),
    "f1_macro": ("Macro F1", "precision and recall in one, every class counting alike"),
    "balanced_accuracy": ("Balanced accuracy", "the mean over classes of how many are recognised"),
}


def recipes_in(reports: Path | None) -> list[str]:
    """The folders of `reports` that hold scores or a log, the best top-1 first."""
    if not reports or not reports.is_dir():
        return []
    found = [p for p in reports.iterdir() if (p / "scores.json").is_file() or (p / "metrics.csv").is_file()]
    return [
        path.name for path in sorted(found, key=lambda path: (-_json(path / "scores.json").get("top1", 0), path.name))
    ]


def tab(reports: Path | None) -> None:
    """Draw the tab into the open gr.Tab. reports : the folder of reports, or None."""
    names = recipes_in(reports)
    if not names:
        gr.HTML('<p class="note">Nothing was measured yet: `twincar report` writes the tables that are shown here.</p>')
        return
    with gr.Column(elem_classes="views"):
        recipe = gr.Radio(names, value=names[0], label="Recipe", elem_id="recipe", visible=len(names) > 1)
        tiles = gr.HTML(elem_id="tiles")
        with gr.Column(elem_classes="card"):
            curves, shown_curves = view(
                "How it learnt",
                elem_id="curves",
                controls=lambda: gr.Radio(list(CURVES), value=next(iter(CURVES)), show_label=False, elem_id="curve"),
            )
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                matrix, make = view(
                    "What it takes for what",
                    elem_id="confusion",
                    controls=lambda: gr.Dropdown([ALL], value=ALL, label="Make", elem_id="confusion-make"),
                )
            with gr.Column(elem_classes="card"):
                table_words = gr.HTML(elem_classes="view-words")
                table = gr.Dataframe(
                    visible=False, interactive=False, show_label=False, show_search="search", max_height=700, wrap=True,
                    buttons=["fullscreen"], datatype=["str", "number", "number", "number", "number"],
                    column_widths=[150, 102, 84, 66, 98], elem_id="per-class",
                )  # fmt: skip
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                pairs = view("Most confused", elem_id="pairs")
            with gr.Column(elem_classes="card"):
                f1, shown_f1 = view(
                    "F1 of each class",
                    elem_id="f1",
                    controls=lambda: gr.Radio(
                        list(CLASSES), value=next(iter(CLASSES)), show_label=False, elem_id="f1-choice"
                    ),
                )
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                sure = view("Is it as good as it says?", elem_id="reliability")
            with gr.Column(elem_classes="card"):
                others, measure = view(
                    "The recipes side by side",
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
        sentence = f"{last} epochs on the validation pictures; the grey hill behind is the learning rate."
        if "image_size" in metrics and metrics["image_size"].nunique() > 1:
            sentence += " Each dotted line is where the pictures grew."
        return curves.show(sentence, score_charts.curves(metrics, CURVES[shown], share=shown != "Loss"))

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
            f"Violet is right ({right:,}), amber is mistaken ({wrong:,}); {within:,} of the mistakes stay within the "
            "make, between the lines. Drag to zoom in, double-click to come back."
        )
        return matrix.show(sentence, score_charts.confusion(counts, None if wanted == ALL else wanted))

    def _pairs(folder: Path) -> dict[Any, Any]:
        rows = read_table(folder / "confused_pairs.csv", "true", "predicted", "count")
        if rows is None:
            return pairs.show(_missing("confused_pairs.csv"))
        from twincar.ui import score_charts

        most = f"The {min(len(rows), 20)} mistakes made most often: what it is → what the model says."
        return pairs.show(most, score_charts.confused_pairs(rows))

    def _f1(name: str, shown: str) -> dict[Any, Any]:
        rows = read_table(reports / name / "per_class.csv", "class_name", "f1", "support")
        if rows is None:
            return f1.show(_missing("per_class.csv", "evaluate"))
        from twincar.ui import score_charts

        rows = rows[rows["support"] > 0]
        sentence = (
            f"{(rows['f1'] >= 0.9995).sum():,} of {len(rows):,} classes are read without a mistake; with "
            f"{rows['support'].min():,} to {rows['support'].max():,} pictures a class, one mistake moves a bar far."
        )
        return f1.show(sentence, score_charts.class_scores(rows, **CLASSES[shown]))

    def _sure(folder: Path) -> dict[Any, Any]:
        bins = read_table(folder / "reliability.csv", "confidence", "accuracy", "count")
        if bins is None:
            return sure.show(_missing("reliability.csv"))
        from twincar.ui import score_charts

        sentence = "Dots on the dashed line mean what they say; above it the model is too modest, below it too sure."
        ece = _json(folder / "calibration.json").get("ece")
        if ece is not None:
            sentence += f" On average it is off by {share(ece)} (expected calibration error)."
        return sure.show(sentence, score_charts.reliability(bins))

    def _table(folder: Path) -> dict[Any, Any]:
        title, rows = "Class by class", read_table(folder / "per_class.csv", *PER_CLASS)
        if rows is None:
            return {
                table_words: heading(title, _missing("per_class.csv", "evaluate")),
                table: gr.Dataframe(visible=False),
            }
        rows = rows[list(PER_CLASS)].rename(columns=PER_CLASS).round(3)  # numbers, so that they sort as numbers
        words = "The ⋮ beside a column's name sorts by it; search for a make, a model or a year."
        return {table_words: heading(title, words), table: gr.Dataframe(rows, visible=True)}

    def _recipes(wanted: str | None = None) -> dict[Any, Any]:
        rows = read_table(reports / "recipes.csv", "recipe")
        measures = [name for name in TILES if rows is not None and name in rows and rows[name].notna().any()]
        if not measures:
            nothing = {measure: gr.Radio(visible=False), recipe_card: gr.Column(visible=False)}
            return others.show("No table compares the recipes here: `reports/recipes.csv` is missing.") | nothing
        from twincar.ui import score_charts

        wanted = wanted or measures[0]
        sentence = (
            "A dot a recipe, its line the 95 % interval: where two lines overlap far, the difference may be luck. "
            "Hollow dots were run shortened, and would gain with more time."
        )
        if f"original_{wanted}" in rows and rows[f"original_{wanted}"].notna().any():
            sentence += " Diamonds are what the recipes' authors report, on their own pictures."
        return {
            **others.show(sentence, score_charts.recipes(rows, wanted)),
            measure: gr.Radio([(TILES[name][0], name) for name in measures], value=wanted, visible=True),
            recipe_card: gr.Column(visible=True),
            recipe_table: _recipe_table(rows),
        }

    of_recipe = [
        tiles, make, *curves.parts, *matrix.parts, *pairs.parts, *f1.parts, *sure.parts, table_words, table,
    ]  # fmt: skip
    of_recipes = [*others.parts, measure, recipe_card, recipe_table]
    on_first_opening(fill, [*of_recipe, *of_recipes])
    recipe.input(_recipe, [recipe, shown_curves, shown_f1], of_recipe, **PRIVATE)
    shown_curves.input(_curves, [recipe, shown_curves], curves.parts, **PRIVATE)
    make.input(_matrix, [recipe, make], matrix.parts, **PRIVATE)
    shown_f1.input(_f1, [recipe, shown_f1], f1.parts, **PRIVATE)
    measure.input(_recipes, measure, of_recipes, **PRIVATE)


def _tiles(scores: dict, calibration: dict) -> str:
    """The headline figures, each with its 95 % interval as words and as a mark on a line from 0 to 1."""
    if not scores:
        return f'<p class="note">{escape(_missing("scores.json", "evaluate"))}</p>'
    shown = []
    for name, (title, words) in TILES.items():
        if name not in scores:
            continue
        low, high = scores.get(f"{name}_interval", (None, None))
        interval = "" if low is None else f"<small>95 % interval: {share(low)} to {share(high)}</small>"
        shown.append(f"<li><b>{share(scores[name])}</b><span>{title}</span><p>{words}</p>{interval}</li>")
    if "ece" in calibration:
        words = "how far, on average, what it says of its sureness is off"
        shown.append(f"<li><b>{share(calibration['ece'])}</b><span>Calibration error</span><p>{words}</p></li>")
    count, split = scores.get("pictures"), scores.get("split", "")
    on = f"Measured on {count:,} {SPLITS.get(split, split)} pictures that it did not learn from." if count else ""
    if split == "val":
        on += " Its best epoch was chosen on the same pictures, so the figures are a little kind."
    return f'<p class="note">{escape(on)}</p><ul class="tiles">{"".join(shown)}</ul>'


def _recipe_table(rows: pd.DataFrame) -> gr.Dataframe:
    """The columns that people read, in words, shares as per cent."""
    told = {
        "recipe": "Recipe", "status": "Run", **{name: title for name, (title, _) in TILES.items()},
        "train_size": "Pixels", "epochs": "Epochs", "hours": "Hours", "hardware": "Hardware",
        "original_note": "As its authors report it",
    }  # fmt: skip
    rows = rows.copy()
    for name in set(TILES) & set(rows):
        rows[name] = [share(value) if value == value else "" for value in rows[name]]
    for name in {"train_size", "epochs"} & set(rows):  # what was run, and of how much where it was shortened
        planned = rows.get(f"{name}_planned", rows[name])
        rows[name] = [f"{a:g}" + (f" of {b:g}" if b > a else "") for a, b in zip(rows[name], planned, strict=True)]
    shown = [name for name in told if name in rows]
    widths = [
        {"status": 104, "hardware": 118, "original_note": 190, "balanced_accuracy": 92}.get(name, 72) for name in shown
    ]
    return gr.Dataframe(rows[shown].fillna("").rename(columns=told), column_widths=widths)


def _missing(file: str, verb: str = "report") -> str:
    return f"There is no {file} for this recipe: `twincar {verb}` writes it."


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
