"""Facts that every other file may know: class names, how they are read, ImageNet statistics, paths.

The 196 names of Stanford Cars stand in `stanford_cars.txt`, in the order of the official devkit (`cars_meta.mat`):
line i is label i - 1. That order is not alphabetical. Other data sets bring their own names; nothing assumes 196.
"""

import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

STANFORD_CARS = tuple(files("twincar").joinpath("stanford_cars.txt").read_text(encoding="utf-8").splitlines())

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BOX_MARGIN = 16  # pixels of context around an annotated box, in the original photo

CHECKOUT = Path(__file__).resolve().parents[1]  # where app.py lies; an installed package has none
# The model that comes with a checkout; for an installed package the place below the working folder to put one.
PUBLISHED = (CHECKOUT if (CHECKOUT / "app.py").is_file() else Path()) / "models" / "twincar"

PICTURES = frozenset(  # suffixes of files that are taken for pictures; whether one can be read is seen when it is read
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic")
)

MAKES_OF_TWO_WORDS = ("AM General", "Alfa Romeo", "Aston Martin", "Land Rover")
BODIES = (  # the longest first, so that "Cargo Van" is found before "Van"
    "Extended Cab", "Regular Cab", "Cargo Van", "Crew Cab", "Quad Cab", "Club Cab", "SuperCab",
    "Convertible", "Hatchback", "Minivan", "Sedan", "Coupe", "Wagon", "SUV", "Van",
)  # fmt: skip


class TwinCarError(ValueError):
    """Something a person can mend; the text is one sentence that says what is wrong and what to do."""


@dataclass(frozen=True)
class CarName:
    """A class name taken apart. `body` is "" where the name tells none, `year` is None where it ends without one."""

    class_name: str
    make: str
    model: str
    body: str
    year: int | None

    as_dict = asdict


@cache
def parse_class_name(class_name: str) -> CarName:
    """Split "Make Model Body Year" as Stanford Cars writes it.

    >>> parse_class_name("Ram C/V Cargo Van Minivan 2012")
    CarName(class_name='Ram C/V Cargo Van Minivan 2012', make='Ram', model='C/V Cargo Van', body='Minivan', year=2012)

    Names of other data sets are read as far as they go: an unknown body stays in `model`, a missing year is None.
    """
    rest = class_name.strip()
    found = re.search(r"\s+((?:19|20)\d\d)$", rest)
    year = int(found.group(1)) if found else None
    rest = rest[: found.start()] if found else rest
    make = next((m for m in MAKES_OF_TWO_WORDS if rest.startswith(m + " ")), rest.split(" ")[0])
    model = rest[len(make) :].strip()
    body = next((b for b in BODIES if model.endswith(" " + b)), "")
    if body:
        model = model[: -len(body)].strip()
    else:  # "Infiniti G Coupe IPL": the body stands in the middle and belongs to the model's name as well
        body = next((b for b in BODIES if f" {b} " in f" {model} "), "")
    return CarName(class_name, make, model, body, year)


def canonical_class_name(name: str) -> str:
    """The spelling used for comparing class names: folders cannot hold "/", so "/" and "-" count as the same."""
    return name.strip().replace("/", "-")
