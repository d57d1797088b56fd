"""The recipes beside each other and beside the seed systems they come from: one table of what was measured.

twincar compare --reports reports        # writes reports/recipes.csv and prints the README's table
"""

import json
from pathlib import Path

import pandas as pd

from twincar.config import TwinCarError
from twincar.files import write_csv
from twincar.modeling.evaluation.metrics import HEADLINES
from twincar.modeling.training.recipes import ORIGINAL_RESULTS, RECIPES, Recipe

SHOWN = {"top1": "top-1", "top5": "top-5", "f1_macro": "macro F1", "balanced_accuracy": "balanced accuracy"}
FILES = ("scores.json", "recipe.json", "run.json")


def compare(reports: str | Path) -> pd.DataFrame:
    """A row a recipe, the best first, from the folders `<reports>/<recipe>/` that hold scores.json, recipe.json,
    run.json and metrics.csv.

    Columns: recipe; status ("whole" or "shortened"); every headline figure with _low and _high, its 95 % bootstrap
    interval; pictures, split; train_size, eval_size in pixels; epochs run, epochs_planned, pictures_seen; hours;
    hardware; precision; init; train_pictures; and seed_<figure>, what the seed system's authors report.
    Raises TwinCarError when there is no such folder.
    """
    rows = [_row(folder) for name in RECIPES if is_measured(folder := Path(reports) / name)]
    if not rows:
        raise TwinCarError(f"{reports} holds no measured recipe: `twincar evaluate --out {reports}/NAME` makes one.")
    return pd.DataFrame(rows).sort_values("top1", ascending=False, kind="stable", ignore_index=True)


def is_measured(folder: Path) -> bool:
    """True where a recipe's folder holds all that its row is made of."""
    return all((folder / file).is_file() for file in (*FILES, "metrics.csv"))


def write(reports: str | Path) -> pd.DataFrame:
    """`compare`, written to `<reports>/recipes.csv`."""
    table = compare(reports)
    write_csv(table, Path(reports) / "recipes.csv", decimals=6)  # enough to be rounded once more
    return table


def _row(folder: Path) -> dict:
    scores, recipe, run = (json.loads((folder / file).read_text(encoding="utf-8")) for file in FILES)
    log = pd.read_csv(folder / "metrics.csv")
    as_run, planned = Recipe(**recipe), RECIPES[recipe["name"]]
    row: dict = {"recipe": recipe["name"], "status": "whole" if is_whole(as_run, planned, len(log)) else "shortened"}
    for name in HEADLINES:
        row[name] = scores[name]
        row[f"{name}_low"], row[f"{name}_high"] = scores[f"{name}_interval"]
    train = run["pictures"]["train"]
    row |= {
        "pictures": scores["pictures"],
        "split": scores["split"],
        "train_size": int(log["image_size"].max()),
        "train_size_planned": planned.sizes[-1][1],
        "eval_size": as_run.eval_size,
        "epochs": len(log),
        "epochs_planned": planned.epochs,
        "train_pictures": train,
        "pictures_seen": len(log) * train,
        "hours": round(float(log["epoch_seconds"].sum() / 3600), 2),
        **{key: run[key] for key in ("hardware", "precision", "init", "date")},
    }
    return row | {f"original_{key}": value for key, value in ORIGINAL_RESULTS.get(recipe["name"], {}).items()}


def is_whole(as_run: Recipe, planned: Recipe, epochs: int) -> bool:
    """True when a run kept its recipe's picture sizes and went on to the recipe's last epoch or its stopping rule."""
    sizes = [[float(share), int(size)] for share, size in as_run.sizes]
    same = sizes == [[float(share), int(size)] for share, size in planned.sizes] and as_run.epochs == planned.epochs
    return same and (epochs == planned.epochs or planned.patience is not None)


def as_markdown(table: pd.DataFrame) -> str:
    """The table of the README: what was measured, with intervals, how it was run, and the seed's own figures."""
    lines = [
        f"| recipe | {' | '.join(SHOWN.values())} | how it was run | the seed's own |",
        "| --- |" + " --- |" * (len(SHOWN) + 2),
    ]
    for row in table.to_dict("records"):
        cells = [f"`{row['recipe']}`"]
        cells += [f"{_percent(row[name])} ({_range(row, name)})" for name in SHOWN]
        lines.append(f"| {' | '.join([*cells, _how(row), _seed(row)])} |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _range(row: dict, name: str) -> str:
    return f"{100 * row[f'{name}_low']:.1f}–{100 * row[f'{name}_high']:.1f}"


def _how(row: dict) -> str:
    whole = row["status"] == "whole"
    epochs = f"{row['epochs']} epochs" if whole else f"{row['epochs']} of {row['epochs_planned']} epochs"
    size = f"{row['train_size']} px"
    if row["train_size"] != row["train_size_planned"]:
        size = f"{row['train_size']} of {row['train_size_planned']} px"
    return (
        f"{'whole' if whole else '**shortened**'}: {epochs}, {size}, {row['pictures_seen']:,} pictures seen; "
        f"{row['hours']:.1f} h on {row['hardware']}"
    )


def _seed(row: dict) -> str:
    note = row.get("original_note")
    return note if isinstance(note, str) else "none"
