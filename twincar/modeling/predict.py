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
from twincar.features import squash
from twincar.modeling import engine as engines
from twincar.modeling import hub
from twincar.modeling.calibrate import Calibration
from twincar.modeling.locate import WHOLE, Box, area, boxes_in, with_margin
from twincar.modeling.prediction import Look, Pixels, Prediction, pixels, share
from twincar.modeling.trunk import Seen, Trunk
from twincar.photo import FULL_SIZE, MAX_PIXELS, Photo, PhotoError, load_photo

STATISTICS = (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))  # what a config that names none was trained with
FILLED = 0.8  # share of the photo from which on a car is not looked at again: it is framed as in training already
READERS = min(os.cpu_count() or 1, 8)  # threads that decode photos while the network runs
ENOUGH = 2  # times the network's side: a photo of so many pixels is squashed to the same picture as a larger one
REFERENCE = "torch:f32"  # the engine that whatever is published is measured with, the same on every machine


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
        ranges = model.config.get("int8", {}).get("ranges")
        locator = self.knowledge.locator if self.knowledge else None
        trunk = Trunk(self.network, self.mean, self.std, locator).eval()
        self.engine = engines.choose(trunk, self.size, device, engine, ranges)

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
        car = share(box, image.size)
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
            no larger than the network needs, once more where a small part of it is looked at, and `Prediction.photo`
            is that smaller picture.
        """
        waiting: list[_Read | PhotoError] = []
        held = 0
        side, ahead = (None, READERS) if full_size else (self._enough(closer=False), batch_size)
        pool = ThreadPoolExecutor(READERS, "reader")
        try:
            for read in _ahead(pool, partial(self._try, side=side), photos, ahead):
                waiting.append(read)
                held += 0 if isinstance(read, PhotoError) else read.photo.width * read.photo.height
                if len(waiting) == batch_size or held >= MAX_PIXELS:
                    yield from self._answer_mixed(waiting, closer, pool)
                    waiting, held = [], 0
            yield from self._answer_mixed(waiting, closer, pool)
        finally:
            pool.shutdown(cancel_futures=True)

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
        return _Read(upright, squash(upright, self.size), photo if FULL_SIZE in upright.info else None)

    def _answer_mixed(self, waiting: list, closer: bool, pool: ThreadPoolExecutor) -> Iterator[Prediction | PhotoError]:
        readable = [item for item in waiting if not isinstance(item, PhotoError)]
        answers = iter(self._answer(readable, closer, pool.map))
        for item in waiting:
            yield item if isinstance(item, PhotoError) else next(answers)

    def _answer(self, reads: list["_Read"], closer: bool, mapped: Callable = map) -> list[Prediction]:
        looks = [[look] for look in self._look([read.picture for read in reads], [WHOLE] * len(reads))]
        cars: list[list[Box]] = [[] for _ in reads]
        if closer and self.knowledge:
            cars = [boxes_in(look.coverage) for (look,) in looks]
            parts = {row: with_margin(found[0]) for row, found in enumerate(cars) if found}
            parts = {row: part for row, part in parts.items() if area(part) < FILLED}
            pictures = list(mapped(self._closer, [reads[row] for row in parts], parts.values()))
            for row, look in zip(parts, self._look(pictures, list(parts.values())), strict=True):
                looks[row].append(look)
        photos = [read.photo for read in reads]
        return [Prediction(*row, self) for row in zip(photos, looks, cars, strict=True)]

    def _closer(self, read: "_Read", part: Box) -> np.ndarray:
        """What the network sees of a part of a photo, which is decoded again if it was decoded too small for that."""
        x1, y1, x2, y2 = pixels(part, read.photo.size)
        too_small = min(x2 - x1, y2 - y1) < ENOUGH * self.size
        side = self._enough(closer=True)
        if read.source is not None and too_small and min(read.photo.size) < side:
            try:
                return self._cut(load_photo(read.source, side=side), part)
            except PhotoError:  # it has gone since; the small one is here
                pass
        return self._cut(read.photo, part)

    def _cut(self, photo: Image.Image, part: Box) -> np.ndarray:
        return squash(photo.crop(pixels(part, photo.size)), self.size)

    def _look(self, pictures: list[np.ndarray], parts: list[Box]) -> list[Look]:
        """Read (size, size, 3) pictures, which are these parts of their photos, in one pass."""
        if not pictures:
            return []
        seen, logits = self.run(pictures)
        coverage = [None] * len(pictures) if seen.coverage is None else seen.coverage.cpu().numpy()
        return [Look(*row) for row in zip(seen.features, logits.cpu(), parts, coverage, strict=True)]

    @torch.no_grad()  # not inference_mode: explaining differentiates through the head, from these features
    def run(self, pictures: Sequence[np.ndarray]) -> tuple[Seen, Tensor]:
        """What the trunk sees in N uint8 pictures, (size, size, 3), and their (N, K) logits, before calibration.

        Where the model was published with `flip`, the logits are the mean of those of the picture and its mirror image,
        read in the same pass; what is seen is always the picture's own.
        """
        count, batch = len(pictures), torch.from_numpy(np.stack(pictures))
        seen = self.engine.look(torch.cat([batch, batch.flip(2)]) if self.flip else batch)
        logits = self.network.forward_head(seen.features).float()
        if self.flip:
            seen, _ = seen.split([count, count])
            logits = (logits[:count] + logits[count:]) / 2
        return seen, logits


class _Read(NamedTuple):
    """A photo, upright; what the network sees of it; and, where it is smaller than it was, what it was read from."""

    photo: Image.Image
    picture: np.ndarray
    source: Photo | None


def _ahead(pool: ThreadPoolExecutor, work: Callable, items: Iterable, count: int) -> Iterator:
    """work(item) for each item, in order; the pool is up to `count` items ahead of what has been taken."""
    running: deque[Future] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) > count:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
