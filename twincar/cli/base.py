"""Shared parts of the command line: the Typer app, consoles, common options and error handling."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twincar.config import TwinCarError

if TYPE_CHECKING:
    from twincar.modeling.evaluation.evaluate import Evaluation

app = typer.Typer(
    help="Identify make, model and year of the car in a photo, with the probability and the evidence for it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
out, err = Console(), Console(stderr=True)
echo = partial(out.print, markup=False, highlight=False, soft_wrap=True)  # no markup: paths can contain brackets

Model = Annotated[
    str,
    typer.Option(
        help="Model folder, Hub repo (user/repo or user/repo@revision) or .pth checkpoint of an original system."
    ),
]
Data = Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote.")]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors into exit codes: a TwinCarError prints its message and exits with 2, Ctrl-C exits with 130.

    Other exceptions are bugs and keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        err.print(escape(str(stop) or "Stopped."), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from stop
    except TwinCarError as error:
        err.print(f"[bold red]twincar:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def show_scores(result: "Evaluation") -> None:
    """Print the scores of an evaluation as a table, and the photos that could not be read."""
    table = Table(title=f"{result.scores['pictures']} {result.scores['split']} pictures")
    for heading in ("measure", "value", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, value in result.scores.items():
        if isinstance(value, float):
            low, high = result.scores.get(f"{name}_interval", (None, None))
            table.add_row(name, f"{value:.4f}", "" if low is None else f"{low:.4f} to {high:.4f}")
    out.print(table)
    for path, reason in result.unreadable:
        err.print(f"skipped: {path}: {reason}", highlight=False, soft_wrap=True)
