"""Predictor: photo -> Prediction. The page, the command line, the notebook and the tests all ask here.

from twincar import Predictor
predictor = Predictor.from_pretrained("models/twincar")   # a folder, or a repo on the Hub: "user/repo"
answer = predictor("photo.jpg")
answer.top(5), answer.heatmap(), answer.overlay("BMW M3 Coupe 2012")
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

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
from twincar.photo import MAX_PIXELS, Photo, PhotoError, load_photo

STATISTICS = (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))  # what a config that names none was trained with
READERS = min(os.cpu_count() or 1, 8)  # threads that decode photos while the network runs
ENOUGH = 2  # times the network's side: a photo of so many pixels is squashed to the same picture as a larger one
REFERENCE = "torch:f32"  # the engine that whatever is published is measured with, the same on every machine


@dataclass(frozen=True)
class Guess(CarName):
    """One ranked class: the name, taken apart, and its probability in 0-1."""

    probability: float = 0.0


class Prediction:
    """What the network says of one photo. `photo` is the upright RGB picture, `probabilities` a (K,) float array."""

    def __init__(self, photo: Image.Image, features: Tensor, probabilities: np.ndarray, network: nn.Module, names):
        self.photo, self.probabilities, self.class_names = photo, probabilities, tuple(names)
        self._features, self._network = features, network
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

    def heatmap(self, class_name: str | None = None) -> np.ndarray:
        """Grad-CAM++ evidence for a class, the best one when None: (H, W) float32 in 0-1 at the photo's size.

        Raises TwinCarError for a class that the model does not have.
        """
        label = self._label(class_name)
        if label not in self._cams:
            self._cams[label] = explain.grad_cam_plus_plus(self._network, self._features, label)
        return explain.at_size(self._cams[label], self.photo.size)

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
        return explain.at_size_signed(
            explain.difference(self._network, self._features, label, against), self.photo.size
        )

    def difference_overlay(self, class_name: str, other: str) -> Image.Image:
        """The photo in grey with that difference over it: orange speaks for `class_name`, violet for `other`."""
        return explain.difference_overlay(self.photo, self.difference(class_name, other))


class Predictor:
    """A published model, ready to answer. Safe to call from several threads.

    device, engine : as of `engine.choose`, which takes the fastest when they are left open.
    """

    def __init__(self, model: hub.CarModel, device: str | torch.device | None = None, engine: str | None = None):
        self.config = model.config
        self.class_names: tuple[str, ...] = tuple(model.config["class_names"])
        self.size: int = model.config["input"]["size"]
        self.temperature: float = model.config.get("temperature", 1.0)  # of `calibrate.py`
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

    def __call__(self, photo: Photo, side: int | None = None) -> Prediction:
        """Answer one photo: a path, bytes, a PIL image or an array. Raises PhotoError for what is no photo.

        side : where the photo will not be shown at full size, so many pixels of either side are enough, as of
            `load_photo`; a large one is then decoded faster.
        """
        return self._answer([self._read(photo, side)])[0]

    def batch(self, photos: Iterable[Photo | PhotoError], batch_size: int = 16) -> list[Prediction | PhotoError]:
        """Answer many, in order. A photo that cannot be read gives its PhotoError in its place and stops nobody; so
        does a PhotoError among the photos, from a reader that could not even hand over a file."""
        return list(self.stream(photos, batch_size))

    def stream(
        self, photos: Iterable[Photo | PhotoError], batch_size: int = 16, full_size: bool = True
    ) -> Iterator[Prediction | PhotoError]:
        """`batch`, an answer at a time: memory holds a batch or two, however many photos there are, and smaller ones of
        photos so large that MAX_PIXELS are reached before. The next photos are decoded while the network runs.

        full_size : False where nobody needs the photos themselves, which is faster for large ones: a photo is decoded
            no larger than the network needs, and `Prediction.photo` is that smaller picture.
        """
        waiting: list[_Read | PhotoError] = []
        pixels = 0
        side, ahead = (None, READERS) if full_size else (ENOUGH * self.size, batch_size)
        for read in _ahead(partial(self._try, side=side), photos, ahead):
            waiting.append(read)
            pixels += 0 if isinstance(read, PhotoError) else read[0].width * read[0].height
            if len(waiting) == batch_size or pixels >= MAX_PIXELS:
                yield from self._answer_mixed(waiting)
                waiting, pixels = [], 0
        yield from self._answer_mixed(waiting)

    def _try(self, photo: Photo | PhotoError, side: int | None) -> "_Read | PhotoError":
        if isinstance(photo, PhotoError):
            return photo
        try:
            return self._read(photo, side)
        except PhotoError as error:
            return error

    def _read(self, photo: Photo, side: int | None) -> "_Read":
        upright = load_photo(photo, side=side and max(side, ENOUGH * self.size))
        return upright, squash(upright, self.size)

    def _answer_mixed(self, waiting: list) -> Iterator[Prediction | PhotoError]:
        readable = [item for item in waiting if not isinstance(item, PhotoError)]
        answers = iter(self._answer(readable))
        for item in waiting:
            yield item if isinstance(item, PhotoError) else next(answers)

    def _answer(self, reads: list["_Read"]) -> list[Prediction]:
        if not reads:
            return []
        images = to_batch([picture for _, picture in reads], self.mean, self.std)
        features, probabilities = self.run(images)
        return [
            Prediction(photo, feature, probability, self.network, self.class_names)
            for (photo, _), feature, probability in zip(reads, features, probabilities.cpu().numpy(), strict=True)
        ]

    @torch.no_grad()  # not inference_mode: explaining differentiates through the head, from these features
    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) normalised images -> their (N, C, h, w) features and (N, K) probabilities.

        Where the model was published with `flip`, the probabilities are those of the mean logits of the picture and its
        mirror image, read in the same pass; the features are always the picture's own.
        """
        count = len(images)
        if self.flip:
            images = torch.cat([images, images.flip(3)])
        features = self.engine.features(images)
        logits = self.network.forward_head(features).float()
        if self.flip:
            logits = (logits[:count] + logits[count:]) / 2
        return features[:count], (logits / self.temperature).softmax(1)


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
