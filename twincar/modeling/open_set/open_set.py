"""Open-set data of a published model: thresholds for "a car" and "a known car", class means, confusions.

`twincar fit-open-set` writes it to `open_set.safetensors` in the model folder. Every score is computed from the
features and logits of the pass that classifies the photo.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import normalize

from twincar.config import TwinCarError
from twincar.modeling.networks.weights import load_tensors, save_tensors

FILE = "open_set.safetensors"
Pooling = Literal["mean", "max"]  # "max" in files of version 0.1


@dataclass(frozen=True)
class Threshold:
    """Lowest score that counts as positive.

    Attributes:
        value: The threshold, in units of its score.
        false_alarms: Fraction (0-1) of the validation pictures, all of known cars, with a lower score.
    """

    value: float
    false_alarms: float


@dataclass(frozen=True)
class Verdict:
    """Whether a pass shows a car, and one of the model's classes.

    Attributes:
        is_car: Whether there is a car; None without open-set data.
        is_known: Whether it is one of the model's classes; None without open-set data, False where there is no car.
        car_score: Log-odds that there is a car.
        energy: Negative free energy of the logits.
    """

    is_car: bool | None = None
    is_known: bool | None = None
    car_score: float = float("nan")
    energy: float = float("nan")

    def or_better(self, other: "Verdict") -> "Verdict":
        """The verdict about a car that two passes show: what one of them finds holds."""
        return Verdict(
            self.is_car or other.is_car,
            self.is_known or other.is_known,
            max(self.car_score, other.car_score),
            max(self.energy, other.energy),
        )


class OpenSet:
    """Rejects photos without a car and cars of unknown classes, and finds similar classes.

    Args:
        car_weight: (C,) weights of the log-odds that a photo shows a car, applied to its `car_features`.
        car_bias: Their bias.
        class_means: (K, C) mean pooled features of each class's training pictures.
        confusion: (K, K) number of validation pictures by class (row) and predicted class (column).
        is_car: Threshold of `car_score`.
        is_known: Threshold of `energy`.
        pooling: Of the `car_features`.
    """

    def __init__(
        self,
        car_weight: Tensor,
        car_bias: float,
        class_means: Tensor,
        confusion: Tensor,
        is_car: Threshold,
        is_known: Threshold,
        pooling: Pooling = "mean",
    ):
        self.car_weight, self.car_bias = car_weight, car_bias
        self.class_means, self.confusion = class_means, confusion
        self.is_car, self.is_known = is_car, is_known
        self.pooling = pooling

    def car_score(self, features: Tensor) -> float:
        """Log-odds that (C, h, w) features are those of a photo of a car."""
        return float(car_features(features, self.pooling) @ self.car_weight + self.car_bias)

    def judge(self, features: Tensor, logits: Tensor, temperature: float) -> Verdict:
        """Decide whether a pass shows a car, and one of the model's classes.

        Args:
            features: (C, h, w) features of the pass.
            logits: (K,) logits of the pass, before calibration.
            temperature: Of the model's calibration.
        """
        car_score, known = self.car_score(features), float(energy(logits, temperature))
        is_car = car_score >= self.is_car.value
        return Verdict(is_car, is_car and known >= self.is_known.value, car_score, known)

    def similar_classes(self, label: int, k: int) -> list[tuple[int, float, int]]:
        """Find the k classes most similar to one, the most similar first.

        Args:
            label: The class, 0 to K-1.
            k: Number of classes to return, at most K-1.

        Returns:
            (label, cosine, confusions) of each: the cosine (-1 to 1) of the two class means around the mean of all
            classes, and the number of validation pictures of either class that were predicted as the other.
        """
        means = normalize(self.class_means - self.class_means.mean(0), dim=1)
        cosines = means @ means[label]
        cosines[label] = -torch.inf
        confusions = self.confusion + self.confusion.T
        closest = cosines.topk(min(k, len(means) - 1)).indices.tolist()
        return [(other, float(cosines[other]), int(confusions[label, other])) for other in closest]

    def with_classes(self, means: Tensor) -> "OpenSet":
        """Append M classes, given their (M, C) mean features; no validation pictures of them are known."""
        confusion = torch.nn.functional.pad(self.confusion, (0, len(means), 0, len(means)))
        return self._with(torch.cat([self.class_means, means.to(self.class_means)]), confusion)

    def without(self, label: int) -> "OpenSet":
        """Remove a class."""
        kept = torch.arange(len(self.class_means)) != label
        return self._with(self.class_means[kept], self.confusion[kept][:, kept])

    def _with(self, class_means: Tensor, confusion: Tensor) -> "OpenSet":
        return OpenSet(self.car_weight, self.car_bias, class_means, confusion, self.is_car, self.is_known, self.pooling)

    def save(self, folder: str | Path) -> Path:
        """Write `open_set.safetensors` into a model folder, class means in half precision, and return its path."""
        path = Path(folder) / FILE
        tensors = {
            "car.weight": self.car_weight.float(),
            "car.bias": torch.tensor(self.car_bias),
            "class_means": self.class_means.half(),
            "confusion": self.confusion.to(torch.int16),
        }
        thresholds = {"is_car": asdict(self.is_car), "is_known": asdict(self.is_known)}
        metadata = {key: json.dumps(value) for key, value in (thresholds | {"pooling": self.pooling}).items()}
        return save_tensors(tensors, path, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "OpenSet":
        """Read `open_set.safetensors`.

        Raises:
            TwinCarError: The file cannot be read or lacks an entry.
        """
        try:
            tensors, metadata = load_tensors(path)
            return cls(
                tensors["car.weight"],
                float(tensors["car.bias"]),
                tensors["class_means"].float(),
                tensors["confusion"].int(),
                Threshold(**metadata["is_car"]),
                Threshold(**metadata["is_known"]),
                metadata.get("pooling", "max"),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TwinCarError(
                f"{path} cannot be read: run `twincar fit-open-set` again, or delete the file and the entry `open_set` "
                f"of config.json to use the model without it ({error})."
            ) from error


def car_features(features: Tensor, pooling: Pooling = "mean") -> Tensor:
    """The (..., C) vectors that tell photos of cars from others, of (..., C, h, w) features.

    They are the means over all positions, scaled to unit length: a single part that a car also has, such as the wheel
    of a bicycle, changes them little, while it can raise each of the maxima to that of a car.
    """
    features = features.float().cpu()
    if pooling == "max":
        return features.amax((-2, -1))
    return normalize(features.mean((-2, -1)), dim=-1)


def energy(logits: Tensor, temperature: float) -> Tensor:
    """Negative free energy of (..., K) logits, (...): the higher, the more likely is a known class.

    T * log(sum(exp(logits / T))): Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020
    (arXiv:2010.03759), equation 4.
    """
    return temperature * torch.logsumexp(logits / temperature, -1)
