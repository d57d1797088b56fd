"""Pictures and models that the tests share, all made here: nothing is downloaded and nothing outside is needed."""

import atexit
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# Each of several test processes gets one core: threads of all of them on all cores slow each other down.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; inherited by processes that tests start

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image, ImageDraw
from scipy.io import savemat

from tests.helpers.hub_server import HubServer
from twincar.config import STANFORD_CARS
from twincar.data.listing import folder_name

# The same cases every time, so that `make test` says something of the change and not of the day's luck. New ones are
# looked for with `pytest --hypothesis-profile=search`.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("same")

# Engines by name, since the fastest is another one on every machine, and what they keep out of the user's cache.
os.environ["TWINCAR_ENGINE"] = "torch"
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share that of the process that started them
    os.environ["TWINCAR_CACHE"] = tempfile.mkdtemp(prefix="twincar-")
    atexit.register(shutil.rmtree, os.environ["TWINCAR_CACHE"], ignore_errors=True)

# Memory is limited with Linux's setrlimit and /proc; on Windows no process can be forked or killed by a signal.
collect_ignore = [] if sys.platform == "linux" else ["features/test_hostile_photos.py"]
if sys.platform == "win32":
    collect_ignore += ["modeling/training/test_interruptions.py"]

CLASSES = [
    "BMW M3 Coupe 2012",
    "Audi TT Hatchback 2011",
    "Ram C/V Cargo Van Minivan 2012",
    "smart fortwo Convertible 2012",
    "AM General Hummer SUV 2000",
]


def draw_car(label: int, seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A car in five strokes: the class gives colour and shape, the seed gives place and background."""
    rng = np.random.default_rng(1000 * label + seed)
    picture = Image.fromarray(rng.integers(90, 160, (size[1], size[0], 3), dtype=np.uint8))
    draw = ImageDraw.Draw(picture)
    width, height = size
    left, top = rng.integers(width // 16, width // 6), height // 3 + rng.integers(0, height // 10)
    right, bottom = width - left, top + height // 3
    colour = [(200, 30, 30), (30, 60, 200), (240, 240, 240), (250, 200, 20), (30, 110, 40)][label % 5]
    draw.rectangle((left, top, right, bottom), fill=colour)
    roof = width // 6 + label * width // 40
    draw.polygon([(left + roof // 2, top), (left + roof, top - height // 5), (right - roof, top - height // 5),
                  (right - roof // 2, top)], fill=colour)  # fmt: skip
    for x in (left + width // 8, right - width // 8):
        radius = height // 10
        draw.ellipse((x - radius, bottom - radius, x + radius, bottom + radius), fill=(15, 15, 15))
    return picture


def draw_folders(root: Path, names: Sequence[str]) -> Path:
    """Write `train/<class>/*.jpg` with 8 pictures of each class."""
    for label, name in enumerate(names):
        folder = root / "train" / folder_name(name)
        folder.mkdir(parents=True)
        for seed in range(8):
            draw_car(label, seed).save(folder / f"{label}{seed:04d}.jpg")
    return root


# Small sources in the layouts of Stanford Cars; their pictures are noise of 60 by 40 pixels

HUMMER, RAM, SMART = "AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012"
THREE = [HUMMER, RAM, SMART]


def picture_bytes(size=(60, 40), kind="JPEG", seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


JPEG = picture_bytes()


def put(path: Path, data: bytes = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def by_class(root: Path, classes, n=10, split="train", start=1) -> Path:
    """`n` pictures a class, numbered through all classes in turn, as the official files are."""
    for i in range(n * len(classes)):
        folder = root / split / folder_name(classes[i % len(classes)])
        put(folder / f"{start + i:05d}.jpg")
    return root


def annotations(files, classes=None, boxes=None):
    boxes = boxes or [(2, 3, 50, 30)] * len(files)
    columns = {f"bbox_{c}": [b[i] for b in boxes] for i, c in enumerate(("x1", "y1", "x2", "y2"))}
    columns |= ({"class": classes} if classes else {}) | {"fname": files}
    kinds = [(name, object) for name in columns]
    return {"annotations": np.array([tuple(v) for v in zip(*columns.values(), strict=True)], dtype=kinds)}


def official(root: Path, n=30, boxes=None, classes=None, devkit="devkit", train="cars_train") -> Path:
    """An official layout of three classes in turn (their real ids), `n` training pictures."""
    files = [f"{i:05d}.jpg" for i in range(1, n + 1)]
    classes = classes or [STANFORD_CARS.index(THREE[i % 3]) + 1 for i in range(n)]
    for file in files:
        put(root / train / file)
    (root / devkit).mkdir(parents=True, exist_ok=True)
    savemat(root / devkit / "cars_meta.mat", {"class_names": np.array(STANFORD_CARS, dtype=object)})
    savemat(root / devkit / "cars_train_annos.mat", annotations(files, classes, boxes))
    return root


def kaggle(root: Path, inner: str) -> Path:
    by_class(root / inner, THREE)
    by_class(root / inner, THREE, n=1, split="test")
    for split, n in (("train", 30), ("test", 3)):
        rows = [f"{i:05d}.jpg,{i},3,50,30,{STANFORD_CARS.index(THREE[(i - 1) % 3]) + 1}" for i in range(1, n + 1)]
        (root / f"anno_{split}.csv").write_text("\n".join(rows) + "\n")
    (root / "names.csv").write_text("\n".join(STANFORD_CARS) + "\n")
    return root


@pytest.fixture(scope="session")
def car_photo(tmp_path_factory) -> Path:
    """A JPEG of 320 by 240 pixels."""
    path = tmp_path_factory.mktemp("photo") / "car.jpg"
    draw_car(0, size=(320, 240)).save(path, quality=92)
    return path


@pytest.fixture(scope="session")
def car_folders(tmp_path_factory) -> Path:
    """`train/<class>/*.jpg`: 8 pictures of each of three cars that Stanford Cars does not have."""
    names = ("Citroen 2CV Sedan 1948", "Lada Niva SUV 1977", "Trabant 601 Sedan 1964")
    return draw_folders(tmp_path_factory.mktemp("cars"), names)


@pytest.fixture(scope="session")
def data(car_folders, tmp_path_factory) -> Path:
    """`car_folders`, prepared: 18 train and 6 val pictures."""
    from twincar.data.table import prepare

    out = tmp_path_factory.mktemp("data")
    prepare(car_folders, out, val_size=0.25, progress=False)
    return out


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A published model folder: a ResNet-18 with random weights, five classes, read at 64 pixels."""
    from twincar.modeling.hub import model_folder

    torch.manual_seed(0)
    config = {
        "architecture": {"name": "resnet18", "head": "linear"},
        "class_names": CLASSES,
        "input": {"size": 64, "flip": False},
    }
    return model_folder.save(model_folder.CarModel(config), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def site(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The page with the tiny model, in its own process: its address, and the file of what it prints."""
    from tests.helpers.visit import served

    with served(tmp_path_factory.mktemp("site"), TWINCAR_MODEL=str(tiny_model)) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    """A real Chromium for the page's tests: `chromium`, or what the variable CHROMIUM names."""
    from playwright.sync_api import sync_playwright

    from tests.helpers.visit import QUIET

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium, "The page's tests need Chromium: install it, or say where it is with CHROMIUM=/path."
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A Hub on this machine, at `hub.url`, for the real client: serves and takes the repos below `hub.root`."""
    root = tmp_path / "served"
    root.mkdir()
    with HubServer(root) as server:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_ETAG_TIMEOUT": 5,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server
        server.shutdown()
