"""New classes for a published model from a few photos each, without training.

    predictor = Predictor.from_pretrained("models/twincar")
    wider = predictor.with_classes({"Tesla Model 3 Sedan 2021": ["1.jpg", "2.jpg", "3.jpg"]})

The backbone stays as it is; the head gets a row for every new class, computed from the features of its photos
(`networks/closed_form_head.py`). The logits of all other classes stay the same. The logit of a new class is a
log-likelihood on the same scale, so that it is calibrated, and known (`is_known`), like the others.
"""

import copy
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from twincar.config import TwinCarError, canonical_class_name
from twincar.data.duplicates import duplicate_groups, thumbnail
from twincar.features.photo import Photo, PhotoError
from twincar.features.transforms import squash
from twincar.modeling.detection.boxes import Pixels
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.networks.closed_form_head import ClassStatistics

if TYPE_CHECKING:
    from twincar.modeling.inference.predictor import Predictor

MAX_NAME = 120  # characters
FEW = 3  # photos from which on a new class is reliable
BATCH_SIZE = 16


@dataclass(frozen=True)
class Framed:
    """A photo with the box (x1, y1, x2, y2) of the car in its pixels, for one in which the detector fails."""

    photo: Photo
    box: Pixels


@dataclass(frozen=True)
class Examples:
    """The photos of one new class, as features.

    Attributes:
        name: The class.
        mean: (D,) mean of the pooled features of the car and of its mirror image, over the photos.
        count: Number of photos that are used.
        skipped: (photo, reason) of those that are not.
        notes: What may be wrong with the others, one sentence each.
    """

    name: str
    mean: Tensor
    count: int
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def read_examples(predictor: "Predictor", name: str, photos: Iterable[Photo | Framed]) -> Examples:
    """Find the car in each photo of a new class and compute its features.

    Args:
        predictor: The model that the class is for.
        name: Name of the class.
        photos: Its photos. Of several cars in one the largest is used.

    Raises:
        TwinCarError: The model cannot take new classes, has this one already, or no photo can be used.
    """
    name = check_name(predictor, name)
    answers: list[tuple[str, Prediction]] = []
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
    for label, answer in _answers(predictor, photos):
        if isinstance(answer, PhotoError):
            skipped.append((label, str(answer)))
        elif answer.is_car is False:
            skipped.append((label, "no car was found"))
        else:
            if len(answer.cars) > 1:
                notes.append(f"{label} has {len(answer.cars)} cars: the largest one was used.")
            answers.append((label, answer))
    answers = _without_duplicates(answers, skipped)
    if not answers:
        why = "; ".join(f"{photo}: {reason}" for photo, reason in skipped[:3])
        raise TwinCarError(
            f"No photo of {name!r} can be used{f' ({why})' if why else ''}: give photos of whole cars, three or more."
        )
    cars = [answer for _, answer in answers]
    if (like := _known_class(cars)) is not None:
        notes.append(f"The photos look like the {like}, which the model already has.")
    if len(cars) < FEW:
        notes.append(f"{len(cars)} of the photos can be used: with {FEW} or more the class is recognized far better.")
    return Examples(name, pooled_features(predictor, cars).mean(0), len(cars), tuple(skipped), tuple(notes))


@torch.no_grad()
def pooled_features(predictor: "Predictor", answers: Sequence[Prediction]) -> Tensor:
    """(N, D) pooled features of N cars, each the mean of those of its picture and of the mirror image."""
    pooled = []
    for start in range(0, len(answers), BATCH_SIZE):
        part = answers[start : start + BATCH_SIZE]
        mirrored, _ = predictor.run([squash(answer.crop, predictor.size)[:, ::-1] for answer in part])
        features = torch.stack([answer.features for answer in part]).float()
        both = [predictor.network.forward_head(each, pre_logits=True) for each in (features, mirrored.features)]
        pooled.append(((both[0] + both[1]) / 2).cpu())
    return torch.cat(pooled)


def check_name(predictor: "Predictor", name: str) -> str:
    """The name of a new class, without needless spaces.

    Raises:
        TwinCarError: The model cannot take new classes, or has this one, or the name is empty or too long.
    """
    _statistics(predictor.model)
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name or len(name) > MAX_NAME or not re.search(r"\w", name):
        raise TwinCarError(f"A class name has 1 to {MAX_NAME} characters, such as 'Tesla Model 3 Sedan 2021'.")
    if canonical_class_name(name) in map(canonical_class_name, predictor.class_names):
        raise TwinCarError(
            f"The model already has the class {name!r}: choose another name, or remove it with `twincar remove-class`."
        )
    return name


