"""Short training runs of one recipe that differ in a single field.

    python -m benchmarks.recipe_field report conv_rms 0.02 0.08 --size 96 --epochs 3 --data data \
        --init resnet50.safetensors --out reports/report_conv_rms.md

All runs have the same seed, so they see the same pictures in the same order. A schedule of one cycle is compressed into
the epochs. The same command resumes a stopped run, and does not repeat a finished one.
"""

import ast
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from scipy.stats import binomtest

from benchmarks.common import table, write_report
from twincar.cli.train import RecipeName
from twincar.data.table import load_table
from twincar.modeling.training.recipes import RECIPES, Recipe
from twincar.modeling.training.train import train


def main(
    recipe: Annotated[RecipeName, typer.Argument(help="Name of the recipe.")],
    field: Annotated[str, typer.Argument(help="Field of `Recipe`.")],
    values: Annotated[list[str], typer.Argument(help="Its values, as Python literals; other words are text.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote.")] = Path("data"),
    init: Annotated[str, typer.Option(help="Initial weights, as in `twincar train`.")] = "imagenet",
    size: Annotated[int, typer.Option(min=32, help="Image size in all epochs, in pixels.")] = 96,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 3,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/recipe_field"),
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Train RECIPE once for each value of FIELD and compare the validation accuracy of every epoch."""
    if field not in {own.name for own in fields(Recipe)}:
        raise typer.BadParameter(f"a recipe has no field {field!r}.")
    pictures = load_table(data)
    short = replace(RECIPES[recipe], sizes=((0.0, size),), eval_size=size, epochs=epochs)
    count = int((pictures["split"] == "val").sum())
    rows, machines = [], []
    for value in values:
        folder = runs / f"{recipe}-{field}-{value}"
        changed = replace(short, **{field: _literal(value)})
        train(changed, pictures, folder, init=init, cache=data / "cache", progress=False)
        accuracy = pd.read_csv(folder / "metrics.csv")["val_top1"].tolist()
        low, high = binomtest(round(accuracy[-1] * count), count).proportion_ci(0.95, method="wilson")
        rows.append([value, *(f"{share:.1%}" for share in accuracy), f"{low:.1%} to {high:.1%}"])
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        machines.append(f"{run['hardware']}, {run['precision']}")
    columns = [f"`{field}`", *(f"epoch {epoch + 1}" for epoch in range(epochs)), "95 % interval (Wilson)"]
    lines = [
        f"Recipe `{recipe}` at {size} px, epochs: {epochs}, initial weights: {Path(init).name}, one seed. Top-1 "
        f"accuracy on {count} validation pictures. {' and '.join(dict.fromkeys(machines))}.",
        "",
        table(columns, rows),
    ]
    print("\n".join(lines))
    if out:
        command = f"recipe_field {recipe} {field} {' '.join(values)} --size {size} --epochs {epochs}"
        write_report(out, f"`{field}` of the recipe {recipe}", command, lines)


def _literal(text: str) -> Any:
    """Read a Python literal; a word that is none is text, such as the name of an optimizer."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    typer.run(main)
