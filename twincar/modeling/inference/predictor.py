"""Predictor: photo -> Prediction. Page, command line, notebook and tests all use it.

    from twincar import Predictor
    predictor = Predictor.from_pretrained("models/twincar")   # a folder, or a repo on the Hub: "user/repo"
    answer = predictor("photo.jpg")
    answer.top(5), answer.heatmap(), answer.overlay("BMW M3 Coupe 2012")
    answer.state, answer.box, answer.makes(), answer.similar_classes()
    [(car.box, car.top(1)) for car in answer.cars]            # every car in the photo, the largest first

A model with a detector reads a photo in two passes: the first one reads the whole photo and finds the cars, the second
one reads every car that does not fill the photo again at its full resolution, cropped as in training, all in one batch.
`decision.py` decides from these passes which boxes show a car, and which of these the model has as a class.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain
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
from twincar.modeling.engines.base import MAX_BATCH
from twincar.modeling.engines.choose import choose
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import ModelError, model_version
from twincar.modeling.inference.calibration import Calibration
from twincar.modeling.inference.decision import Judge, Pass, decide, decide_given
from twincar.modeling.inference.new_classes import Examples, Framed, add_classes, read_examples
from twincar.modeling.inference.prediction import ModelContext, Prediction

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
        model: What it was created from.
        engine: What runs its backbone.
    """

    def __init__(
        self, model: model_folder.CarModel, device: str | torch.device | None = None, engine: str | None = None
    ):
        self._use(model)
        self._wanted = (device, engine)
        ranges = model.config.get("int8", {}).get("ranges")
        backbone = Backbone(self.network, self.mean, self.std, self.detector).eval()
        self.engine = choose(backbone, self.size, device, engine, ranges)

    def __reduce__(self) -> tuple:
        """Pickle as where the model came from, or, where it was not loaded or has been changed, as the model."""
        source = self.model.source
        if source and source.version == model_version(self.config):
            return _again, (source.name, tuple(source.options.items()), source.version, *self._wanted)
        return Predictor, (self.model, *self._wanted)

    def __copy__(self) -> "Predictor":
        same = object.__new__(Predictor)
        same.__dict__.update(self.__dict__)
        return same

    def _use(self, model: model_folder.CarModel) -> None:
        """Take everything but the engine from a model."""
        self.model = model
        self.config, self.detector, self.open_set = model.config, model.detector, model.open_set
        self.class_names: tuple[str, ...] = tuple(model.config["class_names"])
        self.size: int = model.config["input"]["size"]
        self.calibration = Calibration.from_config(model.config)
        self.mean, self.std = (model.config["input"].get(key, default) for key, default in STATISTICS)
        self.flip: bool = model.config["input"].get("flip", False)
        self.network = model.network.eval().requires_grad_(False)
        identity = model.config.get("name", "twincar"), model_version(model.config)
        self._context = ModelContext(self.class_names, self.network, self.calibration, self.open_set, *identity)

    @property
    def identity(self) -> dict[str, str | None]:
        """`name` and `version` of the model, as in each of its answers."""
        return self._context.identity

    def with_classes(self, photos: Mapping[str, Iterable[Photo | Framed]]) -> "Predictor":
        """A predictor with more classes, from a few photos of each and without training; this one stays as it is.

        The two share the engine and the backbone. To get the notes about the photos as well, call
        `new_classes.read_examples` and `with_examples`.

        Args:
            photos: Photos of each new class, by its name. Of several cars in a photo the largest is used; a `Framed`
                photo comes with the box of its car.

        Raises:
            TwinCarError: The model has no class statistics, has one of the classes already, or no photo of one can be
                used.
        """
        return self.with_examples([read_examples(self, name, each) for name, each in photos.items()])

    def with_examples(self, examples: Sequence[Examples]) -> "Predictor":
        """A predictor with more classes, from what `new_classes.read_examples` returned for each."""
        wider = copy.copy(self)
        wider._use(add_classes(self.model, examples))
        return wider

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
        self,
        photo: Photo,
        box: Pixels | None = None,
        refine: bool = True,
        side: int | None = None,
        found: Sequence[Prediction] = (),
    ) -> Prediction:
        """Answer one photo: for its largest car, with those for the others under `cars`.

        Args:
            photo: A path, bytes, a PIL image or an array.
            box: (x1, y1, x2, y2) of the car in pixels of the upright photo; only this part is then read.
            refine: Whether to find the cars, and to read each one that does not fill the photo in a second pass. Use
                False for pictures that are cropped to the car already.
            side: Where the photo is not shown at full size, this many pixels a side are enough (see `load_photo`); a
                large photo is then decoded faster. Ignored together with `box`, which is in pixels of the full size.
            found: Together with `box`, the `cars` that were found in this photo: where the box shows one of them, it
                remains a car, and a known one remains known.

        Raises:
            PhotoError: `photo` is not a readable picture.
            TwinCarError: The box is not inside the photo.
        """
        if box is None:
            return self._answer([self._read(photo, side and max(side, self._side_needed(refine)))], refine)[0]
        image = load_photo(photo)
        car = to_fractions(box, image.size)
        part = with_margin(car)
        (read,), _ = self._passes([self._crop(image, part)], [part])
        before = [(other.bounds, other.verdict) for other in found if other.bounds]
        return Prediction(image, decide_given(read, car, before, self._judge), self._context)

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

    @property
    def _judge(self) -> Judge:
        return Judge(self._context.open_set, self.calibration.temperature)

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
        if not decoded:
            return []
        wholes, output = self._passes([each.picture for each in decoded], [WHOLE] * len(decoded))
        boxes = self.detect(output) if refine else [[] for _ in decoded]
        parts = [[part if area(part := with_margin(box)) < FILLED else WHOLE for box in found] for found in boxes]
        second = [[part for part in wanted if part != WHOLE] for wanted in parts]
        pictures = chain.from_iterable(mapped(self._crop_again, decoded, second))
        reads = iter(self._in_batches(list(pictures), list(chain.from_iterable(second)), len(decoded)))
        answers = []
        for each, whole, found, wanted in zip(decoded, wholes, boxes, parts, strict=True):
            detected = [(box, whole if part == WHOLE else next(reads)) for box, part in zip(found, wanted, strict=True)]
            first, *others = decide(whole, detected, self._judge)
            smaller = [Prediction(each.photo, other, self._context) for other in others]
            answers.append(Prediction(each.photo, first, self._context, smaller))
        return answers

    def _crop_again(self, decoded: "_Decoded", parts: list[Box]) -> list[np.ndarray]:
        """The network's inputs for parts of a photo, which is decoded again if it was decoded too small for one."""
        photo, side = decoded.photo, self._side_needed(refine=True)
        boxes = [to_pixels(part, photo.size) for part in parts]
        too_small = any(min(x2 - x1, y2 - y1) < OVERSAMPLING * self.size for x1, y1, x2, y2 in boxes)
        if decoded.source is not None and too_small and min(photo.size) < side:
            with suppress(PhotoError):  # the file is gone: the smaller picture is still here
                photo = load_photo(decoded.source, side=side)
        return [self._crop(photo, part) for part in parts]

    def _crop(self, photo: Image.Image, part: Box) -> np.ndarray:
        return squash(photo.crop(to_pixels(part, photo.size)), self.size)

    def _passes(self, pictures: list[np.ndarray], parts: list[Box]) -> tuple[list[Pass], BackboneOutput]:
        """Run the network once over (size, size, 3) pictures, which are these parts of their photos."""
        output, logits = self.run(pictures)
        return [Pass(*row) for row in zip(output.features, logits.cpu(), parts, strict=True)], output

    def detect(self, output: BackboneOutput) -> list[list[Box]]:
        """The detector's boxes in each of N pictures, from what `run` returned for them, the largest first.

        There are none from a model without a detector. Not every box shows a car: see `decision.decide`.
        """
        if output.detections is None or self.detector is None:
            return [[] for _ in output.features]
        threshold = float(self.detector.threshold)
        return [[car.box for car in find_boxes(cells, threshold)] for cells in output.detections.cpu().numpy()]

    def _in_batches(self, pictures: list[np.ndarray], parts: list[Box], size: int) -> Iterator[Pass]:
        """Passes over the cars of several photos, in batches no larger than that of the photos, or MAX_BATCH."""
        size = max(size, MAX_BATCH)
        for start in range(0, len(pictures), size):
            yield from self._passes(pictures[start : start + size], parts[start : start + size])[0]

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


@lru_cache(maxsize=1)  # a pool of processes sends the same pickle with every task
def _again(
    name: str, options: tuple, version: str | None, device: str | torch.device | None, engine: str | None
) -> Predictor:
    """The Predictor of a pickle, see `model_folder.Source`.

    Raises:
        ModelError: The model is not there, or is another one now.
    """
    predictor = Predictor.from_pretrained(name, device=device, engine=engine, **dict(options))
    if model_version(predictor.config) != version:
        raise ModelError(f"The model {name} has changed since the Predictor was pickled: pickle it again.")
    return predictor


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
