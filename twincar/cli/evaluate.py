"""Commands for evaluation: evaluate, compare, report."""

from pathlib import Path
from typing import Annotated

import typer

from twincar.cli.base import Data, Model, app, echo, show_scores, user_errors
from twincar.config import PUBLISHED, TwinCarError


@app.command()
def evaluate(
    model: Model = str(PUBLISHED),
    data: Data = Path("data"),
    split: Annotated[str, typer.Option(help="train, val, test or holdout.")] = "val",
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write scores.json, predictions.csv and per_class.csv to.")
    ] = None,
) -> None:
    """Evaluate a published model on a split, with 95 % bootstrap intervals."""
    from twincar.data.table import load_table
    from twincar.modeling.evaluation import evaluate as evaluation
    from twincar.modeling.inference.predictor import REFERENCE, Predictor

    with user_errors():
        table = load_table(data)
        result = evaluation.evaluate(Predictor.from_pretrained(model, engine=REFERENCE), table, split)
        if out_folder:
            result.save(out_folder)
        show_scores(result)


@app.command()
def compare(
    reports: Annotated[Path, typer.Option(help="Folder with a folder for each recipe.")] = Path("reports"),
) -> None:
    """Compare the measured recipes: write REPORTS/recipes.csv and print it as Markdown."""
    from twincar.report import comparison

    with user_errors():
        print(comparison.as_markdown(comparison.write(reports)), end="")


@app.command()
def report(
    model: Model = str(PUBLISHED),
    data: Data = Path("data"),
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of all reports, one per recipe.")] = Path("reports"),
    run: Annotated[Path | None, typer.Option(help="Folder of the training run, to copy its log.")] = None,
    split: Annotated[str, typer.Option(help="train, val, test or holdout.")] = "val",
    not_cars: Annotated[
        Path | None, typer.Option(help="Folder of photos without cars, to show the pasting of a recipe that pastes.")
    ] = None,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="Only draw figures and pages from the tables in OUT, without model and data."),
    ] = False,
) -> None:
    """Evaluate a published model and write its report: tables, figures and a page.

    Also updates the comparison of the recipes and the statistics of the data.
    """
    from twincar.report import report as reporting

    with user_errors():
        if redraw:
            folders = sorted(path.parent for path in out_folder.glob("*/per_class.csv"))
            if not folders:
                raise TwinCarError(f"{out_folder} contains no report to redraw: run without `--redraw` first.")
            for folder in folders:
                figures = reporting.redraw(folder)
                echo(f"{len(figures)} figures drawn in {folder}.")
            return
        from twincar.data.table import load_table
        from twincar.modeling.inference.predictor import REFERENCE, Predictor

        table = load_table(data)
        predictor = Predictor.from_pretrained(model, engine=REFERENCE)
        folder = out_folder / reporting.folder_name(predictor.config)
        show_scores(reporting.report(predictor, table, folder, run=run, split=split, not_cars=not_cars))
        reporting.report_around(out_folder, table)
        echo(f"Written to {folder}.")
