"""Verbs that make a model and measure it: train, publish, evaluate, report."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from twincar.cli.base import Data, Model, app, err, out, say, sentences
from twincar.config import PUBLISHED, TwinCarError
from twincar.modeling.recipes import RECIPES

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
    from twincar.dataset import load_table
    from twincar.modeling import publish as publishing
    from twincar.modeling import run_folder
    from twincar.modeling import train as training

    chosen = RECIPES[recipe.value]
    changes = {"epochs": epochs, "batch_size": batch_size, "attention_heads": attention_heads, "margin": margin}
    changes |= {"architecture": f"timm/{backbone}"} if backbone else {}
    changes |= {"head": "cosine"} if margin else {}
    changes |= {"sizes": ((0.0, size),), "eval_size": size} if size else {}
    chosen = replace(chosen, **{key: value for key, value in changes.items() if value})
    run = out_folder or Path("runs") / chosen.name
    with sentences():
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
            with run_folder.held(run):
                _show(publishing.publish(run, table, run / "model"))
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
    from twincar.dataset import load_table
    from twincar.modeling import publish as publishing

    with sentences():
        _show(publishing.publish(run, load_table(data), out_folder, name=name, size=size, flip=flip))
        out.print(f"Published in {out_folder}.", highlight=False)


@app.command()
def learn(
    not_cars: Annotated[Path, typer.Option(help="A folder of photos with no car in them, 20 or more.")],
    model: Annotated[Path, typer.Option(help="A published model's folder; the knowledge is put into it.")] = PUBLISHED,
    data: Data = Path("data"),
    composed: Annotated[int, typer.Option(min=20, help="Pictures to make of cars on those photos.")] = 2400,
) -> None:
    """Teach a published model to find the car, and to say when there is none or none that it knows. Its answers to
    pictures cut to their cars stay as they are."""
    from twincar.dataset import load_table
    from twincar.modeling import hub
    from twincar.modeling import learn as learning
    from twincar.modeling.predict import Predictor

    with sentences():
        published = hub.load(model)
        published.knowledge, figures = learning.learn(
            Predictor(published), load_table(data), not_cars, composed=composed
        )
        published.config["knowledge"] = figures
        hub.save(published.cpu(), model)
        for title, rows in (("Not a car", figures["not_a_car"]), ("Not a car it knows", figures["left_out_class"])):
            table = Table(title=title)
            for heading in ("score", "AUROC", "false positives at 95 %"):
                table.add_column(heading)
            for row in rows:
                table.add_row(row["score"], f"{row['auroc']:.4f}", f"{row['fpr95']:.1%}")
            out.print(table)
        say(f"Learnt from {figures['not_cars']} photos without a car; kept in {model}.")


@app.command()
def quantise(
    model: Annotated[Path, typer.Option(help="A published model's folder; the ranges are put into it.")] = PUBLISHED,
    data: Data = Path("data"),
) -> None:
    """Measure in what ranges a published model's network can be computed in 8 bits, and what that costs. `publish` does
    so by itself."""
    from twincar.dataset import load_table
    from twincar.modeling import hub
    from twincar.modeling import quantise as quantising

    with sentences():
        published = hub.load(model)
        found = quantising.quantise(published, load_table(data))
        hub.save(published, model)
        say(
            f"In 8 bits top-1 is {found['top1']:.2%} on {found['pictures']} val pictures, {found['top1_before']:.2%} "
            f"before, and {found['same']:.2%} of the best classes are the same; the ranges are kept in {model}."
        )


@app.command()
def evaluate(
    model: Model = str(PUBLISHED),
    data: Data = Path("data"),
    split: Annotated[str, typer.Option(help="train, val, test or holdout.")] = "val",
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Also write scores.json, predictions.csv and per_class.csv there.")
    ] = None,
) -> None:
    """Score a published model on a split, with 95 % bootstrap intervals."""
    from twincar.dataset import load_table
    from twincar.modeling import evaluate as evaluation
    from twincar.modeling.predict import REFERENCE, Predictor

    with sentences():
        table = load_table(data)
        result = evaluation.evaluate(Predictor.from_pretrained(model, engine=REFERENCE), table, split)
        if out_folder:
            result.save(out_folder)
        _show(result)


@app.command()
def compare(
    reports: Annotated[Path, typer.Option(help="The folder with a folder for each recipe.")] = Path("reports"),
) -> None:
    """Put the measured recipes beside each other: REPORTS/recipes.csv, and the table of the README."""
    from twincar import comparison

    with sentences():
        print(comparison.as_markdown(comparison.write(reports)), end="")


@app.command()
def report(
    model: Model = str(PUBLISHED),
    data: Data = Path("data"),
    out_folder: Annotated[Path, typer.Option("--out", help="Gets a folder named like the recipe.")] = Path("reports"),
    run: Annotated[Path | None, typer.Option(help="The run whose training log belongs to the model.")] = None,
    split: Annotated[str, typer.Option(help="train, val, test or holdout.")] = "val",
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Only draw again what the tables in OUT give; no model, no data.")
    ] = False,
) -> None:
    """Measure a published model and write every table and figure about it, and a page that shows them; then what lies
    beside: the recipes' comparison and the data's statistics."""
    from twincar import report as reporting

    with sentences():
        if redraw:
            folders = sorted(path.parent for path in out_folder.glob("*/per_class.csv"))
            if not folders:
                raise TwinCarError(f"{out_folder} holds no folder with the tables of a report: leave out `--redraw`.")
            for folder in folders:
                figures = reporting.redraw(folder)
                say(f"{len(figures)} figures drawn in {folder}.")
            return
        from twincar.dataset import load_table
        from twincar.modeling.predict import REFERENCE, Predictor

        table = load_table(data)
        predictor = Predictor.from_pretrained(model, engine=REFERENCE)
        folder = out_folder / reporting.folder_name(predictor.config)
        _show(reporting.report(predictor, table, folder, run=run, split=split))
        reporting.report_around(out_folder, table)
        say(f"Written to {folder}.")


def _show(result) -> None:
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
