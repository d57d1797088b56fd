"""Verbs that bring a model to others: push, pull, space, export."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from twincar.cli.base import app, out, sentences

Repo = Annotated[str, typer.Argument(help="Its name on the Hub: user/repo.")]
Private = Annotated[bool, typer.Option("--private", help="For your eyes alone; counts when the repo is made.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and send nothing.")]
Message = Annotated[str | None, typer.Option(help="The commit's message.")]


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    repo: Repo,
    private: Private = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made when there is none  [default: main]")] = None,
    message: Message = None,
    dry_run: DryRun = False,
) -> None:
    """Send a model folder to the Hugging Face Hub, in one commit."""
    from twincar.modeling import sharing

    with sentences():
        if dry_run:
            files = sharing.parcel(folder, repo)
            _show(f"Would go to {repo}", {path: sharing.size(content) for path, content in files.items()})
            for line in sharing.results(files["README.md"].decode()):
                out.print(f"  {line}", highlight=False)
            return
        commit = sharing.push(folder, repo, private=private, revision=revision, message=message)
        out.print(f"Published as {repo}@{commit}", highlight=False, soft_wrap=True)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="user/repo, or user/repo@revision: a branch, a tag or a commit.")],
    out_folder: Annotated[Path | None, typer.Option("--out", help="The model folder  [default: models/<repo>]")] = None,
) -> None:
    """Fetch a model from the Hugging Face Hub into a folder."""
    from twincar.modeling import sharing

    with sentences():
        out.print(f"{name} lies in {sharing.pull(name, out_folder)}.", highlight=False, soft_wrap=True)


@app.command()
def space(
    name: Annotated[str, typer.Argument(metavar="SPACE", help="Its name on the Hub: user/space.")],
    model: Annotated[
        str | None, typer.Option(help="Answer with this Hub model, pinned to a commit  [default: models/twincar]")
    ] = None,
    private: Private = False,
    message: Message = None,
    dry_run: DryRun = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="With --dry-run: also write the Space's folder here.")
    ] = None,
) -> None:
    """Create or update a Hugging Face Space that serves the page, in one commit."""
    from twincar import space as spaces
    from twincar.modeling import sharing

    with sentences():
        if dry_run:
            files = spaces.parcel(name, model and spaces.pin(model))
            _show(f"Would go to {name}", {path: sharing.size(content) for path, content in files.items()})
            if out_folder:
                out.print(f"It lies in {spaces.write(files, out_folder)}.", highlight=False, soft_wrap=True)
            return
        commit = spaces.publish(name, model=model, private=private, message=message)
        out.print(f"Published as https://huggingface.co/spaces/{name} ({commit})", highlight=False, soft_wrap=True)


def _show(title: str, sizes: dict[str, int]) -> None:
    table = Table(title=title, show_footer=True, title_justify="left")
    table.add_column("file", f"{len(sizes)} files")
    table.add_column("bytes", f"{sum(sizes.values()):,}", justify="right")
    for path, size in sizes.items():
        table.add_row(path, f"{size:,}")
    out.print(table)
