"""What a model knows beside its classes: what a car looks like, how sure it is of those it knows, where a car is, which
of its classes look alike. It lies in `knowledge.safetensors` beside the weights; `learn.py` makes it.

Everything is read from the features and logits of a pass that has been made anyway.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from twincar.config import TwinCarError
from twincar.files import write_beside
from twincar.modeling.locate import Locator

FILE = "knowledge.safetensors"


@dataclass(frozen=True)
class Threshold:
    """A score from which the answer is yes. `false_alarms` is the share of validation pictures, all of them known cars,
    that fall below it: chosen, not found."""

    value: float
    false_alarms: float


class Knowledge:
    """The five tensors and two thresholds; see the methods for what each is for.

    car_weight (C,), car_bias () : log-odds that a photo shows a car, from the maxima of its features over the photo.
    class_means (K, C) : mean of the pooled features of each class's training pictures.
    confusion (K, K) : validation pictures of a class (row) that were answered with another (column).
    """

    def __init__(
        self,
        car_weight: Tensor,
        car_bias: float,
        class_means: Tensor,
        confusion: Tensor,
        locator: Locator,
        is_car: Threshold,
        is_known: Threshold,
    ):
        self.car_weight, self.car_bias, self.locator = car_weight, car_bias, locator
        self.class_means, self.confusion = class_means, confusion
        self.is_car, self.is_known = is_car, is_known

    def car_score(self, features: Tensor) -> float:
        """Log-odds that (C, h, w) features are those of a photo of a car."""
        return float(features.float().cpu().amax((1, 2)) @ self.car_weight + self.car_bias)

    def alike(self, label: int, k: int) -> list[tuple[int, float, int]]:
        """The k classes most like one, by the cosine of their means around the mean of all: (label, cosine in -1 to 1,
        how many validation pictures of the two were taken for the other)."""
        means = torch.nn.functional.normalize(self.class_means - self.class_means.mean(0), dim=1)
        cosines = means @ means[label]
        cosines[label] = -torch.inf
        mixed = self.confusion + self.confusion.T
        nearest = cosines.topk(min(k, len(means) - 1)).indices.tolist()
        return [(other, float(cosines[other]), int(mixed[label, other])) for other in nearest]

    def save(self, folder: str | Path) -> Path:
        """Write `knowledge.safetensors` into a model's folder, weights in half precision."""
        path = Path(folder) / FILE
        tensors = {f"locator.{key}": value.half() for key, value in self.locator.state_dict().items()}
        tensors |= {
            "car.weight": self.car_weight.float(),
            "car.bias": torch.tensor(self.car_bias),
            "class_means": self.class_means.half(),
            "confusion": self.confusion.to(torch.int16),
        }
        about = {"is_car": asdict(self.is_car), "is_known": asdict(self.is_known)}
        about = {key: json.dumps(value) for key, value in about.items()}
        with write_beside(path) as beside:
            save_file({key: value.contiguous() for key, value in tensors.items()}, beside, metadata=about)
            beside.chmod(0o644)  # safetensors writes for its owner alone; a server may run as somebody else
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Knowledge":
        """Read the file. Raises TwinCarError when it cannot be read or lacks something."""
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict
            layers = {
                key.removeprefix("locator."): t.float() for key, t in tensors.items() if key.startswith("locator.")
            }
            locator = Locator(tensors["class_means"].shape[1])
            locator.load_state_dict(layers)
            return cls(
                tensors["car.weight"],
                float(tensors["car.bias"]),
                tensors["class_means"].float(),
                tensors["confusion"].int(),
                locator.eval().requires_grad_(False),
                Threshold(**json.loads(about["is_car"])),
                Threshold(**json.loads(about["is_known"])),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TwinCarError(
                f"{path} cannot be read: run `twincar learn` again, or delete the file to do without ({error})."
            ) from error


def familiarity(logits: Tensor, temperature: float) -> Tensor:
    """(..., K) logits -> (...) how much they speak for any class at all: their negative free energy.

    Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020 (arXiv:2010.03759), equation 4.
    """
    return temperature * torch.logsumexp(logits / temperature, -1)
