"""The frame over the visitor's photo: which part of it was looked at, and how to have another part looked at.

Drawn over the photo by `frame.js`, which tells with the event "select" what the visitor wants: a frame of their own,
the whole photo, or the car that the model finds. Boxes are shares of the photo's width and height on both sides.
"""

import base64
import io
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from twincar.modeling.detection.boxes import Box
from twincar.modeling.inference.describe import more_cars
from twincar.modeling.inference.prediction import Prediction

SIZE = (960, 960)  # pixels of the photo under the frame, at most
LEAST = 0.01  # side of a frame, as a share of the photo's
MODES = ("found", "own", "whole")
STAGE = """<div class="stage" hidden><div class="picture"><img alt="Your photo" draggable="false">
<div class="shade"></div><div class="cars"></div><div class="frame" tabindex="0" role="application"
aria-roledescription="frame"
aria-label="The part that was looked at. Arrow keys move it, Shift with an arrow key resizes it.">
<i data-edges="n"></i><i data-edges="e"></i><i data-edges="s"></i><i data-edges="w"></i>
<i data-edges="nw"></i><i data-edges="ne"></i><i data-edges="sw"></i><i data-edges="se"></i></div></div></div>
<div class="below" hidden><p></p><div role="group" aria-label="Where to look">
<button type="button" data-mode="found">Find the car</button><button type="button" data-mode="own">My own frame</button>
<button type="button" data-mode="whole">Whole photo</button></div></div>"""


@dataclass(frozen=True)
class Wish:
    """What a visitor wants looked at. `turn` counts their wishes, so that a late answer moves no newer frame."""

    mode: str = "found"
    box: Box | None = None
    turn: int | None = None

    @classmethod
    def of(cls, told: Any) -> "Wish":
        """Read what the browser sent; whatever is no wish is one for the car that is found."""
        told = told if isinstance(told, dict) else {}
        mode, box, turn = told.get("mode"), told.get("box"), told.get("turn")
        turn = turn if isinstance(turn, int) else None
        if mode == "own" and not _is_box(box):
            mode = "found"
        return cls(mode if mode in MODES else "found", tuple(box) if mode == "own" else None, turn)


def control() -> gr.HTML:
    """Draw the empty control into the open Blocks, in a column together with the photo `#photo` that it covers."""
    return gr.HTML(
        None,
        html_template=STAGE,
        js_on_load=Path(__file__).with_name("frame.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="frame",
    )


def shown(prediction: Prediction, cars: list[Box], wish: Wish) -> dict | None:
    """What the control shows: the photo, the frame, and the other cars. None, and it hides, from a model that does not
    look for cars."""
    if prediction.is_car is None:
        return None
    box = wish.box if wish.mode == "own" else (cars[0] if cars else None) if wish.mode == "found" else None
    photo = prediction.photo.copy()
    photo.thumbnail(SIZE)
    return {
        "photo": data_url(photo, 80),
        "ratio": photo.width / photo.height,
        "box": box,
        "cars": cars,
        "mode": wish.mode,
        "turn": wish.turn,
        "says": _says(prediction, cars, wish),
    }


def data_url(picture: Image.Image, quality: int) -> str:
    """The picture as a JPEG that stands in the page itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, Real) for side in box):
        return False
    x1, y1, x2, y2 = box
    return 0 <= x1 <= x2 - LEAST and 0 <= y1 <= y2 - LEAST and x2 <= 1 and y2 <= 1


def _says(prediction: Prediction, cars: list[Box], wish: Wish) -> str:
    if wish.mode == "whole":
        return "I read the whole photo."
    if wish.mode == "own":
        return "I looked at the car that you chose." if wish.box in cars else "I looked in your frame."
    if not cars:
        return "I found no car to frame. If there is one, draw a frame around it."
    if len(cars) > 1:
        return f"{more_cars(len(cars) - 1)} Choose another, or draw a frame around the one you mean."
    if prediction.refined:
        return "I looked in the frame. If it is not right, drag it, or draw another."
    return "The car fills the photo, so I read all of it."
