"""The Teach it tab: a name and a few photos in; from then on the page recognizes the car for this visitor.

Nothing is trained: the head gets one more class, computed from the features of the photos
(`inference/new_classes.py`). A session keeps the features of each photo, 8 kB, and a picture of it of about 20 kB; the
photo itself stays in the file that Gradio stored, and is read again where its frame is changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from twincar.batch import archive
from twincar.config import TwinCarError, canonical_class_name
from twincar.data.duplicates import duplicate_groups, thumbnail
from twincar.features.photo import PhotoError, load_photo
from twincar.modeling.detection.boxes import WHOLE, Box, to_pixels
from twincar.modeling.inference.new_classes import FEW, MAX_NAME, Examples, check_name, pooled_features
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.inference.predictor import Predictor
from twincar.text import count, display_name
from twincar.ui import answer_html, dropzone
from twincar.ui.added_cars import AddedCar, AddedCars
from twincar.ui.frame import Selection, data_url
from twincar.ui.scripted import scripted

MAX_PHOTOS = 20  # of a car
MAX_CARS = 10  # of a visitor
SIDE = 1280  # pixels of a photo that is read
SHOWN = (320, 320)  # pixels of a photo that is shown
EXPIRED = "This photo is no longer stored here: remove it, or add it again."
EMPTY: dict[str, Any] = {"photos": []}

NOT_POSSIBLE = (
    "The model of this page has no class statistics, from which a new car is computed. Whoever runs the page can add "
    "them from the pictures that the model was trained on: `twincar fit-head --model models/twincar --data data`."
)
WELCOME = (
    "<h2>Teach it a car</h2><p>Is your car missing? Give its name and a few photos, and it is recognized within "
    f'seconds, without training.</p><p class="small">{FEW} to {MAX_PHOTOS} photos, of different sides. Up to '
    f"{MAX_CARS} cars; they are known to you alone, until you close or reload this page.{{kept}}</p>"
)
KEPT = (
    " Whoever runs this page keeps the names, and what was computed from the photos, but not the photos; when the page "
    "is started again, everyone's answers can name these cars."
)
PHOTOS = '<ul class="shots" aria-label="Photos of the car"></ul>'
CARS = '<h3 hidden>Your cars</h3><ul class="added" aria-label="Cars that you added"></ul>'


@dataclass(frozen=True)
class Shot:
    """One photo of the car, as it was read.

    Attributes:
        name: Name for display.
        path: Where Gradio stored it.
        picture: A small JPEG as a data URL.
        found: Boxes of the cars that were found.
        box: The part that is used; None for a photo that cannot be used.
        features: (D,) mean features of this part and of its mirror image.
        pixels: (32, 32) gray values of this part, which show duplicates.
        refused: Why it cannot be used, or "".
        notes: What may be wrong with it.
        key: Its id.
    """

    name: str
    path: Path
    picture: str = ""
    found: tuple[Box, ...] = ()
    box: Box | None = None
    features: Tensor | None = None
    pixels: np.ndarray | None = None
    refused: str = ""
    notes: tuple[str, ...] = ()
    key: str = field(default_factory=lambda: uuid4().hex)


def tab(cars: AddedCars, added: gr.State, keep_for: float) -> None:
    """Draw the tab into the open Blocks.

    Args:
        cars: Makes the predictors with added cars.
        added: The visitor's cars, a tuple of `AddedCar`, which the other tabs read.
        keep_for: Seconds for which photos of a car that is not added yet are kept.
    """
    gr.HTML(WELCOME.format(kept=KEPT if cars.keep else ""), elem_id="teach-welcome")
    if not cars.possible:
        gr.HTML(f'<p role="note">{answer_html.with_code(NOT_POSSIBLE)}</p>', elem_id="teach-impossible")
        return
    taken = gr.State((), time_to_live=keep_for)
    name = gr.Textbox(
        label="Name of the car", placeholder="Tesla Model 3 Sedan 2021", max_length=MAX_NAME, elem_id="teach-name"
    )
    files = dropzone.zone(
        "teach-files", "Photos of the car", "Drop photos of the car anywhere here", "Choose photos", MAX_PHOTOS,
        containers=False,
    )  # fmt: skip
    photos = scripted(EMPTY, PHOTOS, "teach.js", "teach-photos")
    with gr.Row(elem_id="teach-row"):
        add = gr.Button("Add this car", variant="primary", elem_id="teach-add")
        status = gr.HTML(elem_id="teach-status")
    listed = scripted({"cars": []}, CARS, "added.js", "teach-cars")
    with gr.Row(visible=False, elem_id="teach-take") as take:
        make = gr.Button("Download the model with your cars", elem_id="teach-make")
        download = gr.DownloadButton("Download", visible="hidden", elem_id="teach-download")

    def read(shots: tuple[Shot, ...], mine: tuple[AddedCar, ...], event: gr.EventData) -> Iterator[dict[Any, Any]]:
        sent = event._data.get("files") if isinstance(event._data, dict) else None
        room = MAX_PHOTOS - len(shots)
        uploads = sent[: room + 1] if isinstance(sent, list) else []
        over = f"At most {MAX_PHOTOS} photos of a car: the others were left out." if len(uploads) > room else ""
        yield {files: {"busy": True}, status: ""}
        predictor = cars.predictor(mine)
        for shot in dropzone.listed(uploads[:room]):
            shots = _checked((*shots, _read(predictor, *shot)))
            yield {taken: shots, photos: _shown(shots)}
        yield {files: {"busy": False}, taken: shots, photos: _shown(shots), status: _sentence(over)}

    def mend(shots: tuple[Shot, ...], mine: tuple[AddedCar, ...], event: gr.EventData) -> dict[Any, Any]:
        sent = event._data if isinstance(event._data, dict) else {}
        place = next((place for place, shot in enumerate(shots) if shot.key == sent.get("key")), None)
        if place is None:
            return {photos: _shown(shots)}
        rest = shots[:place], shots[place + 1 :]
        if sent.get("mode") == "remove":
            shots = _checked((*rest[0], *rest[1]))
        else:
            mended = _framed(cars.predictor(mine), shots[place], Selection.of(sent))
            shots = _checked((*rest[0], mended, *rest[1]))
        return {taken: shots, photos: _shown(shots), status: ""}

    def add_car(wanted: str | None, shots: tuple[Shot, ...], mine: tuple[AddedCar, ...]) -> dict[Any, Any]:
        try:
            if len(mine) >= MAX_CARS:
                raise TwinCarError(f"You have added {MAX_CARS} cars, which is the limit: remove one first.")
            checked = _name(cars.predictor(mine), wanted or "")
            used = [shot.features for shot in shots if shot.features is not None and not shot.refused]
            if len(used) < FEW:
                missing = FEW - len(used)
                more = f"{count(missing, 'more photo')} of this car {'is' if missing == 1 else 'are'} needed"
                raise TwinCarError(
                    f"{more}: {FEW} or more." if shots else f"Add {FEW} to {MAX_PHOTOS} photos of it first."
                )
        except TwinCarError as error:
            return {status: _sentence(str(error), "alert")}
        mine = (*mine, AddedCar(Examples(checked, torch.stack(used).mean(0), len(used))))
        cars.predictor(mine)  # now, rather than for the first photo
        said = (
            f"<b>{escape(checked)}</b> was added from {count(len(used), 'photo')}. <i>Identify</i> and "
            "<i>Many photos</i> recognize it from now on, until you close or reload this page."
        )
        return {
            added: mine, taken: (), photos: EMPTY, name: "", listed: _listed(mine), take: gr.Row(visible=True),
            status: f'<p role="status">{said}</p>',
        }  # fmt: skip

    def store(mine: tuple[AddedCar, ...]) -> Any:
        try:
            for car in mine[-1:]:
                cars.store(car)
        except TwinCarError as error:
            return _sentence(str(error), "alert")
        return gr.skip()

    def remove(mine: tuple[AddedCar, ...], event: gr.EventData) -> dict[Any, Any]:
        key = event._data.get("key") if isinstance(event._data, dict) else None
        gone = next((car for car in mine if car.key == key), None)
        if gone is None:
            return {listed: _listed(mine)}
        mine = tuple(car for car in mine if car is not gone)
        said = f"{gone.name} was removed."
        try:
            cars.discard(gone)
        except TwinCarError as error:
            said += f" {error}"
        return {added: mine, listed: _listed(mine), take: gr.Row(visible=bool(mine)), status: _sentence(said)}

    def zipped(mine: tuple[AddedCar, ...]) -> dict[Any, Any]:
        if not mine:
            return {status: _sentence("Add a car first.", "alert")}
        try:
            return {download: cars.archive(mine, lambda path: download.move_resource_to_block_cache(path))}
        except TwinCarError as error:
            return {status: _sentence(str(error), "alert")}

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    queue: dict[str, Any] = private | {"concurrency_id": "teach", "concurrency_limit": 2}
    reading = files.upload(read, [taken, added], [files, taken, photos, status], **queue)
    reading.failure(lambda: {"busy": False}, None, files, **private)
    photos.select(mend, [taken, added], [taken, photos, status], **queue)
    done = [added, taken, photos, name, listed, take, status]
    adding = gr.on([add.click, name.submit], add_car, [name, taken, added], done, **queue)
    if cars.keep:
        adding.then(store, added, status, **private)
    listed.select(remove, added, [added, listed, take, status], **queue)
    making = make.click(
        zipped, added, [download, status], concurrency_id="zip", concurrency_limit=1, show_progress_on=[make],
        **(private | {"show_progress": "minimal"}),
    )  # fmt: skip
    making.success(None, js="() => setTimeout(() => document.querySelector('#teach-download')?.click(), 100)")


def _name(predictor: Predictor, wanted: str) -> str:
    """The name of a new car, without needless spaces, or a TwinCarError."""
    if not wanted.strip():
        raise TwinCarError("Give the name of the car first, such as Tesla Model 3 Sedan 2021.")
    if canonical_class_name(" ".join(wanted.split())) in map(canonical_class_name, predictor.class_names):
        raise TwinCarError(f"The {' '.join(wanted.split())} is known already: give another name.")
    return check_name(predictor, wanted)


def _read(predictor: Predictor, name: str, path: Path | PhotoError) -> Shot:
    """Find the car in a new photo."""
    name = display_name(name)
    if isinstance(path, PhotoError):
        return Shot(name, Path(), refused=str(path))
    try:
        archive.check_size(path.stat().st_size)
        prediction = predictor(path, side=SIDE)
    except (PhotoError, OSError) as error:
        return Shot(name, path, refused=str(error) if isinstance(error, PhotoError) else EXPIRED)
    found = tuple(car.bounds for car in prediction.cars if car.bounds)
    shot = Shot(name, path, _picture(prediction), found)
    if prediction.is_car is False:
        return replace(shot, refused="No car was found. If there is one, draw a frame around it.")
    notes = [f"{count(len(found), 'car')} were found, and the largest is used."] if len(found) > 1 else []
    return _used(predictor, shot, prediction, found[0] if found else WHOLE, notes)


def _framed(predictor: Predictor, shot: Shot, wanted: Selection) -> Shot:
    """Read another part of a photo."""
    if wanted.mode == "found" and not shot.found:
        return shot
    box = wanted.box or (shot.found[wanted.car % len(shot.found)] if wanted.mode == "found" else WHOLE)
    try:
        image = load_photo(shot.path)
        prediction = predictor(image, box=to_pixels(box, image.size))
    except (PhotoError, TwinCarError) as error:
        gone = not shot.path.is_file()
        return replace(shot, features=None, box=None, notes=(), refused=EXPIRED if gone else str(error))
    notes = (
        ["No car is recognized in this frame. It is used because you chose it."] if prediction.is_car is False else []
    )
    return _used(predictor, shot, prediction, box, notes)


def _used(predictor: Predictor, shot: Shot, prediction: Prediction, box: Box, notes: list[str]) -> Shot:
    """A photo with the features of one of its parts."""
    if prediction.is_known is not False and prediction.is_car is not False and prediction.state in ("car", "model"):
        notes = [*notes, f"It looks like the {prediction.top(1)[0].class_name}, which is known already."]
    features = pooled_features(predictor, [prediction])[0]
    pixels = thumbnail(prediction.crop)
    return replace(shot, box=box, features=features, pixels=pixels, refused="", notes=tuple(notes))


def _picture(prediction: Prediction) -> str:
    picture = prediction.photo.copy()
    picture.thumbnail(SHOWN)
    return data_url(picture, 75)


def _checked(shots: tuple[Shot, ...]) -> tuple[Shot, ...]:
    """The photos, with those refused that are the same picture as an earlier one."""
    same = "The same picture as "
    shots = tuple(replace(shot, refused="") if shot.refused.startswith(same) else shot for shot in shots)
    read = [(shot, shot.pixels) for shot in shots if shot.pixels is not None and not shot.refused]
    if len(read) < 2:
        return shots
    first: dict[int, str] = {}
    refused = {}
    groups = duplicate_groups(np.stack([pixels for _, pixels in read])).tolist()
    for (shot, _), group in zip(read, groups, strict=True):
        if group >= 0 and group in first:
            refused[shot.key] = f"{same}{first[group]}."
        first.setdefault(group, shot.name)
    return tuple(replace(shot, refused=refused[shot.key]) if shot.key in refused else shot for shot in shots)


def _shown(shots: tuple[Shot, ...]) -> dict[str, Any]:
    """The value of the list of photos, which `teach.js` draws."""
    keys = ("key", "name", "picture", "found", "box", "refused", "notes")
    return {"photos": [{key: getattr(shot, key) for key in keys} for shot in shots]}


def _listed(mine: tuple[AddedCar, ...]) -> dict[str, Any]:
    return {"cars": [{"key": car.key, "name": car.name, "photos": count(car.photos, "photo")} for car in mine]}


def _sentence(text: str, role: str = "status") -> str:
    return f'<p role="{role}">{escape(text)}</p>' if text else ""
