"""Commands for data: prepare, crop."""

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
    source: Annotated[
        str,
        typer.Argument(
            help="Folder in any layout of Stanford Cars or of class folders, parquet files, or a Hub dataset."
        ),
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder to write the table to.")] = Path("data"),
    val_size: Annotated[float, typer.Option(help="Fraction of the training pictures for validation, 0 to 1.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed of the split and of the sample.")] = 42,
    holdout: Annotated[
        Path | None, typer.Option(help="Folder of photos, or list of file names, to exclude from training.")
    ] = None,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Also measure sizes, colors and sharpness of a sample: statistics.csv.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Number of pictures to measure with --statistics.")] = 400,
    keep: Annotated[
        Path | None, typer.Option(help="Second folder to write the statistics to, for a page without pictures.")
    ] = None,
) -> None:
    """Read pictures in any layout, write one table and print a summary."""
    from twincar.data.table import prepare as prepare_table

    with user_errors():
        if keep and not statistics:
            raise TwinCarError("`--keep` is a folder for statistics: add `--statistics` to measure them.")
        summary = prepare_table(source, out_folder, seed=seed, val_size=val_size, holdout=holdout)
        out.print(summary.describe(), highlight=False, soft_wrap=True)
        (out_folder / "statistics.csv").unlink(missing_ok=True)  # they belong to the previous table
        if statistics:
            _take_statistics(out_folder, sample, seed, keep)


def _take_statistics(data: Path, sample: int, seed: int, keep: Path | None) -> None:
    from twincar.data import statistics
    from twincar.data.table import load_table

    table = load_table(data)
    found, unreadable = statistics.measure(table, sample, seed, progress=err.is_terminal)
    for path, reason in unreadable:
        err.print(f"skipped: {path}: {reason}", highlight=False, soft_wrap=True)
    for folder in (data, keep):
        if folder:
            statistics.save(folder, table, found)
            echo(f"Measured {len(found):,} pictures: {folder / 'statistics.csv'}.")


@app.command()
def crop(
    root_dir: Annotated[Path, typer.Option(help="Folder of pictures with boxes, as `prepare` reads or writes it.")],
    output_dir: Annotated[Path, typer.Option(help="Folder to write to, by split and class.")] = Path("cropped_images"),
    show_classes: Annotated[
        int,
        typer.Option(
            min=0,
            max=400,
            help="Number of classes to list and to show in samples.jpg, most frequent first; 0 for none.",
        ),
    ] = 20,
    margin: Annotated[int, typer.Option(min=0, help="Pixels of context around the box.")] = BOX_MARGIN,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Resize to a square of this side.", show_default="no resize")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Crop all again. Originals are never overwritten.")] = False,
) -> None:
    """Crop the cars out of pictures by their boxes. An interrupted run resumes when started again."""
    from twincar.data import crop as cropping

    with user_errors():
        done = cropping.crop(root_dir, output_dir, margin=margin, size=size, samples=show_classes, overwrite=overwrite)
        if show_classes:
            out.print(_class_table(done.classes, show_classes))
        out.print(done.describe(), highlight=False, soft_wrap=True)


def _class_table(classes: "pd.DataFrame", n: int) -> Table:
    """Make a table of the `n` most frequent and up to three of the least frequent classes."""
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
