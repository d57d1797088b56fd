"""Features of copy-paste scenes, cars on photos without cars, to fit the detector and the open-set data with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor, nn

from twincar.config import TwinCarError
from twincar.features.copy_paste import ASPECT, ASPECT_SPREAD, INSET, Car, copy_paste, join, paste_scene
from twincar.features.photo import load_photo
from twincar.modeling.engines.backbone import Backbone
from twincar.modeling.engines.choose import choose
from twincar.modeling.inference.predictor import Predictor

BATCH_SIZE = 16
NO_CAR, ONE_CAR, TWO_CARS = 0.2, 0.38, 0.2  # fractions of the scenes for the detector; the others have up to MAX_CARS
MAX_CARS = 6
SIDE_BY_SIDE = 0.5  # fraction of the scenes of two or three cars that are joined from scenes of at most one


class Scenes(NamedTuple):
    """N scenes, as features of the network.

    Attributes:
        features: (N, C, h, w) features in half precision.
        boxes: (N, 4) boxes of the cars, as fractions of the scene.
        backgrounds: (N,) index of each scene's background.
    """

    features: Tensor
    boxes: np.ndarray
    backgrounds: np.ndarray


def train_and_val(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The train rows and the val rows of a prepared table.

    Raises:
        TwinCarError: There are none of one of them.
    """
    train, val = (table[table["split"] == split] for split in ("train", "val"))
    if train.empty or val.empty:
        raise TwinCarError("The table needs train and val pictures: `twincar prepare` makes them.")
    return train, val


def make_scenes(
    predictor: Predictor,
    rows: pd.DataFrame,
    backgrounds: list[np.ndarray],
    count: int,
    seed: int = 0,
    progress: bool = False,
) -> Scenes:
    """Paste cars of random rows onto random backgrounds, and compute the network's features of these scenes.

    Args:
        predictor: Supplies the network and the side of its input.
        rows: Rows of a prepared table, with or without boxes.
        backgrounds: As `load_backgrounds` returns them.
        count: Number of scenes.
        seed: Random seed.
        progress: Whether to show a progress bar.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(backgrounds), size=count)
    cars = rows.sample(count, replace=count > len(rows), random_state=seed)
    pairs = [
        copy_paste(_car(row, rng), backgrounds[index], predictor.size, rng)
        for row, index in zip(cars.itertuples(), track(chosen, "Pasting cars", disable=not progress), strict=True)
    ]
    features, _ = read_pictures(predictor, [picture for picture, _ in pairs], progress)
    return Scenes(features, np.stack([box for _, box in pairs]), chosen)


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
    finer, features = [], []
    for start in track(range(0, len(pictures), BATCH_SIZE), "Reading scenes", disable=not progress):
        output = engine.run(torch.from_numpy(np.stack(pictures[start : start + BATCH_SIZE])))
        finer.append(output.detections.half().cpu())
        features.append(output.features.half().cpu())
    return torch.cat(finer), torch.cat(features)


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


def read_pictures(
    predictor: Predictor, pictures: Sequence[np.ndarray], progress: bool = False, batch_size: int = BATCH_SIZE
) -> tuple[Tensor, Tensor]:
    """Return the (N, C, h, w) features in half precision and the (N, K) logits of N pictures of the network's size."""
    found = []
    for start in track(range(0, len(pictures), batch_size), "Reading scenes", disable=not progress):
        output, logits = predictor.run(pictures[start : start + batch_size])
        found.append((output.features.half().cpu(), logits.cpu()))
    return torch.cat([features for features, _ in found]), torch.cat([logits for _, logits in found])
