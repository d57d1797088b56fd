"""What the verbs of the command line share: the app, its two voices, common options, and errors as sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twincar.config import TwinCarError

app = typer.Typer(
    help="Show it a photo of a car: it tells make, model and year, how sure it is, and what made it say so.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
out, err = Console(), Console(stderr=True)
echo = partial(out.print, markup=False, highlight=False, soft_wrap=True)  # as it is: paths may hold brackets

Model = Annotated[
    str, typer.Option(help="A model folder, a Hub repo (user/repo[@revision]), or an original .pth checkpoint.")
]
Data = Annotated[Path, typer.Option(help="The folder that `twincar prepare` wrote.")]


@contextmanager
def user_errors() -> Iterator[None]:
    """What a person can mend becomes one sentence and exit code 2, what they stop one and 130, as shells have it; a
    defect keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt as stop:
        err.print(escape(str(stop) or "Stopped."), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from stop
    except TwinCarError as error:
        err.print(f"[bold red]twincar:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def show_scores(result) -> None:
    """Print the scores of an Evaluation as a table, and the photos that could not be read."""
    table = Table(title=f"{result.scores['pictures']} {result.scores['split']} pictures")
    for heading in ("measure", "value", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, value in result.scores.items():
        if isinstance(value, float):
            low, high = result.scores.get(f"{name}_interval", (None, None))
            table.add_row(name, f"{value:.4f}", "" if low is None else f"{low:.4f} to {high:.4f}")
    out.print(table)
    for path, reason in result.unreadable:
        err.print(f"left out: {path}: {reason}", highlight=False, soft_wrap=True)
