"""Commands that create a model: train, publish, quantize."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from twincar.cli.base import Data, app, echo, err, out, show_scores, user_errors
from twincar.config import PUBLISHED
from twincar.modeling.training.recipes import RECIPES

RecipeName = StrEnum("RecipeName", {name: name for name in RECIPES})


@app.command()
def train(
    recipe: Annotated[RecipeName, typer.Option(help="Which recipe.")] = RecipeName.twincar,
    data: Data = Path("data"),
    init: Annotated[str, typer.Option(help="Start weights: imagenet (downloaded), a file, or none.")] = "imagenet",
    out_folder: Annotated[Path | None, typer.Option("--out", help="The run's folder  [default: runs/RECIPE]")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on after the last whole epoch of the run in this folder, or refuse the folder.")
    ] = True,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Picture size throughout, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    backbone: Annotated[str | None, typer.Option(help="A backbone of timm, such as vit_small_patch16_224.")] = None,
    attention_heads: Annotated[int | None, typer.Option(min=1, help="Of the bilinear network's attention.")] = None,
    margin: Annotated[
        float | None, typer.Option(min=0.0, max=1.5, help="Train a cosine head with this angular margin (ArcFace).")
    ] = None,
    seed: int = 42,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many devices of a host, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option(min=1, help="How many hosts.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="Lightning's word, such as bf16-mixed  [default: what suits]")
    ] = None,
) -> None:
    """Train a recipe and publish the best epoch into OUT/model."""
    from twincar.data.table import load_table
    from twincar.modeling.publishing import publish as publishing
    from twincar.modeling.training import run_folder
    from twincar.modeling.training import train as training

    chosen = RECIPES[recipe.value]
    changes = {"epochs": epochs, "batch_size": batch_size, "attention_heads": attention_heads, "margin": margin}
    changes |= {"architecture": f"timm/{backbone}"} if backbone else {}
    changes |= {"head": "cosine"} if margin else {}
    changes |= {"sizes": ((0.0, size),), "eval_size": size} if size else {}
    chosen = replace(chosen, **{key: value for key, value in changes.items() if value})
    run = out_folder or Path("runs") / chosen.name
    with user_errors():
        table = load_table(data)
        training.train(
            chosen,
            table,
            run,
            init=init,
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
        if training.is_first_process():
            with run_folder.lock_run(run):
                show_scores(publishing.publish(run, table, run / "model"))
            out.print(f"Published in {run / 'model'}.", highlight=False)


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A folder that `twincar train` wrote.")],
    data: Data = Path("data"),
    out_folder: Annotated[Path, typer.Option("--out", help="The model folder.")] = PUBLISHED,
    name: Annotated[str, typer.Option(help="What the model card calls it.")] = "TwinCar",
    size: Annotated[int | None, typer.Option(help="Side at which photos are read  [default: the recipe's]")] = None,
    flip: Annotated[bool | None, typer.Option(help="Read the mirror image too  [default: the recipe's]")] = None,
) -> None:
    """Measure the best epoch of a run on the val pictures and write its model folder."""
    from twincar.data.table import load_table
    from twincar.modeling.publishing import publish as publishing

    with user_errors():
        show_scores(publishing.publish(run, load_table(data), out_folder, name=name, size=size, flip=flip))
        out.print(f"Published in {out_folder}.", highlight=False)


@app.command()
def quantize(
    model: Annotated[Path, typer.Option(help="A published model's folder; the ranges are put into it.")] = PUBLISHED,
    data: Data = Path("data"),
) -> None:
    """Measure in what ranges a published model's network can be computed in 8 bits, and what that costs. `publish` does
    so by itself."""
    from twincar.data.table import load_table
    from twincar.modeling.hub import model_folder
    from twincar.modeling.publishing import quantize as quantising

    with user_errors():
        published = model_folder.load(model)
        found = quantising.quantize(published, load_table(data))
        model_folder.save(published, model)
        echo(
            f"In 8 bits top-1 is {found['top1']:.2%} on {found['pictures']} val pictures, {found['top1_before']:.2%} "
            f"before, and {found['same']:.2%} of the best classes are the same; the ranges are kept in {model}."
        )
