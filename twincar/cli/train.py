"""Commands that create a model: train, publish, quantize."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from twincar.cli.base import Data, app, echo, err, out, show_scores, user_errors
from twincar.config import PUBLISHED
from twincar.modeling.training.recipes import RECIPES

RecipeName = StrEnum("RecipeName", {name: name for name in RECIPES})  # type: ignore[misc]  # needs literals
DEFAULT = RecipeName("twincar")


@app.command()
def train(
    recipe: Annotated[RecipeName, typer.Option(help="Recipe to train.")] = DEFAULT,
    data: Data = Path("data"),
    init: Annotated[
        str, typer.Option(help="Initial weights: imagenet (downloaded), a file, a model folder, or none.")
    ] = "imagenet",
    not_cars: Annotated[
        Path | None, typer.Option(help="Folder of photos without cars, for recipes that paste cars onto them.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            help="Resume a run in this folder after its last complete epoch; with --no-resume that is an error."
        ),
    ] = True,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs.", show_default="the recipe's")] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Image size in all epochs.", show_default="the recipe's")
    ] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Smaller pictures for 70 % of the epochs: three fifths of the time.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Batch size.", show_default="the recipe's")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="timm backbone, such as vit_small_patch16_224.", show_default="the recipe's")
    ] = None,
    attention_heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads of the bilinear network.", show_default="the recipe's")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.5, help="Train a cosine head with this angular margin in radians (ArcFace)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 42,
    workers: Annotated[int, typer.Option(min=0, help="Number of data loading processes.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
    devices: Annotated[str, typer.Option(help="Devices per host, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option(min=1, help="Number of hosts.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="Lightning precision, such as bf16-mixed.", show_default="by hardware")
    ] = None,
) -> None:
    """Train a recipe and publish its best epoch into OUT/model."""
    from twincar.data.table import load_table
    from twincar.modeling.publishing import publish as publishing
    from twincar.modeling.training import run_folder
    from twincar.modeling.training import train as training

    chosen = RECIPES[recipe.value]
    changes: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "attention_heads": attention_heads,
        "margin": margin,
    }
    changes |= {"architecture": f"timm/{backbone}"} if backbone else {}
    changes |= {"head": "cosine"} if margin else {}
    changes |= {"sizes": ((0.0, size),), "eval_size": size} if size else {}
    chosen = replace(chosen, **{key: value for key, value in changes.items() if value})
    run = out_folder or Path("runs") / chosen.name
    with user_errors():
        chosen = chosen.progressive() if progressive else chosen
        table = load_table(data)
        training.train(
            chosen,
            table,
            run,
            init=init,
            not_cars=not_cars,
            resume=resume,
            seed=seed,
            workers=workers,
            cache=data / "cache",
            accelerator=accelerator,
            devices=int(devices) if devices.isdigit() else devices,
            nodes=nodes,
            precision=precision,
            progress=err.is_terminal,
        )
        if run_folder.is_first_process():
            with run_folder.lock_run(run):
                show_scores(publishing.publish(run, table, run / "model"))
            out.print(f"Published in {run / 'model'}.", highlight=False)


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Folder that `twincar train` wrote.")],
    data: Data = Path("data"),
    out_folder: Annotated[Path, typer.Option("--out", help="Model folder to write.")] = PUBLISHED,
    name: Annotated[str, typer.Option(help="Name of the model, for its card.")] = "TwinCar",
    size: Annotated[int | None, typer.Option(help="Image size at inference.", show_default="the recipe's")] = None,
    flip: Annotated[
        bool | None, typer.Option(help="Also process the mirror image.", show_default="the recipe's")
    ] = None,
) -> None:
    """Evaluate the best epoch of a run on the val pictures and write its model folder."""
    from twincar.data.table import load_table
    from twincar.modeling.publishing import publish as publishing

    with user_errors():
        show_scores(publishing.publish(run, load_table(data), out_folder, name=name, size=size, flip=flip))
        out.print(f"Published in {out_folder}.", highlight=False)


@app.command()
def quantize(
    model: Annotated[Path, typer.Option(help="Model folder; the ranges are written into it.")] = PUBLISHED,
    data: Data = Path("data"),
) -> None:
    """Measure a model's activation ranges for 8-bit inference and its accuracy in 8 bits, as `publish` does."""
    from twincar.data.table import load_table
    from twincar.modeling.hub import model_folder
    from twincar.modeling.publishing import quantize as quantizing

    with user_errors():
        published = model_folder.load(model)
        found = quantizing.quantize(published, load_table(data))
        model_folder.save(published, model)
        echo(
            f"Top-1 accuracy on {found['pictures']} val pictures: {found['top1']:.2%} in 8 bits, "
            f"{found['top1_before']:.2%} before; {found['same']:.2%} of the top classes are the same. "
            f"The ranges are in {model}."
        )
