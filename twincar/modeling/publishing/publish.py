"""A training run -> a published model folder, measured on the way.

twincar publish runs/flagship --data data/ --out models/twincar
"""

import json
import logging
import shutil
from pathlib import Path

import pandas as pd
import torch

from twincar.config import STANFORD_CARS, TwinCarError
from twincar.data.table import class_names
from twincar.modeling.evaluation.evaluate import Evaluation, evaluate
from twincar.modeling.hub import model_folder
from twincar.modeling.inference import calibration
from twincar.modeling.inference.predictor import REFERENCE, Predictor
from twincar.modeling.networks import weights
from twincar.modeling.publishing.quantize import quantize
from twincar.modeling.training.recipes import Recipe

PQF = (
    "This model is a derivative, changed by training on {date}, of the product-quantised ResNet50 of "
    "[Permute, Quantize, and Fine-tune](https://github.com/uber-research/permute-quantize-finetune) "
    "(Martinez et al., CVPR 2021). That work is available under its own non-commercial licence, whose text is the file "
    "LICENSE beside the model and holds for this model as well."
)
MONITORS = {"val_f1_macro": "macro F1", "val_loss": "loss"}
STANFORD = "Stanford Cars (Krause et al., 2013) is given for non-commercial research use."


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
    """Put the best epoch of the training run `run` into the model folder `out`, with its val scores and model card, and
    with ranges for 8 bits where these cost next to nothing (`quantise.py`).

    size, flip : how the model reads photos, in pixels and with the mirror image; by default as the recipe says.
    Raises TwinCarError when the folder holds no finished epoch, or the table lacks its classes.
    """
    run, out = Path(run), Path(out)
    best = run / "checkpoints" / "best.ckpt"
    if not best.is_file():
        raise TwinCarError(f"{run} holds no checkpoints/best.ckpt: train at least one epoch into it first.")
    recipe, facts = (json.loads((run / file).read_text()) for file in ("recipe.json", "run.json"))
    log = pd.read_csv(run / "metrics.csv")
    names = class_names(table)

    config = {
        "name": name,
        "architecture": Recipe(**recipe).network(),
        "class_names": list(names),
        "input": {
            "size": size or recipe["eval_size"],
            "flip": recipe["eval_flip"] if flip is None else flip,
            "resize": "squash, bicubic with antialiasing",
        },
        "recipe": recipe,
        "training": _training(recipe, facts, log, names),
    }
    notices = [PQF.format(date=facts["date"])] if facts["init"].startswith("resnet50_imagenet_pqf") else []
    if tuple(names) == STANFORD_CARS:
        notices.append(STANFORD)
        config["training"] |= {"dataset": "Stanford Cars", "dataset_repo": "tanganke/stanford_cars"}
    if notices:
        config |= {"notice": " ".join(notices), "license_name": "non-commercial"}

    model = model_folder.CarModel(config)
    config["input"] |= {"mean": list(model.network.mean), "std": list(model.network.std)}
    model_folder.checkpoint_network(best, model.network)
    weights.to_half(model.network)  # measured as it will be read: the file holds half precision
    result = evaluate(Predictor(model, engine=REFERENCE), table, "val", progress=progress)
    fitted = calibration.fit(torch.from_numpy(result.logits), result.labels)
    config["calibration"] = {key: round(value, 4) for key, value in fitted.as_dict().items()}
    config["scores"] = {
        **result.scores,
        "command": f"twincar evaluate --model {_from_here(out)} --data data --split val",
        "remark": (
            f"The epoch was chosen by its {MONITORS.get(recipe['monitor'], recipe['monitor'])} on these same pictures, "
            "so the figures are a little kind; the official test pictures were not used at all."
        ),
    }
    try:
        quantize(model, table, result, progress)
    except TwinCarError as error:
        logging.getLogger(__name__).warning("It will not be computed in 8 bits. %s", error)
    model_folder.save(model, out)
    if (run / "LICENSE").is_file():
        shutil.copyfile(run / "LICENSE", out / "LICENSE")
    return result


def _from_here(folder: Path) -> str:
    """As a reader of the card would name it: below the working folder, or by its name; no path of this machine."""
    folder = folder.resolve()
    return (folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else Path(folder.name)).as_posix()


def _training(recipe: dict, facts: dict, log: pd.DataFrame, names: tuple[str, ...]) -> dict:
    pictures = facts["pictures"]["train"]
    hours = float(log["epoch_seconds"].sum() / 3600)
    sides = sorted({int(side) for side in log["image_size"]})
    size_words = " to ".join(str(side) for side in sorted({sides[0], sides[-1]}))
    how = (
        f"Recipe `{recipe['name']}`: {len(log)} epochs over {pictures:,} training pictures of {len(names)} classes "
        f"({len(log) * pictures:,} pictures seen) at {size_words} pixels, "
        f"{hours:.1f} hours on {facts['hardware']} in {facts['precision']}."
    )
    start = {"none": "It started from random weights."}.get(
        facts["init"], f"It started from the ImageNet weights `{facts['init']}`."
    )
    held_out = facts["pictures"].get("holdout", 0)
    return {
        "how": how,
        "start": start,
        "left_out": f"{held_out} pictures were held out of training." if held_out else "",
        "epochs": len(log),
        "hours": round(hours, 2),
        **{key: facts[key] for key in ("init", "seed", "pictures", "hardware", "precision", "torch", "date")},
    }
