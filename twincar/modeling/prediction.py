"""Prediction: what a model says of one photo, and what can be asked about it. `predict.py` makes them.

Nothing is computed before it is asked for: the classes are ranked, the evidence drawn and the sums made on demand, from
the features and logits of the looks that were taken.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from twincar.config import CarName, TwinCarError, canonical_class_name, parse_class_name
from twincar.modeling import explain
from twincar.modeling.knowledge import familiarity
from twincar.modeling.locate import WHOLE, Box
from twincar.photo import FULL_SIZE

if TYPE_CHECKING:
    from twincar.modeling.predict import Predictor

CLOSER = 2 / 3  # weight of the second look's logits, where there are two

Pixels = tuple[int, int, int, int]  # x1, y1, x2, y2 in a photo, the far edges exclusive


class Look(NamedTuple):
    """What one pass tells of a part of a photo: (C, h, w) features, (K,) logits, which part it was; and, if the model
    was taught where cars are, which share of each cell they cover, (h, w) in 0-1."""

    features: Tensor
    logits: Tensor
    part: Box = WHOLE
    coverage: np.ndarray | None = None


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
    cars : the cars in the photo, as shares of its width and height; the first is the one that was answered. [] where
        the model did not look for any, or found none. `box` is the first in pixels of `photo`, `others` are the rest;
        ask about one of them with `predictor(photo, box=...)`.
    """

    def __init__(self, photo: Image.Image, looks: list[Look], cars: list[Box], predictor: "Predictor"):
        self.photo, self.class_names = photo, predictor.class_names
        self.cars = cars
        self._looks, self._predictor = looks, predictor
        weights = [1.0] if len(looks) == 1 else [1 - CLOSER, CLOSER]
        logits = sum(weight * look.logits for weight, look in zip(weights, looks, strict=True))
        self.logits = logits.numpy()
        self.probabilities: np.ndarray = predictor.calibration(logits[None]).softmax(1)[0].numpy()
        self._cams: dict[tuple[int, str], np.ndarray] = {}

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
        """How much the logits speak for any class at all (`knowledge.familiarity`); of two looks the better one, since
        a car that is small in the photo speaks up only in the second."""
        temperature = self._predictor.calibration.temperature
        return max(float(familiarity(look.logits, temperature)) for look in self._looks)

    @property
    def box(self) -> Pixels | None:
        return self._pixels(self.cars[0]) if self.cars else None

    @property
    def others(self) -> list[Pixels]:
        return [self._pixels(car) for car in self.cars[1:]]

    def in_full(self, box: Pixels | None) -> Pixels | None:
        """A box of `photo` in pixels of the upright photo as it was sent, of which `photo` may be a smaller copy."""
        if box is None or (full := self.photo.info.get(FULL_SIZE)) is None:
            return box
        x, y = full[0] / self.photo.width, full[1] / self.photo.height
        return round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y)

    @property
    def features(self) -> Tensor:
        """(C, h, w), what the network saw of the part that was read last."""
        return self._looks[-1].features

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

    def heatmap(self, class_name: str | None = None, method: str = explain.GRAD_CAM_PLUS_PLUS) -> np.ndarray:
        """The evidence for a class, the best one when None: (H, W) float32 in 0-1 at the photo's size.

        method : "Grad-CAM++", or "HiResCAM", which keeps to what counts for this class more than for others.

        After a second look it is the evidence of that one, and 0 outside of what was looked at. Raises TwinCarError for
        a class that the model does not have, or another method.
        """
        label = self._label(class_name)
        if (draw := explain.METHODS.get(method)) is None:
            raise TwinCarError(f"There is no method {method!r}: choose {' or '.join(explain.METHODS)}.")
        if (label, method) not in self._cams:
            self._cams[label, method] = draw(self._predictor.network, self.features, label)
        return self._in_place(lambda size: explain.at_size(self._cams[label, method], size))

    def overlay(self, class_name: str | None = None, method: str = explain.GRAD_CAM_PLUS_PLUS) -> Image.Image:
        """The photo with that evidence laid over it, at the photo's size."""
        return explain.overlay(self.photo, self.heatmap(class_name, method))

    def probability(self, class_name: str) -> float:
        """How probable a class is, in 0-1. Raises TwinCarError for a class that the model does not have."""
        return float(self.probabilities[self._label(class_name)])

    def difference(self, class_name: str, other: str) -> np.ndarray:
        """What in the photo tells two classes apart: (H, W) float32 in -1 to 1 at the photo's size.

        Positive where the photo speaks more for `class_name`, negative where it speaks more for `other`, in logits,
        divided by the largest of either sign. See `explain.difference`. Raises TwinCarError for an unknown class.
        """
        label, against = self._label(class_name), self._label(other)
        apart = explain.difference(self._predictor.network, self.features, label, against)
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


def share(box: Pixels, size: tuple[int, int]) -> Box:
    """A box in pixels as a share of the photo. Raises TwinCarError where it does not lie in it."""
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]):
        raise TwinCarError(
            f"The box {tuple(box)} does not lie in this photo of {size[0]} by {size[1]} pixels: it is x1, y1, x2, y2, "
            "left and top before right and bottom."
        )
    return x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1]
