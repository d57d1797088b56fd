"""Verbs that make data ready: prepare."""

from pathlib import Path
from typing import Annotated

import typer

from twincar.cli.base import app, out, sentences


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="A folder in any layout of Stanford Cars, parquet, or a Hub dataset.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the table goes.")] = Path("data"),
    val_size: Annotated[float, typer.Option(help="Share of the training pictures to validate on, 0 to 1.")] = 0.1,
    seed: int = 42,
    holdout: Annotated[
        Path | None, typer.Option(help="A folder of photos or a list of file names to leave out of training.")
    ] = None,
) -> None:
    """Turn pictures in any layout into one table, and say what was found."""
    from twincar import dataset

    with sentences():
        summary = dataset.prepare(source, out_folder, seed=seed, val_size=val_size, holdout=holdout)
        out.print(summary.describe(), highlight=False, soft_wrap=True)
