"""A detector for a published model: a few layers on its features that find the cars in a photo.

    twincar fit-detector --model models/twincar --data data/ --not-cars photos/

The network is not trained. The detector is fitted on its features of scenes in which training pictures are pasted onto
photos without cars, and measured on scenes of validation pictures.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from twincar.config import TwinCarError
from twincar.modeling.detection import detector as detection
from twincar.modeling.detection.boxes import iou
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.publishing.scenes import load_backgrounds, make_scenes

VAL_SCENES = 0.125  # of the number of training scenes
FOUND = 0.5  # IoU from which on a car counts as found


def fit_detector(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    scenes: int = 2400,
    seed: int = 0,
    progress: bool = True,
) -> tuple[detection.Detector, dict]:
    """Fit a detector to the predictor's network, and measure it.

    Args:
        predictor: A published model.
        table: A prepared table with train and val pictures.
        not_cars: A folder of photos without cars.
        scenes: Number of cars to paste onto them.
        seed: Of the random choices.
        progress: Whether to show progress bars.

    Returns:
        The detector, and its figures on scenes of validation pictures: `mean_iou` of its largest box with the car, and
        `found`, the fraction of cars with an IoU above 0.5. The photos without cars are the same for both.

    Raises:
        TwinCarError: There are too few photos without cars, or no train or val pictures.
    """
    backgrounds = load_backgrounds(not_cars)
    train, val = (table[table["split"] == split] for split in ("train", "val"))
    if train.empty or val.empty:
        raise TwinCarError("The table needs train and val pictures: `twincar prepare` makes them.")
    made = make_scenes(predictor, train, backgrounds, scenes, seed, progress)
    detector = detection.fit(made.features, made.boxes, seed=seed)

    held_out = make_scenes(predictor, val, backgrounds, max(round(VAL_SCENES * scenes), 1), seed + 1, progress)
    overlaps = []
    for features, box in zip(held_out.features, held_out.boxes, strict=True):
        found = detection.find_boxes(detector(features[None].float())[0].sigmoid().numpy())
        overlaps.append(iou(found[0], tuple(box)) if found else 0.0)
    return detector, {
        "not_cars": len(backgrounds),
        "scenes": scenes,
        "val_scenes": len(overlaps),
        "mean_iou": round(float(np.mean(overlaps)), 4),
        "found": round(float(np.mean(np.array(overlaps) > FOUND)), 4),
    }
