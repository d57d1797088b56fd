"""Verbs that make data ready: prepare, crop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from twincar.cli.base import app, echo, err, out, user_errors
from twincar.config import BOX_MARGIN, TwinCarError

if TYPE_CHECKING:
    import pandas as pd


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="A folder in any layout of Stanford Cars, parquet, or a Hub dataset.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the table goes.")] = Path("data"),
    val_size: Annotated[float, typer.Option(help="Share of the training pictures to validate on, 0 to 1.")] = 0.1,
    seed: int = 42,
    holdout: Annotated[
        Path | None, typer.Option(help="A folder of photos or a list of file names to leave out of training.")
    ] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Also measure a sample: sizes, colours, sharpness -> statistics.csv.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="How many pictures to measure.")] = 400,
    keep: Annotated[
        Path | None, typer.Option(help="Also write the statistics there, for a page that has no pictures.")
    ] = None,
) -> None:
    """Turn pictures in any layout into one table, and say what was found."""
    from twincar.data.table import prepare as prepare_table

    with user_errors():
        if keep and not statistics:
            raise TwinCarError("`--keep` says where statistics go: add `--statistics` to take them.")
        summary = prepare_table(source, out_folder, seed=seed, val_size=val_size, holdout=holdout)
        out.print(summary.describe(), highlight=False, soft_wrap=True)
        (out_folder / "statistics.csv").unlink(missing_ok=True)  # of a table that has been written anew
        if statistics:
            _take_statistics(out_folder, sample, seed, keep)


def _take_statistics(data: Path, sample: int, seed: int, keep: Path | None) -> None:
    from twincar.data import statistics
    from twincar.data.table import load_table

    table = load_table(data)
    found, unreadable = statistics.measure(table, sample, seed, progress=err.is_terminal)
    for path, reason in unreadable:
        err.print(f"left out: {path}: {reason}", highlight=False, soft_wrap=True)
    for folder in (data, keep):
        if folder:
            statistics.save(folder, table, found)
            echo(f"Measured {len(found):,} pictures: {folder / 'statistics.csv'}.")


@app.command()
def crop(
    root_dir: Annotated[Path, typer.Option(help="A folder of pictures with boxes, as `prepare` reads or wrote it.")],
    output_dir: Annotated[Path, typer.Option(help="Where the cars go, by split and class.")] = Path("cropped_images"),
    show_classes: Annotated[
        int, typer.Option(min=0, max=400, help="Count and show so many classes, the most frequent first; 0: none.")
    ] = 20,
    margin: Annotated[int, typer.Option(min=0, help="Pixels of context around the box.")] = BOX_MARGIN,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Squash to a square of this side  [default: as it is]")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Cut all again. Originals are never overwritten.")] = False,
) -> None:
    """Cut the cars out by their boxes. A run that was killed goes on where it stopped."""
    from twincar.data import crop as cropping

    with user_errors():
        done = cropping.crop(root_dir, output_dir, margin=margin, size=size, samples=show_classes, overwrite=overwrite)
        if show_classes:
            out.print(_class_table(done.classes, show_classes))
        out.print(done.describe(), highlight=False, soft_wrap=True)


def _class_table(classes: "pd.DataFrame", n: int) -> Table:
    """The `n` most frequent classes, and below them up to three of the smallest."""
    columns = ["cars", *classes.columns] if len(classes.columns) > 1 else ["cars"]
    table = Table("class", box=None, footer_style="bold", show_footer=True)
    table.columns[0].footer = f"{len(classes):,} classes"
    rows = classes.assign(cars=classes.sum(axis=1))[columns]
    for column in columns:
        table.add_column(column, justify="right", footer=f"{rows[column].sum():,}")
    smallest = rows.iloc[max(n, len(rows) - 3) :]
    for name, counts in rows.head(n).iterrows():
        table.add_row(escape(name), *(f"{count:,}" for count in counts))
    if (between := len(rows) - n - len(smallest)) > 0:
        table.add_row(f"… {between:,} more", style="dim")
    for name, counts in smallest.iterrows():
        table.add_row(escape(name), *(f"{count:,}" for count in counts))
    return table
