"""The frame over the visitor's photo: shows the area that was read, and selects another one.

`frame.js` draws it over the photo and sends the event "select" with the visitor's selection: a frame of their own, the
whole photo, or the detected car. Boxes are fractions of the photo's width and height in both directions.
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
LEAST = 0.01  # smallest side of a frame, as a fraction of the photo's
MODES = ("found", "own", "whole")
STAGE = """<div class="stage" hidden><div class="picture"><img alt="Your photo" draggable="false">
<div class="shade"></div><div class="cars"></div><div class="frame" tabindex="0" role="application"
aria-roledescription="frame"
aria-label="The area that was read. Arrow keys move it, Shift with an arrow key resizes it.">
<i data-edges="n"></i><i data-edges="e"></i><i data-edges="s"></i><i data-edges="w"></i>
<i data-edges="nw"></i><i data-edges="ne"></i><i data-edges="sw"></i><i data-edges="se"></i></div></div></div>
<div class="below" hidden><p></p><div role="group" aria-label="Area to read">
<button type="button" data-mode="found">Find the car</button><button type="button" data-mode="own">My own frame</button>
<button type="button" data-mode="whole">Whole photo</button></div></div>"""


@dataclass(frozen=True)
class Selection:
    """The area of the photo that a visitor selected.

    Attributes:
        mode: One of MODES.
        box: The frame, in mode "own".
        turn: Counts the visitor's selections, so that a late answer does not move a newer frame.
    """

    mode: str = "found"
    box: Box | None = None
    turn: int | None = None

    @classmethod
    def of(cls, sent: Any) -> "Selection":
        """Parse what the browser sent; anything invalid selects the detected car."""
        sent = sent if isinstance(sent, dict) else {}
        mode, box, turn = sent.get("mode"), sent.get("box"), sent.get("turn")
        turn = turn if isinstance(turn, int) else None
        if mode == "own" and not _is_box(box):
            mode = "found"
        return cls(mode if mode in MODES else "found", tuple(box) if mode == "own" else None, turn)


def control() -> gr.HTML:
    """Draw the empty control into the open Blocks, in the column of `#photo`, which it covers."""
    return gr.HTML(
        None,
        html_template=STAGE,
        js_on_load=Path(__file__).with_name("frame.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="frame",
    )


def shown(prediction: Prediction, cars: list[Box], selection: Selection) -> dict | None:
    """The value of the control: the photo, the frame and the other cars; None, which hides it, without a detector."""
    if prediction.is_car is None:
        return None
    box = (
        selection.box if selection.mode == "own" else (cars[0] if cars else None) if selection.mode == "found" else None
    )
    photo = prediction.photo.copy()
    photo.thumbnail(SIZE)
    return {
        "photo": data_url(photo, 80),
        "ratio": photo.width / photo.height,
        "box": box,
        "cars": cars,
        "mode": selection.mode,
        "turn": selection.turn,
        "text": _text(prediction, cars, selection),
    }


def data_url(picture: Image.Image, quality: int) -> str:
    """The picture as a JPEG in a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, Real) for side in box):
        return False
    x1, y1, x2, y2 = box
    return 0 <= x1 <= x2 - LEAST and 0 <= y1 <= y2 - LEAST and x2 <= 1 and y2 <= 1


def _text(prediction: Prediction, cars: list[Box], selection: Selection) -> str:
    if selection.mode == "whole":
        return "The whole photo was read."
    if selection.mode == "own":
        return "The selected car was read." if selection.box in cars else "Your frame was read."
    if not cars:
        return "No car was detected. If there is one, draw a frame around it."
    if len(cars) > 1:
        return f"{more_cars(len(cars) - 1)} Select another, or draw a frame around the right one."
    if prediction.refined:
        return "The framed area was read. If it is wrong, drag it or draw a new one."
    return "The car fills the photo, so the whole photo was read."
