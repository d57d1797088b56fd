"""Cars that visitors add on the page: the predictor of each visitor, and the model folders made from it.

A session keeps the mean features of its cars, 8 kB each. Predictors share the engine and the backbone of the page's
own; those of the last visitors are kept, with 5 MB each for the last layer and the statistics of the classes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4
from zipfile import ZIP_STORED, ZipFile

from twincar.config import TwinCarError, canonical_class_name
from twincar.files import locked
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.new_classes import Examples, add_classes, remove_class
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.inference.predictor import Predictor
from twincar.text import count

PREDICTORS = 16  # of visitors, in memory
NAME = "twincar-with-my-cars"  # of the folder in the zip
ARCHIVES = 4  # zips on disk, about 60 MB each


@dataclass(frozen=True)
class AddedCar:
    """A car that a visitor added.

    Attributes:
        examples: Its name, and the mean features of its photos.
        key: Tells it from another one of the same name.
    """

    examples: Examples
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def name(self) -> str:
        """Its class name."""
        return self.examples.name

    @property
    def photos(self) -> int:
        """Number of its photos."""
        return self.examples.count


class AddedCars:
    """Makes predictors and model folders with added cars. Safe to call from several threads.

    Args:
        predictor: The page's own.
        keep: A model folder in which cars are kept for the next start of the page; None keeps none.
    """

    def __init__(self, predictor: Predictor, keep: Path | None = None):
        self._own, self.keep = predictor, keep
        self._made: OrderedDict[tuple[str, ...], Predictor] = OrderedDict()
        self._zips: list[str | None] = []
        self._tried: set[str] = set()
        self._kept: set[str] = set()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        if statistics := predictor.model.class_statistics:  # so that the first visitor does not wait for it
            threading.Thread(target=statistics.prepare, daemon=True).start()

    @property
    def possible(self) -> bool:
        """Whether the model has the class statistics that new cars are computed with."""
        return self._own.model.class_statistics is not None

    def predictor(self, cars: Sequence[AddedCar] | None) -> Predictor:
        """The predictor of a visitor who added these cars."""
        if not cars:
            return self._own
        key = tuple(car.key for car in cars)
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        made = self._own.with_examples([car.examples for car in cars])
        with self._lock:
            self._made[key] = made
            while len(self._made) > PREDICTORS:
                self._made.popitem(last=False)
        return made

    def archive(self, cars: Sequence[AddedCar], publish: Callable[[Path], str | None]) -> str | None:
        """Write a zip of the model folder with these cars; older ones than the last ARCHIVES are deleted.

        Args:
            cars: The cars of a visitor.
            publish: Copies the zip to where it is served from, and returns that path.

        Raises:
            TwinCarError: The page's own model is no longer where it was loaded from.
        """
        with self._writing, TemporaryDirectory() as temporary:
            model = add_classes(self._stored(), [car.examples for car in cars])
            saved = model_folder.save(model, Path(temporary) / NAME)
            zipped = Path(temporary) / f"{NAME}.zip"
            with ZipFile(zipped, "w", ZIP_STORED) as file:  # weights hardly compress
                for path in sorted(saved.iterdir()):
                    file.write(path, f"{NAME}/{path.name}")
            served = publish(zipped)
        self._zips.append(served)
        while len(self._zips) > ARCHIVES:
            with suppress(OSError):
                Path(self._zips.pop(0) or "").unlink()
        return served

    def store(self, car: AddedCar) -> None:
        """Add a car to the folder of the operator, at the first call for this car.

        Raises:
            TwinCarError: The folder cannot be written, or has a car of this name from another visitor.
        """
        if car.key in self._tried:
            return
        self._tried.add(car.key)
        self._change(lambda model: _with(model, car))
        self._kept.add(car.key)

    def discard(self, car: AddedCar) -> None:
        """Remove a car from the folder of the operator, if `store` added it.

        Raises:
            TwinCarError: The folder cannot be written.
        """
        if car.key in self._kept:
            self._change(lambda model: remove_class(model, car.name))
            self._kept.discard(car.key)

    def _change(self, change: Callable[[CarModel], CarModel]) -> None:
        if self.keep is None:
            return
        try:
            with self._writing, locked(self.keep.with_name(f".{self.keep.name}.lock")):
                exists = (self.keep / "config.json").is_file()
                model_folder.save(change(model_folder.load(self.keep) if exists else self._stored()), self.keep)
        except OSError as error:
            raise TwinCarError(f"{self.keep} cannot be written ({error.strerror}).") from error

    def _stored(self) -> CarModel:
        """The page's own model with all its weights, which the page frees after the engine has been made."""
        source = self._own.model.source
        model = model_folder.load(source.name, **source.options) if source else self._own.model
        for name in set(model.config["class_names"]) - set(self._own.class_names):  # kept since the page was started
            model = remove_class(model, name)
        return model


def note(prediction: Prediction, cars: Sequence[AddedCar] | None) -> str:
    """A sentence about an answer that is one of a visitor's own cars, or ""."""
    best = prediction.top(1)[0].class_name
    car = next((car for car in cars or () if car.name == best), None)
    if car is None or prediction.is_car is False or prediction.is_known is False:
        return ""
    return f"You added this car, from {count(car.photos, 'photo')}."


def _with(model: CarModel, car: AddedCar) -> CarModel:
    if canonical_class_name(car.name) in map(canonical_class_name, model.config["class_names"]):
        raise TwinCarError(f"The page already keeps a car named {car.name!r}: yours is kept for this visit only.")
    return add_classes(model, [car.examples])
