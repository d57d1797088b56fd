"""Predictor: photo -> Prediction. Page, command line, notebook and tests all use it.

    from twincar import Predictor
    predictor = Predictor.from_pretrained("models/twincar")   # a folder, or a repo on the Hub: "user/repo"
    answer = predictor("photo.jpg")
    answer.top(5), answer.heatmap(), answer.overlay("BMW M3 Coupe 2012")
    answer.is_car, answer.is_known, answer.box, answer.makes(), answer.similar_classes()

A model with a detector reads a photo in two passes where the car does not fill it: the first one reads the whole photo
and finds the car, the second one reads that part again at its full resolution, cropped as in training.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twincar.config import IMAGENET_MEAN, IMAGENET_STD
from twincar.features.photo import FULL_SIZE, MAX_PIXELS, Photo, PhotoError, load_photo
from twincar.features.transforms import squash
from twincar.modeling.detection.boxes import WHOLE, Box, Pixels, area, to_fractions, to_pixels, with_margin
from twincar.modeling.detection.detector import find_boxes
from twincar.modeling.engines.backbone import Backbone, BackboneOutput
from twincar.modeling.engines.choose import choose
from twincar.modeling.hub import model_folder
from twincar.modeling.inference.calibration import Calibration
from twincar.modeling.inference.prediction import ModelContext, Pass, Prediction

STATISTICS = (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))  # defaults for a config that names none
FILLED = 0.8  # a box with margin that covers this fraction of the photo needs no second pass
READERS = min(os.cpu_count() or 1, 8)  # threads that decode photos while the network runs
OVERSAMPLING = 2  # a photo of that many times the network's side is squashed to the same picture as a larger one
REFERENCE = "torch:f32"  # the engine of all published scores: the same on every machine


class Predictor:
    """A published model that answers photos. Safe to call from several threads.

    Args:
        model: As loaded by `model_folder.load`.
        device: A torch device; the fastest by default.
        engine: As for `engines.choose.choose`; the fastest by default.

    Attributes:
        config: The model's `config.json`.
        class_names: The K classes, in label order.
        size: Side in pixels at which the network reads pictures.
        network: The network in torch, in eval mode.
        engine: What runs its backbone.
    """

    def __init__(
        self, model: model_folder.CarModel, device: str | torch.device | None = None, engine: str | None = None
    ):
        self.config, self.detector, self.open_set = model.config, model.detector, model.open_set
        self.class_names: tuple[str, ...] = tuple(model.config["class_names"])
        self.size: int = model.config["input"]["size"]
        self.calibration = Calibration.from_config(model.config)
        self.mean, self.std = (model.config["input"].get(key, default) for key, default in STATISTICS)
        self.flip: bool = model.config["input"].get("flip", False)
        self.network = model.network.eval().requires_grad_(False)
        ranges = model.config.get("int8", {}).get("ranges")
        backbone = Backbone(self.network, self.mean, self.std, self.detector).eval()
        self.engine = choose(backbone, self.size, device, engine, ranges)
        self._context = ModelContext(self.class_names, self.network, self.calibration, self.open_set)

    @classmethod
    def from_pretrained(cls, repo_or_folder: str | Path, *, device=None, engine=None, **hub_options) -> "Predictor":
        """Load a model folder or a Hub repo.

        Args:
            repo_or_folder: A folder, "user/repo", "user/repo@revision", or a `.pth` checkpoint of the original TwinCar.
            device: As for `Predictor`.
            engine: As for `Predictor`.
            **hub_options: `revision`, `token`, `cache_dir`, ... for the Hub client.

        Raises:
            ModelError: There is no such model, or it cannot be fetched or read.
            EngineError: The engine is unknown or not available on this machine.
        """
        return cls(model_folder.load(repo_or_folder, **hub_options), device, engine)

    def __call__(
        self, photo: Photo, box: Pixels | None = None, refine: bool = True, side: int | None = None
    ) -> Prediction:
        """Answer one photo.

        Args:
            photo: A path, bytes, a PIL image or an array.
            box: (x1, y1, x2, y2) of the car in pixels of the upright photo; only this part is then read.
            refine: Whether a second pass reads the car that was found, where it does not fill the photo. Use False for
                pictures that are cropped to the car already.
            side: Where the photo is not shown at full size, this many pixels a side are enough (see `load_photo`); a
                large photo is then decoded faster. Ignored together with `box`, which is in pixels of the full size.

        Raises:
            PhotoError: `photo` is not a readable picture.
            TwinCarError: The box is not inside the photo.
        """
        if box is None:
            return self._answer([self._read(photo, side and max(side, self._side_needed(refine)))], refine)[0]
        image = load_photo(photo)
        car = to_fractions(box, image.size)
        part = with_margin(car)
        return Prediction(image, self._passes([self._crop(image, part)], [part]), [car], self._context)

    def batch(
        self, photos: Iterable[Photo | PhotoError], batch_size: int = 16, refine: bool = True
    ) -> list[Prediction | PhotoError]:
        """Answer many photos, in order.

        A photo that cannot be read gives a PhotoError in its place; the others are answered. A PhotoError among the
        photos, from a reader that could not read a file, is returned as it is.
        """
        return list(self.stream(photos, batch_size, refine))

    def stream(
        self, photos: Iterable[Photo | PhotoError], batch_size: int = 16, refine: bool = True, full_size: bool = True
    ) -> Iterator[Prediction | PhotoError]:
        """Like `batch`, but yields each answer when it is ready.

        At most two batches are in memory. A batch ends early when its photos together have MAX_PIXELS pixels. The next
        photos are decoded while the network runs.

        Args:
            photos: As for `batch`.
            batch_size: Photos in one run of the network.
            refine: As for `__call__`.
            full_size: False where the photos themselves are not needed, which is faster for large ones. A photo is then
                decoded no larger than the network needs, once more where a second pass reads a small part of it, and
                `Prediction.photo` is that smaller picture.
        """
        waiting: list[_Decoded | PhotoError] = []
        held = 0
        side, ahead = (None, READERS) if full_size else (self._side_needed(refine=False), batch_size)
        pool = ThreadPoolExecutor(READERS, "reader")
        try:
            for decoded in _ahead(pool, partial(self._try_read, side=side), photos, ahead):
                waiting.append(decoded)
                held += 0 if isinstance(decoded, PhotoError) else decoded.photo.width * decoded.photo.height
                if len(waiting) == batch_size or held >= MAX_PIXELS:
                    yield from self._answer_mixed(waiting, refine, pool)
                    waiting, held = [], 0
            yield from self._answer_mixed(waiting, refine, pool)
        finally:
            pool.shutdown(cancel_futures=True)

    def _side_needed(self, refine: bool) -> int:
        """Pixels that a side of a photo needs; twice as many where a second pass may read a part of it."""
        return OVERSAMPLING * self.size * (2 if refine and self.detector else 1)

    def _try_read(self, photo: Photo | PhotoError, side: int | None) -> "_Decoded | PhotoError":
        if isinstance(photo, PhotoError):
            return photo
        try:
            return self._read(photo, side)
        except PhotoError as error:
            return error

    def _read(self, photo: Photo, side: int | None) -> "_Decoded":
        upright = load_photo(photo, side=side)
        return _Decoded(upright, squash(upright, self.size), photo if FULL_SIZE in upright.info else None)

    def _answer_mixed(self, waiting: list, refine: bool, pool: ThreadPoolExecutor) -> Iterator[Prediction | PhotoError]:
        readable = [item for item in waiting if not isinstance(item, PhotoError)]
        answers = iter(self._answer(readable, refine, pool.map))
        for item in waiting:
            yield item if isinstance(item, PhotoError) else next(answers)

    def _answer(self, decoded: list["_Decoded"], refine: bool, mapped: Callable = map) -> list[Prediction]:
        passes = [[first] for first in self._passes([each.picture for each in decoded], [WHOLE] * len(decoded))]
        cars = [find_boxes(first.coverage) if refine and first.coverage is not None else [] for (first,) in passes]
        parts = {row: with_margin(found[0]) for row, found in enumerate(cars) if found}
        parts = {row: part for row, part in parts.items() if area(part) < FILLED}
        pictures = list(mapped(self._crop_again, [decoded[row] for row in parts], parts.values()))
        for row, second in zip(parts, self._passes(pictures, list(parts.values())), strict=True):
            passes[row].append(second)
        photos = [each.photo for each in decoded]
        return [Prediction(*row, self._context) for row in zip(photos, passes, cars, strict=True)]

    def _crop_again(self, decoded: "_Decoded", part: Box) -> np.ndarray:
        """The network's input for a part of a photo, which is decoded again if it was decoded too small for that."""
        x1, y1, x2, y2 = to_pixels(part, decoded.photo.size)
        too_small = min(x2 - x1, y2 - y1) < OVERSAMPLING * self.size
        side = self._side_needed(refine=True)
        if decoded.source is not None and too_small and min(decoded.photo.size) < side:
            try:
                return self._crop(load_photo(decoded.source, side=side), part)
            except PhotoError:  # the file is gone: the smaller picture is still here
                pass
        return self._crop(decoded.photo, part)

    def _crop(self, photo: Image.Image, part: Box) -> np.ndarray:
        return squash(photo.crop(to_pixels(part, photo.size)), self.size)

    def _passes(self, pictures: list[np.ndarray], parts: list[Box]) -> list[Pass]:
        """Run the network once over (size, size, 3) pictures, which are these parts of their photos."""
        if not pictures:
            return []
        output, logits = self.run(pictures)
        coverage = [None] * len(pictures) if output.coverage is None else output.coverage.cpu().numpy()
        return [Pass(*row) for row in zip(output.features, logits.cpu(), parts, coverage, strict=True)]

    @torch.no_grad()  # not inference_mode: the CAM methods differentiate through the head, from these features
    def run(self, pictures: Sequence[np.ndarray]) -> tuple[BackboneOutput, Tensor]:
        """Run the network over N pictures in one batch.

        Args:
            pictures: N uint8 arrays, (size, size, 3).

        Returns:
            The backbone's output, and (N, K) logits before calibration. Where the model was published with `flip`, the
            logits are the mean over each picture and its mirror image, and the output is that of the picture itself.
        """
        count, batch = len(pictures), torch.from_numpy(np.stack(pictures))
        output = self.engine.run(torch.cat([batch, batch.flip(2)]) if self.flip else batch)
        logits = self.network.forward_head(output.features).float()
        if self.flip:
            output, _ = output.split([count, count])
            logits = (logits[:count] + logits[count:]) / 2
        return output, logits


class _Decoded(NamedTuple):
    """A photo, upright; the network's input; and, where the photo was decoded smaller than it is, its source."""

    photo: Image.Image
    picture: np.ndarray
    source: Photo | None


def _ahead(pool: ThreadPoolExecutor, work: Callable, items: Iterable, count: int) -> Iterator:
    """work(item) for each item, in order; the pool works up to `count` items ahead of what has been taken."""
    running: deque[Future] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) > count:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
