"""Commands for the Hub, Spaces and export: push, pull, space, export."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from twincar.cli.base import Model, app, echo, out, user_errors
from twincar.config import PUBLISHED

Repo = Annotated[str, typer.Argument(help="Name of the repo on the Hub: user/repo.")]
Private = Annotated[
    bool, typer.Option("--private", help="Create the repo as private; an error if it exists and is public.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the files that would be uploaded, and upload nothing.")]
Message = Annotated[str | None, typer.Option(help="Commit message.")]

Engine = StrEnum("Engine", ["onnx", "openvino", "torchscript"])


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Model folder.")],
    repo: Repo,
    private: Private = False,
    revision: Annotated[str | None, typer.Option(help="Branch, created if missing.", show_default="main")] = None,
    message: Message = None,
    dry_run: DryRun = False,
) -> None:
    """Upload a model folder to the Hugging Face Hub, in one commit."""
    from twincar.modeling.publishing import push_pull

    with user_errors():
        if dry_run:
            files = push_pull.collect_files(folder, repo)
            _show(f"Would be uploaded to {repo}", {path: push_pull.size(content) for path, content in files.items()})
            card = files["README.md"]
            assert isinstance(card, bytes)  # generated, not a file
            for line in push_pull.model_index(card.decode()):
                echo(f"  {line}")
            return
        commit = push_pull.push(folder, repo, private=private, revision=revision, message=message)
        echo(f"Published as {repo}@{commit}")


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="user/repo or user/repo@revision (a branch, a tag or a commit).")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Model folder to write.", show_default="models/<repo>")
    ] = None,
) -> None:
    """Download a model from the Hugging Face Hub into a folder."""
    from twincar.modeling.publishing import push_pull

    with user_errors():
        echo(f"{name} is in {push_pull.pull(name, out_folder)}.")


@app.command()
def space(
    name: Annotated[str, typer.Argument(metavar="SPACE", help="Name of the Space on the Hub: user/space.")],
    model: Annotated[
        str | None,
        typer.Option(help="Hub model to serve, pinned to its current commit.", show_default="models/twincar"),
    ] = None,
    private: Private = False,
    message: Message = None,
    dry_run: DryRun = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="With --dry-run: folder to write the files of the Space to.")
    ] = None,
) -> None:
    """Create or update a Hugging Face Space that serves the page, in one commit."""
    from twincar.modeling.publishing import push_pull
    from twincar.modeling.publishing import space as spaces

    with user_errors():
        if dry_run:
            files = spaces.collect_files(name, model and spaces.pin(model))
            _show(f"Would be uploaded to {name}", {path: push_pull.size(content) for path, content in files.items()})
            if out_folder:
                echo(f"The files are in {spaces.write(files, out_folder)}.")
            return
        commit = spaces.publish(name, model=model, private=private, message=message)
        echo(f"Published as https://huggingface.co/spaces/{name} ({commit})")


def _show(title: str, sizes: dict[str, int]) -> None:
    table = Table(title=title, show_footer=True, title_justify="left")
    table.add_column("file", f"{len(sizes)} files")
    table.add_column("bytes", f"{sum(sizes.values()):,}", justify="right")
    for path, size in sizes.items():
        table.add_row(path, f"{size:,}")
    out.print(table)


@app.command()
def export(
    to: Annotated[Engine, typer.Option(help="Target engine.")],
    model: Model = str(PUBLISHED),
    out_file: Annotated[
        Path | None, typer.Option("--out", help="File to write.", show_default="twincar.onnx, .xml or .pt")
    ] = None,
) -> None:
    """Export a model to ONNX Runtime, OpenVINO or TorchScript, and compare its results with torch."""
    from twincar.modeling.hub import model_folder
    from twincar.modeling.publishing import export as exporting

    with user_errors():
        out_file = out_file or Path("twincar").with_suffix(exporting.SUFFIXES[to.value])
        parity = exporting.export(model_folder.load(model), to.value, out_file)
        echo(
            f"{out_file}: on {parity.pictures} pictures the probabilities differ by at most "
            f"{parity.largest_difference:.1e}; the top class is {'the same' if parity.same_best else 'NOT the same'}."
        )
