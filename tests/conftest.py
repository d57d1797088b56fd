"""Pictures and models that the tests share, all made here: nothing is downloaded and nothing outside is needed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

CLASSES = [
    "BMW M3 Coupe 2012",
    "Audi TT Hatchback 2011",
    "Ram C/V Cargo Van Minivan 2012",
    "smart fortwo Convertible 2012",
    "AM General Hummer SUV 2000",
]


def draw_car(label: int, seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A car in five strokes: the class gives colour and shape, the seed gives place and background."""
    chance = np.random.default_rng(1000 * label + seed)
    picture = Image.fromarray(chance.integers(90, 160, (size[1], size[0], 3), dtype=np.uint8))
    draw = ImageDraw.Draw(picture)
    width, height = size
    left, top = chance.integers(width // 16, width // 6), height // 3 + chance.integers(0, height // 10)
    right, bottom = width - left, top + height // 3
    colour = [(200, 30, 30), (30, 60, 200), (240, 240, 240), (250, 200, 20), (30, 110, 40)][label % 5]
    draw.rectangle((left, top, right, bottom), fill=colour)
    roof = width // 6 + label * width // 40
    draw.polygon([(left + roof // 2, top), (left + roof, top - height // 5), (right - roof, top - height // 5),
                  (right - roof // 2, top)], fill=colour)  # fmt: skip
    for x in (left + width // 8, right - width // 8):
        draw.ellipse((x - height // 10, bottom - height // 10, x + height // 10, bottom + height // 10), fill=(15, 15, 15))
    return picture


@pytest.fixture(scope="session")
def car_photo(tmp_path_factory) -> Path:
    """A JPEG of 320 by 240 pixels."""
    path = tmp_path_factory.mktemp("photo") / "car.jpg"
    draw_car(0, size=(320, 240)).save(path, quality=92)
    return path


@pytest.fixture(scope="session")
def car_folders(tmp_path_factory) -> Path:
    """`train/<class>/*.jpg`: 8 pictures of each of three classes."""
    root = tmp_path_factory.mktemp("cars")
    for label, name in enumerate(CLASSES[:3]):
        folder = root / "train" / name.replace("/", "-")
        folder.mkdir(parents=True)
        for seed in range(8):
            draw_car(label, seed).save(folder / f"{label}{seed:04d}.jpg")
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A published model folder: a ResNet-18 with random weights, five classes, read at 64 pixels."""
    from twincar.modeling import hub

    torch.manual_seed(0)
    config = {
        "architecture": {"name": "resnet18", "head": "linear"},
        "class_names": CLASSES,
        "input": {"size": 64, "flip": False},
    }
    return hub.save(hub.CarModel(config), tmp_path_factory.mktemp("model") / "tiny")
