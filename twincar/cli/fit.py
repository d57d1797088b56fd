"""Commands that add to a published model without training its backbone: fit-head, fit-detector, fit-open-set."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from twincar.cli.base import Data, app, echo, out, show_scores, user_errors
from twincar.config import PUBLISHED

Published = Annotated[Path, typer.Option("--model", help="Model folder; the result is written into it.")]
NotCars = Annotated[Path, typer.Option(help="Folder of 20 or more photos without cars.")]
Scenes = Annotated[int, typer.Option(min=20, help="Number of training scenes: cars pasted onto those photos.")]


@app.command("fit-head")
def fit_head(model: Published = PUBLISHED, data: Data = Path("data")) -> None:
    """Compute what `add-classes` needs, and a last layer in closed form if it is better. Run it before the others."""
    from twincar.data.table import load_table
    from twincar.modeling.hub import model_folder
    from twincar.modeling.publishing.fit_head import fit_head
    from twincar.modeling.publishing.publish import evaluation_command

    with user_errors():
        published = model_folder.load(model)
        had_open_set = published.open_set is not None
        result, figures = fit_head(published, load_table(data), command=evaluation_command(model))
        model_folder.save(published.cpu(), model)
        if result is not None:
            show_scores(result)
        echo(
            f"Top-1 on the val pictures: {figures['top1_before']:.2%} with the trained head, {figures['top1']:.2%} in "
            f"closed form. The {'head in closed form' if result else 'trained head'} is in {model}, with the class "
            "statistics that `add-classes` needs."
        )
        if result is not None and had_open_set:
            echo("Open-set data and 8-bit ranges belonged to the old head: run `fit-open-set` and `quantize` again.")


@app.command("fit-detector")
def fit_detector(
    not_cars: NotCars,
    model: Published = PUBLISHED,
    data: Data = Path("data"),
    scenes: Scenes = 5600,
) -> None:
    """Fit the detector, which finds the cars in a photo. Predictions for cropped pictures do not change."""
    from twincar.data.table import load_table
    from twincar.modeling.hub import model_folder
    from twincar.modeling.inference.predictor import Predictor
    from twincar.modeling.publishing.fit_detector import fit_detector

    with user_errors():
        published = model_folder.load(model)
        published.detector, figures = fit_detector(Predictor(published), load_table(data), not_cars, scenes=scenes)
        published.config["detector"] = figures
        model_folder.save(published.cpu(), model)
        echo(
            f"{figures['found']:.1%} of {figures['cars']} cars in {figures['val_scenes']} scenes of val pictures were "
            f"detected, with a mean IoU of {figures['mean_iou']:.3f}, and one in {figures['false_alarms']:.1%} of the "
            f"held-out pictures without cars. The detector is in {model}."
        )


@app.command("fit-open-set")
def fit_open_set(
    not_cars: NotCars,
    model: Published = PUBLISHED,
    data: Data = Path("data"),
) -> None:
    """Fit the rejection of photos without a car and of unknown classes. Probabilities do not change."""
    from twincar.data.table import load_table
    from twincar.modeling.hub import model_folder
    from twincar.modeling.inference.predictor import Predictor
    from twincar.modeling.publishing.fit_open_set import fit_open_set

    with user_errors():
        published = model_folder.load(model)
        published.open_set, figures = fit_open_set(Predictor(published), load_table(data), not_cars)
        published.config["open_set"] = figures
        model_folder.save(published.cpu(), model)
        for title, rows in (("Not a car", figures["not_a_car"]), ("Unknown class", figures["left_out_class"])):
            table = Table(title=title)
            for heading in ("score", "AUROC", "false positives at 95 % true positives"):
                table.add_column(heading)
            for row in rows:
                table.add_row(row["score"], f"{row['auroc']:.4f}", f"{row['fpr95']:.1%}")
            out.print(table)
        echo(
            f"Fitted with {figures['not_cars']} photos without cars: {figures['not_cars_accepted']:.1%} of them count "
            f"as photos of a car, {figures['cars_rejected']:.1%} of the val pictures do not. "
            f"The open-set data is in {model}."
        )
