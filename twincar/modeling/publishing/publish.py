"""Publish a training run as a model folder, and evaluate it on the validation pictures.

On the command line: `twincar publish runs/flagship --data data/ --out models/twincar`.
"""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from twincar.config import STANFORD_CARS, TwinCarError
from twincar.data.table import class_names
from twincar.modeling.evaluation.evaluate import Evaluation, evaluate
from twincar.modeling.hub import model_folder
from twincar.modeling.inference import calibration
from twincar.modeling.inference.predictor import REFERENCE, Predictor
from twincar.modeling.networks import weights
from twincar.modeling.publishing.quantize import quantize
from twincar.modeling.training.recipes import Recipe, ancestors
from twincar.text import count

PQF = (
    "This model is a derivative, changed by training on {date}, of the product-quantized ResNet50 of "
    "[Permute, Quantize, and Fine-tune](https://github.com/uber-research/permute-quantize-finetune) "
    "(Martinez et al., CVPR 2021). That work is available under its own non-commercial licence, whose text is in the "
    "file LICENSE of this folder and applies to this model as well."
)
MONITORS = {"val_f1_macro": "macro F1", "val_loss": "loss"}
LAST_EPOCH = (  # no epoch was selected, but the size was
    "The last epoch was published; the size at which its recipe reads pictures was chosen on the val pictures of "
    "Stanford Cars, on which the scores are therefore slightly optimistic"
)
STANFORD = "Stanford Cars (Krause et al., 2013) is provided for non-commercial research use."


def publish(
    run: Path,
    table: pd.DataFrame,
    out: Path,
    *,
    name: str = "TwinCar",
    size: int | None = None,
    flip: bool | None = None,
    progress: bool = True,
) -> Evaluation:
    """Write the best epoch of a training run into a model folder, with its validation scores and model card.

    The model also gets activation ranges for 8-bit inference, unless they cost too much accuracy (see `quantize.py`).

    Args:
        run: Folder of the training run.
        table: The prepared table that the run was trained on.
        out: The model folder; it is created, or its files are replaced.
        name: Name of the model.
        size: Side of the network's input in pixels; by default the recipe's at the best epoch.
        flip: Whether to average the logits with those of the mirror image; by default as in the recipe.
        progress: Whether to show progress bars.

    Returns:
        The evaluation on the validation pictures.

    Raises:
        TwinCarError: The run has no finished epoch, or the table lacks its classes or has no val pictures.
    """
    run, out = Path(run), Path(out)
    best = run / "checkpoints" / "best.ckpt"
    if not best.is_file():
        raise TwinCarError(f"{run} has no checkpoints/best.ckpt: train at least one epoch first.")
    recipe, facts = (json.loads((run / file).read_text()) for file in ("recipe.json", "run.json"))
    epoch = torch.load(best, "cpu", weights_only=True, mmap=True)["epoch"]
    log = pd.read_csv(run / "metrics.csv")
    names = class_names(table)

    config = {
        "name": name,
        "architecture": Recipe(**recipe).network(),
        "class_names": list(names),
        "input": {
            "size": size or Recipe(**recipe).eval_size_at(epoch),
            "flip": recipe["eval_flip"] if flip is None else flip,
            "resize": "squash, bicubic with antialiasing",
        },
        "recipe": recipe,
        "training": _training(recipe, facts, log, names),
    }
    imagenet = [facts, *ancestors(facts)][-1].get("init", "")
    notices = [PQF.format(date=facts["date"])] if imagenet.startswith("resnet50_imagenet_pqf") else []
    if tuple(names) == STANFORD_CARS:
        notices.append(STANFORD)
        config["training"] |= {"dataset": "Stanford Cars", "dataset_repo": "tanganke/stanford_cars"}
    if notices:
        config |= {"notice": " ".join(notices), "license_name": "non-commercial"}

    model = model_folder.CarModel(config)
    config["input"] |= {"mean": list(model.network.mean), "std": list(model.network.std)}
    model_folder.checkpoint_network(best, model.network)
    weights.to_half(model.network)  # the file holds half precision, so measure that
    result = evaluate(Predictor(model, engine=REFERENCE), table, "val", progress=progress)
    fitted = calibration.fit(torch.from_numpy(result.logits), result.labels)
    if type(model.network.fc) is nn.Linear:
        # timm and transformers know no temperature: it becomes part of the weights, which scale all logits.
        for parameter in model.network.fc.parameters():
            parameter.data /= fitted.temperature
        weights.to_half(model.network)
        fitted = replace(fitted, temperature=1.0)
        result = evaluate(Predictor(model, engine=REFERENCE), table, "val", progress=progress)
    set_scores(config, result, evaluation_command(out), fitted)
    try:
        quantize(model, table, result, progress)
    except TwinCarError as error:
        logging.getLogger(__name__).warning("The model is published without 8-bit ranges. %s", error)
    model_folder.save(model, out)
    if (run / "LICENSE").is_file():
        shutil.copyfile(run / "LICENSE", out / "LICENSE")
    return result