def add_classes(model: CarModel, examples: Sequence[Examples]) -> CarModel:
    """A model with more classes, which shares the backbone with the given one.

    Raises:
        TwinCarError: The model has no class statistics, or two of the names are the same.
    """
    before = _statistics(model)
    names = [each.name for each in examples]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise TwinCarError(f"The class {twice[0]!r} is given twice.")
    means = torch.stack([each.mean for each in examples])
    statistics = before.with_classes(means, torch.tensor([each.count for each in examples]))
    head = model.network.fc
    assert isinstance(head, nn.Linear)  # `fit_head` makes it one
    wider = _linear(*(part.to(head.weight) for part in statistics.extend(head.weight.detach(), head.bias.detach())))
    config = copy.deepcopy(model.config)
    config["class_names"] += names
    today = date.today().isoformat()
    added = {each.name: {"photos": each.count, "date": today} for each in examples}
    config["added_classes"] = config.get("added_classes", {}) | added
    config.pop("weights_sha256", None)  # until it is saved, it is no published version
    open_set = model.open_set and model.open_set.with_classes(means)
    return model.replace(config, model.network.with_head(wider), open_set, statistics)


def remove_class(model: CarModel, name: str) -> CarModel:
    """A model without one of its classes, which shares the backbone with the given one.

    Raises:
        TwinCarError: The model has no such class, no class statistics, or no other class.
    """
    names = list(model.config["class_names"])
    if name not in names:
        raise TwinCarError(f"The model has no class {name!r}: `twincar classes` lists those it has.")
    statistics = _statistics(model)
    if len(names) == 1:
        raise TwinCarError(f"{name!r} is the only class of the model.")
    label = names.index(name)
    kept = torch.arange(len(names)) != label
    head = model.network.fc
    assert isinstance(head, nn.Linear)
    config = copy.deepcopy(model.config)
    config["class_names"].remove(name)
    if config.get("added_classes", {}).pop(name, None) is None:
        config["removed_classes"] = [*config.get("removed_classes", []), name]
    config.pop("weights_sha256", None)
    open_set = model.open_set and model.open_set.without(label)
    network = model.network.with_head(_linear(head.weight[kept], head.bias[kept]))
    return model.replace(config, network, open_set, statistics.without(label))


def _statistics(model: CarModel) -> ClassStatistics:
    """The class statistics of a model, or a TwinCarError."""
    if model.class_statistics is None:
        raise TwinCarError(
            "This model has no class statistics, which new classes are computed with: run `twincar fit-head` on its "
            "folder, with its training pictures, or use a model that has them."
        )
    return model.class_statistics


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], len(weight), device=weight.device)
    layer.weight, layer.bias = (nn.Parameter(value.detach().clone(), requires_grad=False) for value in (weight, bias))
    return layer


def _answers(predictor: "Predictor", photos: Iterable[Photo | Framed]) -> Iterable[tuple[str, Prediction | PhotoError]]:
    """The answer for each photo, with a name of the photo for messages."""
    listed = list(photos)
    plain = [photo for photo in listed if not isinstance(photo, Framed)]
    stream = iter(predictor.stream(plain, BATCH_SIZE))
    for number, each in enumerate(listed, 1):
        source = each.photo if isinstance(each, Framed) else each
        label = Path(source).name if isinstance(source, str | Path) else f"photo {number}"
        if not isinstance(each, Framed):
            yield label, next(stream)
            continue
        try:
            yield label, predictor(each.photo, each.box)
        except (PhotoError, TwinCarError) as error:
            yield label, error if isinstance(error, PhotoError) else PhotoError(str(error))


def _without_duplicates(
    answers: list[tuple[str, Prediction]], skipped: list[tuple[str, str]]
) -> list[tuple[str, Prediction]]:
    """The first of each group of near-duplicate pictures; the others are appended to `skipped`."""
    if len(answers) < 2:
        return answers
    groups = duplicate_groups(np.stack([thumbnail(answer.crop) for _, answer in answers]))
    first: dict[int, str] = {}
    kept = []
    for (label, answer), group in zip(answers, groups.tolist(), strict=True):
        if group >= 0 and group in first:
            skipped.append((label, f"the same picture as {first[group]}"))
            continue
        first.setdefault(group, label)
        kept.append((label, answer))
    return kept


def _known_class(answers: Sequence[Prediction]) -> str | None:
    """The class that most of the photos are answered with as known, if there is one."""
    known = Counter(answer.top(1)[0].class_name for answer in answers if answer.state in ("car", "model"))
    name, count = known.most_common(1)[0] if known else ("", 0)
    return name if count > len(answers) / 2 else None
