"""Fit the car detector of a published model: a few layers on the network's features.

    twincar fit-detector --model models/twincar --data data/ --not-cars photos/

The network itself is not trained. The detector is fitted on copy-paste scenes, training pictures pasted onto photos
without cars, and evaluated on scenes with validation pictures.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from twincar.features.backgrounds import load_backgrounds
from twincar.modeling.detection import detector as detection
from twincar.modeling.detection.boxes import iou
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.publishing.scenes import Scenes, make_scenes, train_and_val

VAL_SCENES = 0.125  # validation scenes per training scene
FOUND = 0.5  # IoU above which a car counts as found


def fit_detector(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    scenes: int = 2400,
    seed: int = 0,
    progress: bool = True,
) -> tuple[detection.Detector, dict]:
    """Fit a detector for the predictor's network, and evaluate it.

    Args:
        predictor: A published model.
        table: A prepared table with train and val pictures.
        not_cars: A folder of photos without cars.
        scenes: Number of training scenes.
        seed: Random seed.
        progress: Whether to show progress bars.

    Returns:
        The detector, and its scores on validation scenes: `mean_iou` of its largest box with the car, and `found`, the
        fraction of cars with an IoU above 0.5. Training and validation scenes share their backgrounds.

    Raises:
        TwinCarError: There are too few photos without cars, or no train or val pictures.
    """
    backgrounds = load_backgrounds(not_cars)
    train, val = train_and_val(table)
    made = make_scenes(predictor, train, backgrounds, scenes, seed, progress)
    detector = detection.fit(made.features, made.boxes, seed=seed)

    held_out = make_scenes(predictor, val, backgrounds, max(round(VAL_SCENES * scenes), 1), seed + 1, progress)
    return detector, {"not_cars": len(backgrounds), "scenes": scenes, **evaluate_detector(detector, held_out)}


def evaluate_detector(detector: detection.Detector, scenes: Scenes) -> dict[str, float]:
    """Evaluate a detector on scenes that it was not fitted on.

    Returns:
        `val_scenes`, their number; `mean_iou` and `found` as `fit_detector` returns them.
    """
    overlaps = []
    for features, box in zip(scenes.features, scenes.boxes, strict=True):
        found = detection.find_boxes(detector(features[None].float())[0].sigmoid().numpy())
        overlaps.append(iou(found[0], tuple(box)) if found else 0.0)
    return {
        "val_scenes": len(overlaps),
        "mean_iou": round(float(np.mean(overlaps)), 4),
        "found": round(float(np.mean(np.array(overlaps) > FOUND)), 4),
    }
