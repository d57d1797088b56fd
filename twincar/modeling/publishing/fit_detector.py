"""Fit the car detector of a published model: a few layers on the network's features.

    twincar fit-detector --model models/twincar --data data/ --not-cars photos/

The network itself is not trained. The detector is fitted on copy-paste scenes of none to several cars, training
pictures pasted onto photos without cars. Every fourth of these photos is held out: on them the threshold is set, and
the detector is evaluated, also on scenes of validation pictures.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from twincar.features.backgrounds import load_backgrounds
from twincar.features.transforms import squash
from twincar.modeling.detection import detector as detection
from twincar.modeling.detection.boxes import iou
from twincar.modeling.detection.detector import Detection, Detector, find_boxes
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.publishing.scenes import make_car_scenes, read_levels, train_and_val

VAL_SCENES = 0.125  # validation scenes per training scene
FOUND = 0.5  # IoU above which a car counts as found
HELD_OUT = 4  # every fourth photo without cars is held out from the fit
CORNER = 0.75  # sides of the four corners of a photo that are read beside the whole photo, as a fraction of its sides
FALSE_ALARMS = 0.03  # fraction of the held-out pictures without cars in which the detector may find one


def fit_detector(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    scenes: int = 2400,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Detector, dict]:
    """Fit a detector for the predictor's network, and evaluate it.

    Args:
        predictor: A published model.
        table: A prepared table with train and val pictures.
        not_cars: A folder of photos without cars.
        scenes: Number of training scenes.
        seed: Random seed.
        progress: Whether to show progress bars.

    Returns:
        The detector, and its scores on held-out pictures: those of `evaluate_detector`, and `false_alarms`, the
        fraction of pictures without cars in which it finds one.

    Raises:
        TwinCarError: There are too few photos without cars, or no train or val pictures.
    """
    backgrounds = load_backgrounds(not_cars)
    held_out, kept = backgrounds[HELD_OUT - 1 :: HELD_OUT], backgrounds.copy()
    del kept[HELD_OUT - 1 :: HELD_OUT]
    train, val = train_and_val(table)
    pictures, boxes = zip(*make_car_scenes(train, kept, predictor.size, scenes, seed, progress), strict=True)
    detector = detection.fit(read_levels(predictor, pictures, progress), boxes, seed=seed, progress=progress)

    empty = [squash(part, predictor.size) for photo in held_out for part in _parts(photo)]
    scores = _detect(detector, read_levels(predictor, empty))[:, 0].flatten(1).amax(1)
    detector.threshold.fill_(float(scores.quantile(1 - FALSE_ALARMS)))
    count = max(round(VAL_SCENES * scenes), 1)
    pictures, boxes = zip(*make_car_scenes(val, held_out, predictor.size, count, seed + 1), strict=True)
    cells = _detect(detector, read_levels(predictor, pictures))
    found = [find_boxes(each.numpy(), float(detector.threshold)) for each in cells]
    return detector, {
        "not_cars": len(backgrounds),
        "held_out": len(held_out),
        "scenes": scenes,
        "val_scenes": count,
        **evaluate_detector(found, boxes),
        "threshold": round(float(detector.threshold), 4),
        "false_alarms": round(float((scores >= detector.threshold).float().mean()), 4),
    }


def evaluate_detector(found: Sequence[Sequence[Detection]], boxes: Sequence[np.ndarray]) -> dict[str, float]:
    """Compare the cars found in N pictures with the true boxes, (n, 4) of each picture.

    Returns:
        `cars`, their number; `found`, the fraction of them of which a box has an IoU above 0.5; `mean_iou`, the mean of
        the largest IoU of each; `wrong`, the fraction of found boxes that have no IoU above 0.5 with any car.
    """
    overlaps = [
        np.array([[iou(other.box, tuple(box)) for other in each] for box in truth]).reshape(len(truth), len(each))
        for each, truth in zip(found, boxes, strict=True)
    ]
    best = np.concatenate([table.max(1, initial=0) for table in overlaps])
    right = np.concatenate([table.max(0, initial=0) for table in overlaps])
    return {
        "cars": len(best),
        "found": round(float((best > FOUND).mean()), 4),
        "mean_iou": round(float(best.mean()), 4),
        "wrong": round(float((right <= FOUND).mean()), 4) if len(right) else 0.0,
    }


def _parts(photo: np.ndarray) -> list[Image.Image]:
    """A photo, and its four corners."""
    image = Image.fromarray(photo)
    width, height = round(CORNER * image.width), round(CORNER * image.height)
    starts = [(x, y) for x in (0, image.width - width) for y in (0, image.height - height)]
    return [image, *(image.crop((x, y, x + width, y + height)) for x, y in starts)]


def _detect(detector: Detector, levels: tuple[Tensor, Tensor], batch_size: int = 32) -> Tensor:
    """(N, 5, h, w) detections."""
    parts = zip(*(level.split(batch_size) for level in levels), strict=True)
    return torch.cat([detector(*(part.float() for part in each)) for each in parts])
