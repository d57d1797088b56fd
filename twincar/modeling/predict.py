"""Predictor: photo -> Prediction. The page, the command line, the notebook and the tests all ask here.

from twincar import Predictor
predictor = Predictor.from_pretrained("models/twincar")   # a folder, or a repo on the Hub: "user/repo"
answer = predictor("photo.jpg")
answer.top(5), answer.heatmap(), answer.overlay("BMW M3 Coupe 2012")
answer.is_car, answer.is_known, answer.box, answer.makes(), answer.alike()

A model with knowledge (`knowledge.py`) looks twice where the car does not fill the photo: from the first look it knows
where the car is, and reads that part of the photo again, at its full resolution and framed as in training.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twincar.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CarName,
    TwinCarError,
    canonical_class_name,
    parse_class_name,
)
from twincar.features import squash, to_batch
from twincar.modeling import engine as engines
from twincar.modeling import explain, hub
from twincar.modeling.calibrate import Calibration
from twincar.modeling.locate import WHOLE, Box, area, with_margin
from twincar.photo import FULL_SIZE, MAX_PIXELS, Photo, PhotoError, load_photo

STATISTICS = (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))  # what a config that names none was trained with
FILLED = 0.8  # share of the photo from which on a car is not looked at again: it is framed as in training already
CLOSER = 2 / 3  # weight of the second look's logits, where there are two

READERS = min(os.cpu_count() or 1, 8)  # threads that decode photos while the network runs
ENOUGH = 2  # times the network's side: a photo of so many pixels is squashed to the same picture as a larger one
REFERENCE = "torch:f32"  # the engine that whatever is published is measured with, the same on every machine

Pixels = tuple[int, int, int, int]  # x1, y1, x2, y2 in a photo, the far edges exclusive


class Look(NamedTuple):
    """What one pass tells of a part of a photo: (C, h, w) features, (K,) logits, and which part it was."""

    features: Tensor
    logits: Tensor
    part: Box = WHOLE


@dataclass(frozen=True)
class Guess(CarName):
    """One ranked class: the name, taken apart, and its probability in 0-1."""

    probability: float = 0.0


@dataclass(frozen=True)
class Alike:
    """A class that looks like another: the cosine of their mean features, in -1 to 1, and how many validation pictures
    of either were taken for the other."""

    class_name: str
    cosine: float
    mixed_up: int


class Prediction:
    """What a model says of one photo, from one look or two.

    photo : the upright RGB picture. probabilities : (K,) floats. logits : (K,) floats, before calibration.
    box : the car that was answered, in pixels of `photo`; None where the model did not look for it, or found none.
    others : more cars in the photo, likewise; ask about one with `predictor(photo, box=...)`.
    """

    def __init__(self, photo: Image.Image, looks: list[Look], cars: list[Box], predictor: "Predictor"):
        self.photo, self.class_names = photo, predictor.class_names
        self._looks, self._cars, self._predictor = looks, cars, predictor
        weights = [1.0] if len(looks) == 1 else [1 - CLOSER, CLOSER]
        logits = sum(weight * look.logits for weight, look in zip(weights, looks, strict=True))
        self.logits = logits.numpy()
        self.probabilities: np.ndarray = predictor.calibration(logits[None]).softmax(1)[0].numpy()
        self._cams: dict[int, np.ndarray] = {}

    def __repr__(self) -> str:
        best = self.top(1)[0]
        return f"Prediction({best.class_name!r}, {best.probability:.1%})"

    def top(self, k: int = 5) -> list[Guess]:
        """The k most probable classes, best first; all of them when there are fewer."""
        return [
            Guess(**parse_class_name(self.class_names[label]).as_dict(), probability=float(self.probabilities[label]))
            for label in self._ranking[: max(k, 1)]
        ]

    def makes(self) -> dict[str, float]:
        """The probability of every make, summed over its classes, most probable first."""
        return self._sums(lambda car: car.make)

    def models(self) -> dict[str, float]:
        """The probability of every make, model and body, whatever the year: "BMW 3 Series Sedan"."""
        return self._sums(lambda car: car.class_name.removesuffix(str(car.year or "")).strip())

    def bodies(self) -> dict[str, float]:
        """The probability of every body type; "" for the names that tell none."""
        return self._sums(lambda car: car.body)

    def _sums(self, key: Callable[[CarName], str]) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for name, probability in zip(self.class_names, self.probabilities, strict=True):
            sums[key(parse_class_name(name))] += float(probability)
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def is_car(self) -> bool | None:
        """Whether there is a car in the photo at all; None from a model without knowledge of that."""
        knowledge = self._predictor.knowledge
        return None if knowledge is None else self.car_score >= knowledge.is_car.value

    @property
    def is_known(self) -> bool | None:
        """Whether the car is one that the model was trained on; None from a model without knowledge of that."""
        knowledge = self._predictor.knowledge
        return None if knowledge is None else self.familiarity >= knowledge.is_known.value

    @cached_property
    def car_score(self) -> float:
        """Log-odds that the photo shows a car; of two looks the better one. NaN from a model without knowledge."""
        knowledge = self._predictor.knowledge
        return max(knowledge.car_score(look.features) for look in self._looks) if knowledge else float("nan")

    @cached_property
    def familiarity(self) -> float:
        """How much the logits speak for any class at all: their negative free energy at the model's temperature; of two
        looks the better one, since a car that is small in the photo speaks up only in the second.

        Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020 (arXiv:2010.03759), equation 4.
        """
        temperature = self._predictor.calibration.temperature
        return max(float(temperature * torch.logsumexp(look.logits / temperature, 0)) for look in self._looks)

    @property
    def box(self) -> Pixels | None:
        return self._pixels(self._cars[0]) if self._cars else None

    @property
    def others(self) -> list[Pixels]:
        return [self._pixels(car) for car in self._cars[1:]]

    def in_full(self, box: Pixels | None) -> Pixels | None:
        """A box of `photo` in pixels of the upright photo as it was sent, of which `photo` may be a smaller copy."""
        if box is None or (full := self.photo.info.get(FULL_SIZE)) is None:
            return box
        x, y = full[0] / self.photo.width, full[1] / self.photo.height
        return round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y)

    @property
    def looked_closer(self) -> bool:
        """Whether a part of the photo was read, and not only all of it."""
        return self._looks[-1].part != WHOLE

    def alike(self, class_name: str | None = None, k: int = 3) -> list[Alike]:
        """The k classes most like one, the best one when None; [] from a model without knowledge of that.

        Raises TwinCarError for a class that the model does not have.
        """
        knowledge, label = self._predictor.knowledge, self._label(class_name)
        found = knowledge.alike(label, k) if knowledge else []
        return [Alike(self.class_names[other], cosine, mixed) for other, cosine, mixed in found]

    @cached_property
    def _ranking(self) -> np.ndarray:
        return np.argsort(-self.probabilities, kind="stable")

    def _label(self, class_name: str | None) -> int:
        if class_name is None:
            return int(self._ranking[0])
        wanted = canonical_class_name(class_name)
        for label, name in enumerate(self.class_names):
            if canonical_class_name(name) == wanted:
                return label
        raise TwinCarError(f"{class_name!r} is none of the {len(self.class_names)} classes of this model.")

    def _pixels(self, part: Box) -> Pixels:
        """A part of the photo, rounded outwards to at least one pixel."""
        return pixels(part, self.photo.size)

    def _in_place(self, fill: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
        """A map of the part that was read, made by `fill` at its size, in a photo where all else is 0."""
        x1, y1, x2, y2 = self._pixels(self._looks[-1].part)
        if (x2 - x1, y2 - y1) == self.photo.size:
            return fill(self.photo.size)
        whole = np.zeros(self.photo.size[::-1], np.float32)
        whole[y1:y2, x1:x2] = fill((x2 - x1, y2 - y1))
        return whole

    def heatmap(self, class_name: str | None = None) -> np.ndarray:
        """Grad-CAM++ evidence for a class, the best one when None: (H, W) float32 in 0-1 at the photo's size.

        After a second look it is the evidence of that one, and 0 outside of what was looked at. Raises TwinCarError for
        a class that the model does not have.
        """
        label = self._label(class_name)
        if label not in self._cams:
            network, features = self._predictor.network, self._looks[-1].features
            self._cams[label] = explain.grad_cam_plus_plus(network, features, label)
        return self._in_place(lambda size: explain.at_size(self._cams[label], size))

    def overlay(self, class_name: str | None = None) -> Image.Image:
        """The photo with that evidence laid over it, at the photo's size."""
        return explain.overlay(self.photo, self.heatmap(class_name))

    def probability(self, class_name: str) -> float:
        """How probable a class is, in 0-1. Raises TwinCarError for a class that the model does not have."""
        return float(self.probabilities[self._label(class_name)])

    def difference(self, class_name: str, other: str) -> np.ndarray:
        """What in the photo tells two classes apart: (H, W) float32 in -1 to 1 at the photo's size.

        Positive where the photo speaks more for `class_name`, negative where it speaks more for `other`, in logits,
        divided by the largest of either sign. See `explain.difference`. Raises TwinCarError for an unknown class.
        """
        label, against = self._label(class_name), self._label(other)
        apart = explain.difference(self._predictor.network, self._looks[-1].features, label, against)
        return self._in_place(lambda size: explain.at_size_signed(apart, size))

    def difference_overlay(self, class_name: str, other: str) -> Image.Image:
        """The photo in grey with that difference over it: orange speaks for `class_name`, violet for `other`."""
        return explain.difference_overlay(self.photo, self.difference(class_name, other))