def set_scores(config: dict, result: Evaluation, command: str, fitted: calibration.Calibration | None = None) -> None:
    """Set the calibration and the scores of a model's config.

    Args:
        config: The config; its recipe says what selected the epoch.
        result: Evaluation on the val pictures.
        command: What evaluates the model.
        fitted: The calibration; by default it is fitted on the logits of `result`.
    """
    fitted = fitted or calibration.fit(torch.from_numpy(result.logits), result.labels)
    config["calibration"] = {key: float(f"{value:.4g}") for key, value in fitted.as_dict().items()}
    monitor = config.get("recipe", {}).get("monitor", "macro F1")
    selected = (
        f"The epoch was selected by its {MONITORS.get(monitor, monitor)} on these same pictures, so the scores are "
        "slightly optimistic"
    )
    config["scores"] = {
        **result.scores,
        "command": command,
        "remark": (
            f"{LAST_EPOCH if monitor == 'epoch' else selected}; the official test pictures were used for neither "
            "training nor selection."
        ),
    }


def evaluation_command(folder: Path) -> str:
    """The command that evaluates a model folder on the val pictures, without local paths."""
    return f"twincar evaluate --model {_relative(folder)} --data data --split val"


def _relative(folder: Path) -> str:
    """Path relative to the working folder, or the bare name outside of it, so that cards show no local paths."""
    folder = folder.resolve()
    return (folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else Path(folder.name)).as_posix()


def _training(recipe: dict, facts: dict, log: pd.DataFrame, names: tuple[str, ...]) -> dict:
    pictures = facts["pictures"]["train"]
    hours = float(log["epoch_seconds"].sum() / 3600)
    sides = sorted({int(side) for side in log["image_size"]})
    size_range = " to ".join(str(side) for side in sorted({sides[0], sides[-1]}))
    how = (
        f"Recipe `{recipe['name']}`: {len(log)} epochs on {pictures:,} training pictures of {len(names)} classes "
        f"({len(log) * pictures:,} samples in total) at {size_range} pixels, "
        f"{hours:.1f} hours on {facts['hardware']} in {facts['precision']}."
    )
    start = {"none": "It was initialized at random."}.get(
        facts["init"], f"It was initialized with the ImageNet weights `{facts['init']}`."
    )
    if earlier := ancestors(facts):
        stages = ", after ".join(f"{count(each['epochs'], 'epoch')} of recipe `{each['recipe']}`" for each in earlier)
        start = (
            f"It was initialized with the weights of {earlier[0]['name']} after {stages}, from `{earlier[-1]['init']}`."
        )
    held_out = facts["pictures"].get("holdout", 0)
    return {
        "how": how,
        "start": start,
        "left_out": f"{held_out} pictures were held out from training." if held_out else "",
        "epochs": len(log),
        "hours": round(hours, 2),
        **({"parent": facts["parent"]} if "parent" in facts else {}),
        **{key: facts[key] for key in ("init", "seed", "pictures", "hardware", "precision", "torch", "date")},
    }
