"""Comparison of the recipes with each other and with the original systems, in one table.

`twincar compare --reports reports` writes reports/recipes.csv and prints the table of README.md.
"""

import json
from itertools import takewhile
from pathlib import Path

import pandas as pd

from twincar.config import TwinCarError
from twincar.files import write_csv
from twincar.modeling.hub.card import HEADLINES
from twincar.modeling.training.recipes import ORIGINAL_RESULTS, RECIPES, Recipe, ancestors

SHOWN = {"top1": "top-1", "top5": "top-5", "f1_macro": "macro F1", "balanced_accuracy": "balanced accuracy"}
FILES = ("scores.json", "recipe.json", "run.json")


def compare(reports: str | Path) -> pd.DataFrame:
    """Compare the measured recipes.

    Args:
        reports: A folder with a folder for each recipe. Recipes are included if their folder contains scores.json,
            recipe.json, run.json and metrics.csv.

    Returns:
        One row per recipe, the highest top-1 accuracy first. Columns: recipe; status ("complete" or "shortened"); each
        headline score, with <score>_low and <score>_high, its 95 % bootstrap interval; pictures, split; train_size,
        train_size_planned, eval_size (pixels); epochs, epochs_planned, train_pictures, pictures_seen; hours; hardware;
        precision; init; date; original_<score> and original_note, as reported by the authors of the original system.
        Epochs, pictures seen, hours and hardware include earlier runs of the same recipe that the run continues.

    Raises:
        TwinCarError: No recipe has been measured.
    """
    rows = [_row(folder) for name in RECIPES if is_measured(folder := Path(reports) / name)]
    if not rows:
        raise TwinCarError(f"{reports} contains no measured recipe: run `twincar evaluate --out {reports}/NAME` first.")
    return pd.DataFrame(rows).sort_values("top1", ascending=False, kind="stable", ignore_index=True)


def is_measured(folder: Path) -> bool:
    """Return whether a recipe's folder contains all files that `compare` needs."""
    return all((folder / file).is_file() for file in (*FILES, "metrics.csv"))


def write(reports: str | Path) -> pd.DataFrame:
    """Write the table of `compare` to `<reports>/recipes.csv` and return it."""
    table = compare(reports)
    write_csv(table, Path(reports) / "recipes.csv", decimals=6)  # more than are shown: they are rounded again
    return table


def _row(folder: Path) -> dict:
    scores, recipe, run = (json.loads((folder / file).read_text(encoding="utf-8")) for file in FILES)
    log = pd.read_csv(folder / "metrics.csv")
    as_run, planned = Recipe(**recipe), RECIPES[recipe["name"]]
    earlier = list(takewhile(lambda each: each["recipe"] == recipe["name"], ancestors(run)))
    epochs = len(log) + sum(each["epochs"] for each in earlier)
    hours = log["epoch_seconds"].sum() / 3600 + sum(each["hours"] for each in earlier)
    machines = [each["hardware"] for each in (*reversed(earlier), run) if "hardware" in each]  # old records lack it
    row: dict = {
        "recipe": recipe["name"],
        "status": "complete" if is_complete(as_run, planned, epochs) else "shortened",
    }
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
        "epochs": epochs,
        "epochs_planned": planned.epochs,
        "train_pictures": train,
        "pictures_seen": epochs * train,
        "hours": round(float(hours), 2),
        "hardware": " and ".join(dict.fromkeys(machines)),
        **{key: run[key] for key in ("precision", "init", "date")},
    }
    return row | {f"original_{key}": value for key, value in ORIGINAL_RESULTS.get(recipe["name"], {}).items()}


def is_complete(as_run: Recipe, planned: Recipe, epochs: int) -> bool:
    """Return whether a run used its recipe's image sizes and ran to the last epoch or to early stopping.

    Args:
        as_run: The recipe with the settings of the run.
        planned: The recipe.
        epochs: Number of epochs that were run, with those of earlier runs of the recipe that it continues.
    """
    sizes = [[float(start), int(size)] for start, size in as_run.sizes]
    same = sizes == [[float(start), int(size)] for start, size in planned.sizes]
    return same and (epochs >= planned.epochs or (planned.patience is not None and as_run.epochs >= planned.epochs))


def as_markdown(table: pd.DataFrame) -> str:
    """Format the table of `compare` as Markdown: scores with intervals, the run, and the original system's result."""
    lines = [
        f"| recipe | {' | '.join(SHOWN.values())} | run | original system |",
        "| --- |" + " --- |" * (len(SHOWN) + 2),
    ]
    for row in table.to_dict("records"):
        cells = [f"`{row['recipe']}`"]
        cells += [f"{_percent(row[name])} ({_range(row, name)})" for name in SHOWN]
        lines.append(f"| {' | '.join([*cells, _run(row), _original(row)])} |")
    return "\n".join(lines) + "\n"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _range(row: dict, name: str) -> str:
    return f"{100 * row[f'{name}_low']:.1f}–{100 * row[f'{name}_high']:.1f}"


def _run(row: dict) -> str:
    """Describe a run in one table cell: epochs, image size, pictures, time and hardware."""
    complete = row["status"] == "complete"
    epochs = f"{row['epochs']} epochs" if complete else f"{row['epochs']} of {row['epochs_planned']} epochs"
    size = f"{row['train_size']} px"
    if row["train_size"] != row["train_size_planned"]:
        size = f"{row['train_size']} of {row['train_size_planned']} px"
    return (
        f"{'complete' if complete else '**shortened**'}: {epochs}, {size}, {row['pictures_seen']:,} samples; "
        f"{row['hours']:.1f} h on {row['hardware']}"
    )


def _original(row: dict) -> str:
    note = row.get("original_note")
    return note if isinstance(note, str) else "none"
