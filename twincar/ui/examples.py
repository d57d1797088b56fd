"""Pictures to try on the Identify tab: those that are shipped with the package, or those of the operator's folder.

Every one is served at /examples/<place>; page.js fetches it from there and gives it to the page as if it had been
dropped. Only the listed files are served.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from twincar.features.photo import PhotoError, load_photo
from twincar.files import is_picture
from twincar.ui.frame import data_url

SHIPPED = Path(__file__).with_name("examples")
MOST = 8
THUMBNAIL = (240, 160)  # pixels, for screens of two pixels to a point


@dataclass(frozen=True)
class Example:
    """A picture to try.

    Attributes:
        path: The file.
        name: A few words for the page.
        alt: A sentence for those who do not see the picture.
        thumbnail: A small JPEG as a data URL.
    """

    path: Path
    name: str
    alt: str
    thumbnail: str


def shipped() -> list[Example]:
    """The pictures of the package, drawn for it."""
    rows = json.loads((SHIPPED / "examples.json").read_text(encoding="utf-8"))
    return [_example(SHIPPED / row["file"], row["name"], row["alt"]) for row in rows]


def from_folder(folder: str) -> list[Example]:
    """The first MOST pictures in a folder, by name, each called as its file; unreadable ones are reported."""
    found: list[Example] = []
    for path in sorted(p for p in Path(folder).glob("*") if is_picture(p.name)):
        if len(found) == MOST:
            break
        name = " ".join(path.stem.replace("_", " ").replace("-", " ").split())
        try:
            found.append(_example(path.resolve(), name, name))
        except PhotoError as error:
            print(f"{path} is not among the examples: {error}", file=sys.stderr)
    if not found:
        print(f"TWINCAR_EXAMPLES={folder} contains no pictures: the page shows no examples.", file=sys.stderr)
    return found


def _example(path: Path, name: str, alt: str) -> Example:
    picture = load_photo(path, side=min(THUMBNAIL))  # decodes no more pixels than it needs, when the page starts
    picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    return Example(path, name, alt, data_url(picture, 70))


def gallery(examples: Sequence[Example]) -> str:
    """The pictures as buttons with a name."""
    buttons = "".join(
        f'<button type="button" data-do="example" data-src="examples/{place}" data-name="{escape(each.path.name)}">'
        f'<img src="{each.thumbnail}" alt="{escape(each.alt)}"><span>{escape(each.name)}</span></button>'
        for place, each in enumerate(examples)
    )
    return f'<p>No photo at hand? Try one of these.</p><div role="group" aria-label="Examples">{buttons}</div>'


def route(examples: Sequence[Example]) -> Route:
    """Serves the pictures, and nothing else, at /examples/<place>."""

    async def send(request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(examples):
            return Response(status_code=404)
        return FileResponse(examples[place].path, headers={"Cache-Control": "public, max-age=3600"})

    return Route("/examples/{place:int}", send)
