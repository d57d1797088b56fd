"""The answer for one car: probabilities, box, evidence and similar classes. `predictor.py` creates it.

Heatmaps and rankings are computed on demand, from the features and logits of the network's pass over this car.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twincar.config import CarName, TwinCarError, canonical_class_name, parse_class_name
from twincar.features.photo import FULL_SIZE
from twincar.modeling.detection.boxes import WHOLE, Box, Pixels, to_pixels
from twincar.modeling.inference import describe, explain
from twincar.modeling.inference.calibration import Calibration
from twincar.modeling.inference.decision import Decision, Pass
from twincar.modeling.networks.architectures import Network
from twincar.modeling.open_set.open_set import OpenSet, Verdict


class ModelContext(NamedTuple):
    """The parts of a model that a Prediction uses after the network has run. A pickle has no network."""

    class_names: tuple[str, ...]
    network: Network | None
    calibration: Calibration
    open_set: OpenSet | None
    name: str = "twincar"
    version: str | None = None

    def __reduce__(self) -> tuple:
        return ModelContext, (self.class_names, None, *self[2:])

    @property
    def identity(self) -> dict[str, str | None]:
        """`name` and `version` of the model, as a dict."""
        return {"name": self.name, "version": self.version}

    def __deepcopy__(self, memo: dict) -> "ModelContext":
        return self  # the model is shared, as it is between the answers of a Predictor


@dataclass(frozen=True)
class Guess(CarName):
    """One ranked class: its name, the parts of the name, and its probability (0-1)."""

    probability: float = 0.0


@dataclass(frozen=True)
class SimilarClass:
    """A class that resembles another one.

    Attributes:
        class_name: Its name.
        cosine: Cosine (-1 to 1) of the two classes' mean features.
        confusions: Number of validation pictures of either class that were predicted as the other.
    """

    class_name: str
    cosine: float
    confusions: int


class Prediction:
    """The answer for one car, from one pass of the network; `cars` has those for the other cars of the photo.

    Attributes:
        photo: The upright RGB picture.
        class_names: The K classes of the model.
        bounds: Box of the car, as fractions of the photo's width and height; None where the whole photo was read.
        verdict: Whether it is a car, and one of the model's classes.
        logits: (K,) floats before calibration.
        probabilities: (K,) floats that sum to 1.
    """

    def __init__(
        self,
        photo: Image.Image,
        decision: Decision,
        context: ModelContext,
        smaller: Sequence["Prediction"] = (),
    ):
        self.photo, self.class_names = photo, context.class_names
        self.bounds: Box | None = decision.box
        self.verdict: Verdict = decision.verdict
        self._pass, self._context, self._smaller = decision.read, context, smaller
        logits = decision.read.logits
        self.logits: np.ndarray = logits.numpy()
        self.probabilities: np.ndarray = context.calibration(logits[None]).softmax(1)[0].numpy()
        self._cams: dict[tuple[int, str], np.ndarray] = {}

    def __getstate__(self) -> dict:
        """The arrays, with the evidence for the top class, since other evidence needs the network."""
        if self._context.network is not None:
            self._cam(int(self._ranking[0]), explain.GRAD_CAM_PLUS_PLUS)
        features, logits = (tensor.numpy(force=True) for tensor in (self.features, self._pass.logits))
        return self.__dict__ | {"_pass": (features.copy(), logits.copy(), self._pass.part)}

    def __setstate__(self, state: dict) -> None:
        features, logits, part = state["_pass"]
        self.__dict__ |= state | {"_pass": Pass(torch.from_numpy(features), torch.from_numpy(logits), part)}

    @property
    def _network(self) -> Network:
        if (network := self._context.network) is None:
            raise TwinCarError(
                "This answer was pickled and has the evidence for its top class only: draw what else is needed before "
                "that, or answer the photo again with a Predictor."
            )
        return network

    def _cam(self, label: int, method: str) -> np.ndarray:
        if (label, method) not in self._cams:
            self._cams[label, method] = explain.METHODS[method].cam(self._network, self.features, label)
        return self._cams[label, method]

    def __repr__(self) -> str:
        best = self.top(1)[0]
        return f"Prediction({best.class_name!r}, {best.probability:.1%})"

    def top(self, k: int = 5) -> list[Guess]:
        """The k most probable classes, best first; all of them where there are fewer."""
        return [
            Guess(**parse_class_name(self.class_names[label]).as_dict(), probability=float(self.probabilities[label]))
            for label in self._ranking[: max(k, 1)]
        ]

    def makes(self) -> dict[str, float]:
        """Probability of every make, summed over its classes, most probable first."""
        return self._sums(lambda car: car.make)

    def models(self) -> dict[str, float]:
        """Probability of every make, model and body over all years, such as "BMW 3 Series Sedan", best first."""
        return self._sums(lambda car: car.class_name.removesuffix(str(car.year or "")).strip())

    def bodies(self) -> dict[str, float]:
        """Probability of every body type, best first; "" stands for class names without one."""
        return self._sums(lambda car: car.body)

    def _sums(self, key: Callable[[CarName], str]) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for name, probability in zip(self.class_names, self.probabilities, strict=True):
            sums[key(parse_class_name(name))] += float(probability)
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    @property
    def cars(self) -> list["Prediction"]:
        """The answers for all cars of the photo, the largest first; empty where there is none.

        The first one is this answer itself. A model without a detector, and one that is given a box, reads one car.
        """
        return [] if self.is_car is False else [self, *self._smaller]

    @property
    def state(self) -> str:
        """What the answer amounts to: a key of `describe.STATES`, such as "car" or "no_car"."""
        return describe.describe(self).state

    @property
    def is_car(self) -> bool | None:
        """Whether there is a car; None from a model without open-set data."""
        return self.verdict.is_car

    @property
    def is_known(self) -> bool | None:
        """Whether the car is one of the model's classes; None from a model without open-set data."""
        return self.verdict.is_known

    @property
    def car_score(self) -> float:
        """Log-odds that the pass shows a car; NaN from a model without open-set data."""
        return self.verdict.car_score

    @property
    def energy(self) -> float:
        """Negative free energy of the logits; `is_known` compares it with a threshold."""
        return self.verdict.energy

    @property
    def model(self) -> dict[str, str | None]:
        """`name` and `version` of the model. The version changes with its weights, detector and open-set data."""
        return self._context.identity

    @property
    def box(self) -> Pixels | None:
        """The car that the answer is for, in pixels of `photo`; None where none was found."""
        return to_pixels(self.bounds, self.photo.size) if self.bounds else None

    @property
    def others(self) -> list[Pixels]:
        """The boxes of the other cars of the photo, in pixels."""
        return [car.box for car in self.cars[1:] if car.box]

    def in_full(self, box: Pixels | None) -> Pixels | None:
        """Convert a box of `photo` to pixels of the original upright photo, which may have been larger."""
        if box is None or (full := self.photo.info.get(FULL_SIZE)) is None:
            return box
        x, y = full[0] / self.photo.width, full[1] / self.photo.height
        return round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y)

    @property
    def features(self) -> Tensor:
        """(C, h, w) features of the pass."""
        return self._pass.features

    @property
    def crop(self) -> Image.Image:
        """The part of the photo that was read."""
        return self.photo.crop(to_pixels(self._pass.part, self.photo.size))

    @property
    def refined(self) -> bool:
        """Whether a part of the photo was read rather than all of it."""
        return self._pass.part != WHOLE

    def similar_classes(self, class_name: str | None = None, k: int = 3) -> list[SimilarClass]:
        """The k classes most similar to one; empty from a model without open-set data.

        Args:
            class_name: A class of the model; the most probable one by default.
            k: How many to return.

        Raises:
            TwinCarError: The model does not have this class.
        """
        open_set, label = self._context.open_set, self._label(class_name)
        found = open_set.similar_classes(label, k) if open_set else []
        return [SimilarClass(self.class_names[other], cosine, confusions) for other, cosine, confusions in found]

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

    def _in_place(self, draw: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
        """Draw a map of the part that was read into a map of the whole photo, which is 0 elsewhere."""
        x1, y1, x2, y2 = to_pixels(self._pass.part, self.photo.size)
        if (x2 - x1, y2 - y1) == self.photo.size:
            return draw(self.photo.size)
        whole = np.zeros(self.photo.size[::-1], np.float32)
        whole[y1:y2, x1:x2] = draw((x2 - x1, y2 - y1))
        return whole

    def heatmap(self, class_name: str | None = None, method: str = explain.GRAD_CAM_PLUS_PLUS) -> np.ndarray:
        """The evidence for a class, as an (H, W) float32 map in 0-1 at the photo's size.

        It is 0 outside of the part of the photo that was read.

        Args:
            class_name: A class of the model; the most probable one by default.
            method: A name in `explain.METHODS`, in any case, with or without hyphens. "HiResCAM" is more specific to
                the class than "Grad-CAM++". See `explain` for the others; most of them import pytorch-grad-cam.

        Raises:
            TwinCarError: The model does not have this class, there is no such method, or it needs a package that is not
                installed; or this answer was pickled, and this is not the evidence for its top class.
        """
        label, method = self._label(class_name), explain.find_method(method)
        cam = self._cam(label, method)
        return self._in_place(lambda size: explain.at_size(cam, size))

    def overlay(self, class_name: str | None = None, method: str = explain.GRAD_CAM_PLUS_PLUS) -> Image.Image:
        """The photo with the heatmap over it, at the photo's size. Arguments and errors as for `heatmap`."""
        return explain.overlay(self.photo, self.heatmap(class_name, method))

    def probability(self, class_name: str) -> float:
        """The probability (0-1) of a class.

        Raises:
            TwinCarError: The model does not have this class.
        """
        return float(self.probabilities[self._label(class_name)])

    def difference(self, class_name: str, other: str) -> np.ndarray:
        """The evidence that separates two classes, as an (H, W) float32 map in -1 to 1 at the photo's size.

        Positive where the photo supports `class_name` more than `other`. The values are differences of logits divided
        by the largest magnitude; see `explain.difference`.

        Raises:
            TwinCarError: The model does not have one of the classes, or this answer was pickled.
        """
        label, against = self._label(class_name), self._label(other)
        signed = explain.difference(self._network, self.features, label, against)
        return self._in_place(lambda size: explain.at_size_signed(signed, size))

    def difference_overlay(self, class_name: str, other: str) -> Image.Image:
        """The photo in grey with the difference over it: orange supports `class_name`, violet supports `other`."""
        return explain.difference_overlay(self.photo, self.difference(class_name, other))
