"""Copy-paste scenes, cars on photos without cars, and their features, to fit the detector with."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor, nn

from twincar.config import TwinCarError
from twincar.features.copy_paste import ASPECT, ASPECT_SPREAD, INSET, Car, join, paste_scene
from twincar.features.photo import load_photo
from twincar.modeling.engines.backbone import Backbone
from twincar.modeling.engines.choose import choose
from twincar.modeling.inference.predictor import Predictor

BATCH_SIZE = 16
NO_CAR, ONE_CAR, TWO_CARS = 0.2, 0.38, 0.2  # fractions of the scenes for the detector; the others have up to MAX_CARS
MAX_CARS = 6
SIDE_BY_SIDE = 0.6  # fraction of the scenes of two or three cars that are joined from scenes of at most one


def train_and_val(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The train rows and the val rows of a prepared table.

    Raises:
        TwinCarError: There are none of one of them.
    """
    train, val = (table[table["split"] == split] for split in ("train", "val"))
    if train.empty or val.empty:
        raise TwinCarError("The table needs train and val pictures: `twincar prepare` makes them.")
    return train, val


def make_car_scenes(
    rows: pd.DataFrame, backgrounds: list[np.ndarray], size: int, count: int, seed: int = 0, progress: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make scenes of none to MAX_CARS cars of random rows, as of `paste_scene`.

    Args:
        rows: Rows of a prepared table, with or without boxes.
        backgrounds: As `load_backgrounds` returns them.
        size: Side of the scenes, in pixels.
        count: Number of scenes.
        seed: Random seed.
        progress: Whether to show a progress bar.
    """
    rng = np.random.default_rng(seed)

    def scene(cars: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = (rows.iloc[int(index)] for index in rng.integers(len(rows), size=cars))
        return paste_scene([_car(row, rng) for row in chosen], backgrounds[rng.integers(len(backgrounds))], size, rng)

    found = []
    for kind in track(rng.uniform(size=count), "Pasting cars", disable=not progress):
        if kind < NO_CAR:
            cars = 0
        elif kind < NO_CAR + ONE_CAR:
            cars = 1
        else:
            cars = 2 if kind < NO_CAR + ONE_CAR + TWO_CARS else int(rng.integers(3, MAX_CARS + 1))
        side_by_side = cars in (2, 3) and rng.random() < SIDE_BY_SIDE
        found.append(join([scene(int(rng.random() < 0.9)) for _ in range(cars)], rng) if side_by_side else scene(cars))
    return found


def read_levels(predictor: Predictor, pictures: Sequence[np.ndarray], progress: bool = False) -> tuple[Tensor, Tensor]:
    """Return two levels of features of N pictures of the network's size, in half precision.

    They are those of `Network.forward_intermediates`: (N, c, 2h, 2w) and (N, C, h, w).
    """
    backbone = Backbone(predictor.network, predictor.mean, predictor.std, _Finer()).eval()
    engine = choose(backbone, predictor.size, predictor.engine.device)
    levels: list[Tensor] = []
    for start in track(range(0, len(pictures), BATCH_SIZE), "Reading scenes", disable=not progress):
        output = engine.run(torch.from_numpy(np.stack(pictures[start : start + BATCH_SIZE])))
        parts = [part for part in (output.detections, output.features) if part is not None]
        # In memory once: a list of batches would have to be joined.
        levels = levels or [torch.empty(len(pictures), *part.shape[1:], dtype=torch.half) for part in parts]
        for level, part in zip(levels, parts, strict=True):
            level[start : start + len(part)] = part
    return levels[0], levels[1]


class _Finer(nn.Module):
    """In place of a detector: what a detector would read."""

    def forward(self, finer: Tensor, features: Tensor) -> Tensor:
        return finer


def _car(row, rng: np.random.Generator) -> Car:
    """Load the car of a row: with its box if the table has one, else from a picture that is cropped to the box."""
    box = (row.x1, row.y1, row.x2, row.y2)
    if np.isnan(box[0]):
        aspect = ASPECT * np.exp(rng.normal(0, ASPECT_SPREAD))
        return Car(np.asarray(load_photo(row.path)), INSET * 2, float(aspect))
    x1, y1, x2, y2 = (int(value) for value in box)
    picture = np.asarray(load_photo(row.path, box))
    height, width = picture.shape[:2]
    x, y = max(width - (x2 - x1), 0) / 2 / width, max(height - (y2 - y1), 0) / 2 / height
    return Car(picture, (x, y, x, y), (x2 - x1) / (y2 - y1))
