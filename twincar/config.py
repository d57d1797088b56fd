"""Constants, class names and the base error.

`stanford_cars.txt` lists the 196 class names of Stanford Cars in the order of the official devkit (`cars_meta.mat`):
line i is label i - 1. The order is not alphabetical. Other datasets have their own names; no code assumes 196.
"""

import re
import unicodedata
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

# The formats that are read, with their suffixes: those of cameras, phones and browsers. Pillow supports 40 more, some
# by external programs (EPS) or by rarely audited code: not for untrusted files.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
}
# Files with these suffixes count as pictures; whether one can be decoded is checked when it is read.
IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
# Pictures too, but not read; in a folder they are counted, not skipped silently.
OTHER_IMAGE_SUFFIXES = frozenset(
    (
        ".3fr", ".arw", ".bpg", ".cr2", ".cr3", ".dds", ".dib", ".dng", ".eps", ".erf", ".exr", ".hdr", ".ico",
        ".iiq", ".j2k", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr", ".mrw", ".nef", ".nrw", ".orf", ".pbm", ".pcx",
        ".pef", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
        ".svg", ".tga", ".wdp", ".x3f", ".xcf",
    )
)  # fmt: skip

MAKES = ("AM General", "Alfa Romeo", "Aston Martin", "Land Rover", "Mercedes-Benz", "Rolls-Royce")  # of two words
BODIES = (  # the longest first, so that "Cargo Van" is matched before "Van"
    "Extended Cab", "Regular Cab", "Cargo Van", "Crew Cab", "Quad Cab", "Club Cab", "SuperCab",
    "Convertible", "Hatchback", "Minivan", "Sedan", "Coupe", "Wagon", "SUV", "Van",
)  # fmt: skip

_YEAR = r"(?:19|20)[0-9]{2}"
_HAS_LETTER = r".*[^\W\d_]"
_SEPARATORS = re.compile(r"""[\s_\-\N{HYPHEN}-\N{EM DASH}/\\.,$:*?"<>|\x00-\x1f]+""")


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

    Also "2012 Make Model", "0001 Make Model", "make_model_2012", "Make-Model-2012" and "Make$$Model$$2012". Names of
    other datasets are parsed as far as possible: an unknown body style stays in `model`.

    >>> parse_class_name("Ram C/V Cargo Van Minivan 2012")
    CarName(class_name='Ram C/V Cargo Van Minivan 2012', make='Ram', model='C/V Cargo Van', body='Minivan', year=2012)
    """
    rest = stanford_name(class_name) or _spaced(class_name)
    rest = re.sub(rf"^(?:0\d*[\s.-]+|\d+\.\s*)(?={_HAS_LETTER})", "", rest)  # a number in a list: "0001 ", "12."
    year = None
    if found := re.search(rf"\s+({_YEAR})$", rest):
        year, rest = int(found[1]), rest[: found.start()]
    elif found := re.match(rf"({_YEAR})\s+(?={_HAS_LETTER})", rest):
        year, rest = int(found[1]), rest[found.end() :]
    words = rest.split(" ")
    two = " ".join(words[:2])
    make = next((m for m in MAKES if len(words) > 1 and _plain(m) == _plain(two)), "")
    model = " ".join(words[2:] if make else words[1:]).strip()
    make = make or next((m for m in MAKES if "-" in m and _plain(m) == _plain(words[0])), words[0])
    lower = f" {model} ".lower()
    body = next((b for b in BODIES if lower.endswith(f" {b.lower()} ") and model.lower() != b.lower()), "")
    if body:
        model = model[: -len(body)].strip()
    else:  # "Infiniti G Coupe IPL": a body style in the middle is also part of the model's name
        body = next((b for b in BODIES if f" {b.lower()} " in lower), "")
    return CarName(class_name, make, model, body, year)


@cache
def canonical_class_name(name: str) -> str:
    """Normalize a class name for comparison: all spellings of one class are equal.

    Case, accents of Latin letters, their Unicode form, separators (folder names cannot contain "/"), a year in front
    and a number with leading zeros in front make no difference.

    >>> canonical_class_name("2012_Acura-RL Sedan")
    'acura rl sedan 2012'
    """
    words = _words(stanford_name(name) or name)
    while True:  # a number in front first, then the year, in whatever order they are
        if len(words) > 1 and re.fullmatch(r"0\d*", words[0]) and re.search(_HAS_LETTER, " ".join(words[1:])):
            words = words[1:]
        elif (rotated := _year_last(words)) != words:
            words = rotated
        else:
            return " ".join(words) or name.strip().replace("/", "-")


@cache
def stanford_name(name: str) -> str | None:
    """Return the official spelling of a class of Stanford Cars that is written in another way, or None.

    >>> stanford_name("0002 2012_acura_rl_sedan")
    'Acura RL Sedan 2012'
    """
    words = _words(name)
    unnumbered = words[1:] if words and words[0].isdecimal() else words
    spellings = (words, _year_last(words), unnumbered, _year_last(unnumbered))
    return next((found for spelling in spellings if (found := _official().get("".join(spelling)))), None)


@cache
def _official() -> dict[str, str]:
    """The 196 names by their words without spaces, which are all different."""
    return {"".join(_words(name)): name for name in STANFORD_CARS}


def _words(name: str) -> list[str]:
    """The words of a name, in lower case and without the accents of Latin letters."""
    for _ in range(3):  # until nothing changes
        decomposed = unicodedata.normalize("NFKD", name).casefold()
        name = unicodedata.normalize("NFKC", re.sub("(?<=[a-z])[\u0300-\u036f]+", "", decomposed))
    return [word for word in _SEPARATORS.split(name) if word]


def _year_last(words: list[str]) -> list[str]:
    """Move a year in front to the end, unless another year is there."""
    first, *rest = words or [""]
    if not rest or not re.fullmatch(_YEAR, first) or re.fullmatch(_YEAR, rest[-1]):
        return words
    return [*rest, first] if re.search(_HAS_LETTER, " ".join(rest)) else words


def _spaced(name: str) -> str:
    """A name with spaces between its words, where it has another separator instead."""
    name = re.sub(r"\${2}|_", " ", unicodedata.normalize("NFC", name))
    if " " not in name.strip() and re.search(rf"^{_YEAR}-|-{_YEAR}$", name.strip()):
        name = name.replace("-", " ")
    return name.strip()


def _plain(make: str) -> str:
    return make.casefold().replace("-", " ")
