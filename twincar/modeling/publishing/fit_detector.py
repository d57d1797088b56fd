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
THRESHOLDS = np.arange(0.1, 0.9, 0.02)  # of the score
BETA = 1.5  # of the F-score that chooses one: `decide` rejects many wrong boxes, but finds no missed car


def fit_detector(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    scenes: int = 5600,
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
    count = max(round(VAL_SCENES * scenes), 1)
    made = make_car_scenes(val, held_out, predictor.size, count, seed + 1)
    cells = _detect(detector, read_levels(predictor, [*(picture for picture, _ in made), *empty], progress))
    boxes = [*(truth for _, truth in made), *(np.zeros((0, 4)) for _ in empty)]
    possible = [find_boxes(each.numpy(), float(THRESHOLDS[0])) for each in cells]
    threshold = choose_threshold(possible, boxes)
    detector.threshold.fill_(threshold)
    found = _above(threshold, possible)
    return detector, {
        "not_cars": len(backgrounds),
        "held_out": len(held_out),
        "scenes": scenes,
        "val_scenes": count,
        **evaluate_detector(found, boxes),
        "threshold": threshold,
        "false_alarms": round(float(np.mean([bool(each) for each in found[count:]])), 4),
    }


def choose_threshold(possible: Sequence[Sequence[Detection]], boxes: Sequence[np.ndarray]) -> float:
    """The threshold of the highest F-score, of THRESHOLDS; arguments as of `evaluate_detector`."""
    f_scores = []
    for threshold in THRESHOLDS:
        figures = evaluate_detector(_above(threshold, possible), boxes)
        precision, recall = 1 - figures["wrong"], figures["found"]
        f_scores.append((1 + BETA**2) * precision * recall / max(BETA**2 * precision + recall, 1e-12))
    return round(float(THRESHOLDS[np.argmax(f_scores)]), 4)


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

    def mean(values: np.ndarray) -> float:
        return round(float(values.sum() / max(len(values), 1)), 4)

    return {"cars": len(best), "found": mean(best > FOUND), "mean_iou": mean(best), "wrong": mean(right <= FOUND)}


def _above(threshold: float, possible: Sequence[Sequence[Detection]]) -> list[list[Detection]]:
    return [[each for each in found if each.score >= threshold] for found in possible]


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
