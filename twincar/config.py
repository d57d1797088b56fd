"""Constants, class names and the base error.

`stanford_cars.txt` lists the 196 class names of Stanford Cars in the order of the official devkit (`cars_meta.mat`):
line i is label i - 1. The order is not alphabetical. Other datasets have their own names; no code assumes 196.
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

CHECKOUT = Path(__file__).resolve().parents[1]  # the folder of app.py; not meaningful for an installed package
# The published model: part of a checkout; for an installed package, a path below the working directory.
PUBLISHED = (CHECKOUT if (CHECKOUT / "app.py").is_file() else Path()) / "models" / "twincar"

# Files with these suffixes count as images; whether one can be decoded is checked when it is read.
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic")
)

TWO_WORD_MAKES = ("AM General", "Alfa Romeo", "Aston Martin", "Land Rover")
BODIES = (  # the longest first, so that "Cargo Van" is matched before "Van"
    "Extended Cab", "Regular Cab", "Cargo Van", "Crew Cab", "Quad Cab", "Club Cab", "SuperCab",
    "Convertible", "Hatchback", "Minivan", "Sedan", "Coupe", "Wagon", "SUV", "Van",
)  # fmt: skip


class TwinCarError(ValueError):
    """Base class of errors that a user can fix; the message is one sentence: what is wrong and what to do."""


@dataclass(frozen=True)
class CarName:
    """A parsed class name.

    Attributes:
        class_name: The full name, as given.
        make: The manufacturer.
        model: The model's name.
        body: The body style; "" if the name has none.
        year: The model year; None if the name does not end with one.
    """

    class_name: str
    make: str
    model: str
    body: str
    year: int | None

    as_dict = asdict


@cache
def parse_class_name(class_name: str) -> CarName:
    """Split a class name of the form "Make Model Body Year", as used by Stanford Cars.

    Names of other datasets are parsed as far as possible: an unknown body style stays in `model`.

    >>> parse_class_name("Ram C/V Cargo Van Minivan 2012")
    CarName(class_name='Ram C/V Cargo Van Minivan 2012', make='Ram', model='C/V Cargo Van', body='Minivan', year=2012)
    """
    rest = class_name.strip()
    found = re.search(r"\s+((?:19|20)\d\d)$", rest)
    year = int(found.group(1)) if found else None
    rest = rest[: found.start()] if found else rest
    make = next((m for m in TWO_WORD_MAKES if rest.startswith(m + " ")), rest.split(" ")[0])
    model = rest[len(make) :].strip()
    body = next((b for b in BODIES if model.endswith(" " + b)), "")
    if body:
        model = model[: -len(body)].strip()
    else:  # "Infiniti G Coupe IPL": a body style in the middle is also part of the model's name
        body = next((b for b in BODIES if f" {b} " in f" {model} "), "")
    return CarName(class_name, make, model, body, year)


def canonical_class_name(name: str) -> str:
    """Normalize a class name for comparison: folder names cannot contain "/", so "/" and "-" are equal."""
    return name.strip().replace("/", "-")