def pixels(part: Box, size: tuple[int, int]) -> Pixels:
    """A part of a photo of size = (width, height), rounded outwards, at least a pixel wide and high."""
    width, height = size
    x1, y1 = min(int(part[0] * width), width - 1), min(int(part[1] * height), height - 1)
    x2, y2 = min(int(np.ceil(part[2] * width)), width), min(int(np.ceil(part[3] * height)), height)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


class Predictor:
    """A published model, ready to answer. Safe to call from several threads.

    device, engine : as of `engine.choose`, which takes the fastest when they are left open.
    """

    def __init__(self, model: hub.CarModel, device: str | torch.device | None = None, engine: str | None = None):
        self.config, self.knowledge = model.config, model.knowledge
        self.class_names: tuple[str, ...] = tuple(model.config["class_names"])
        self.size: int = model.config["input"]["size"]
        self.calibration = Calibration.of(model.config)
        self.mean, self.std = (model.config["input"].get(key, default) for key, default in STATISTICS)
        self.flip: bool = model.config["input"].get("flip", False)
        self.network = model.network.eval().requires_grad_(False)
        self.engine = engines.choose(self.network, self.size, device, engine)

    @classmethod
    def from_pretrained(cls, repo_or_folder: str | Path, *, device=None, engine=None, **hub_options) -> "Predictor":
        """Load a folder or a Hub repo (`revision=`, `token=`, `cache_dir=`, ... go to the Hub client).

        Raises hub.ModelError, one sentence, when there is no such model or it cannot be fetched or read, and
        engine.EngineError for an engine that there is not.
        """
        return cls(hub.load(repo_or_folder, **hub_options), device, engine)

    def __call__(
        self, photo: Photo, box: Pixels | None = None, closer: bool = True, side: int | None = None
    ) -> Prediction:
        """Answer one photo: a path, bytes, a PIL image or an array.

        box : (x1, y1, x2, y2), where the car is in the upright photo, in pixels; the model then looks there alone.
        closer : whether to look a second time at the car that was found, where it does not fill the photo. Without
            it the whole photo is read once, as is right for pictures that are cut to the car already.
        side : where the photo will not be shown at full size, so many pixels of either side are enough, as of
            `load_photo`; a large one is then decoded faster. With a box, which counts in full size, it is not used.

        Raises PhotoError for what is no photo, TwinCarError for a box that does not lie in the photo.
        """
        if box is None:
            return self._answer([self._read(photo, side and max(side, self._enough(closer)))], closer)[0]
        image = load_photo(photo)
        car = _share(box, image.size)
        part = with_margin(car)
        return Prediction(image, self._look([self._cut(image, part)], [part]), [car], self)

    def batch(
        self, photos: Iterable[Photo | PhotoError], batch_size: int = 16, closer: bool = True
    ) -> list[Prediction | PhotoError]:
        """Answer many, in order. A photo that cannot be read gives its PhotoError in its place and stops nobody; so
        does a PhotoError among the photos, from a reader that could not even hand over a file."""
        return list(self.stream(photos, batch_size, closer))

    def stream(
        self, photos: Iterable[Photo | PhotoError], batch_size: int = 16, closer: bool = True, full_size: bool = True
    ) -> Iterator[Prediction | PhotoError]:
        """`batch`, an answer at a time: memory holds a batch or two, however many photos there are, and smaller ones of
        photos so large that MAX_PIXELS are reached before. The next photos are decoded while the network runs.

        full_size : False where nobody needs the photos themselves, which is faster for large ones: a photo is decoded
            no larger than the network needs, and `Prediction.photo` is that smaller picture.
        """
        waiting: list[_Read | PhotoError] = []
        pixels = 0
        side, ahead = (None, READERS) if full_size else (self._enough(closer), batch_size)
        for read in _ahead(partial(self._try, side=side), photos, ahead):
            waiting.append(read)
            pixels += 0 if isinstance(read, PhotoError) else read[0].width * read[0].height
            if len(waiting) == batch_size or pixels >= MAX_PIXELS:
                yield from self._answer_mixed(waiting, closer)
                waiting, pixels = [], 0
        yield from self._answer_mixed(waiting, closer)

    def _enough(self, closer: bool) -> int:
        """Pixels that a side of a photo needs; twice as many where a part of it may be looked at again."""
        return ENOUGH * self.size * (2 if closer and self.knowledge else 1)

    def _try(self, photo: Photo | PhotoError, side: int | None) -> "_Read | PhotoError":
        if isinstance(photo, PhotoError):
            return photo
        try:
            return self._read(photo, side)
        except PhotoError as error:
            return error

    def _read(self, photo: Photo, side: int | None) -> "_Read":
        upright = load_photo(photo, side=side)
        return upright, squash(upright, self.size)

    def _answer_mixed(self, waiting: list, closer: bool) -> Iterator[Prediction | PhotoError]:
        readable = [item for item in waiting if not isinstance(item, PhotoError)]
        answers = iter(self._answer(readable, closer))
        for item in waiting:
            yield item if isinstance(item, PhotoError) else next(answers)

    def _answer(self, reads: list["_Read"], closer: bool) -> list[Prediction]:
        photos = [photo for photo, _ in reads]
        looks = [[look] for look in self._look([picture for _, picture in reads], [WHOLE] * len(reads))]
        cars: list[list[Box]] = [[] for _ in photos]
        if closer and self.knowledge:
            cars = [self.knowledge.locator.boxes(look.features) for (look,) in looks]
            again = [row for row, found in enumerate(cars) if found and area(with_margin(found[0])) < FILLED]
            parts = [with_margin(cars[row][0]) for row in again]
            pictures = [self._cut(photos[row], part) for row, part in zip(again, parts, strict=True)]
            for row, look in zip(again, self._look(pictures, parts), strict=True):
                looks[row].append(look)
        return [Prediction(*row, self) for row in zip(photos, looks, cars, strict=True)]

    def _cut(self, photo: Image.Image, part: Box) -> np.ndarray:
        return squash(photo.crop(pixels(part, photo.size)), self.size)

    def _look(self, pictures: list[np.ndarray], parts: list[Box]) -> list[Look]:
        """Read (size, size, 3) pictures, which are these parts of their photos, in one pass."""
        if not pictures:
            return []
        features, logits = self.run(to_batch(pictures, self.mean, self.std))
        return [Look(*row) for row in zip(features, logits.cpu(), parts, strict=True)]

    @torch.no_grad()  # not inference_mode: explaining differentiates through the head, from these features
    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) normalised images -> their (N, C, h, w) features and (N, K) logits, before calibration.

        Where the model was published with `flip`, the logits are the mean of those of the picture and its mirror image,
        read in the same pass; the features are always the picture's own.
        """
        count = len(images)
        if self.flip:
            images = torch.cat([images, images.flip(3)])
        features = self.engine.features(images)
        logits = self.network.forward_head(features).float()
        if self.flip:
            logits = (logits[:count] + logits[count:]) / 2
        return features[:count], logits


def _share(box: Pixels, size: tuple[int, int]) -> Box:
    """A box in pixels as a share of the photo. Raises TwinCarError where it does not lie in it."""
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]):
        raise TwinCarError(
            f"The box {tuple(box)} does not lie in this photo of {size[0]} by {size[1]} pixels: it is x1, y1, x2, y2, "
            "left and top before right and bottom."
        )
    return x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1]


_Read = tuple[Image.Image, np.ndarray]  # a photo, upright, and what the network sees of it


def _ahead(work: Callable, items: Iterable, count: int) -> Iterator:
    """work(item) for each item, in order; threads are up to `count` items ahead of what has been taken."""
    pool = ThreadPoolExecutor(READERS, "reader")
    try:
        running: deque[Future] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
