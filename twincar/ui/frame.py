"""The frames over the visitor's photo: one on every car, with its name, and one on the area that was read.

`frame.js` draws them over the photo and sends the event "select" with the visitor's selection: one of the detected
cars, a frame of their own, or the whole photo. Boxes are fractions of the photo's width and height in both directions.
"""

import base64
import io
import secrets
from dataclasses import dataclass
from numbers import Real
from typing import Any

import gradio as gr
from PIL import Image

from twincar.modeling.detection.boxes import Box
from twincar.modeling.inference.describe import describe
from twincar.modeling.inference.prediction import Prediction
from twincar.ui.scripted import scripted

SIZE = (960, 960)  # pixels of the photo under the frame, at most
LEAST = 0.01  # smallest side of a frame, as a fraction of the photo's
MODES = ("found", "own", "whole")
STAGE = """<div class="stage" hidden><div class="picture"><img alt="Your photo" draggable="false">
<div class="shade"></div><div class="cars" role="group" aria-label="Cars in the photo"></div>
<div class="frame" tabindex="0" role="application"
aria-roledescription="frame"
aria-label="The area that was used. Arrow keys move it, Shift with an arrow key resizes it.">
<i data-edges="n"></i><i data-edges="e"></i><i data-edges="s"></i><i data-edges="w"></i>
<i data-edges="nw"></i><i data-edges="ne"></i><i data-edges="sw"></i><i data-edges="se"></i></div></div></div>
<div class="below" hidden><p></p><div role="group" aria-label="Area to use">
<button type="button" data-mode="found">Found car</button><button type="button" data-mode="own">My own frame</button>
<button type="button" data-mode="whole">Whole photo</button></div></div>"""


@dataclass(frozen=True)
class Selection:
    """The area of the photo that a visitor selected.

    Attributes:
        mode: One of MODES.
        car: Which of the detected cars, in mode "found"; the largest is 0.
        box: The frame, in mode "own".
        turn: Counts the visitor's selections, so that a late answer does not move a newer frame.
    """

    mode: str = "found"
    car: int = 0
    box: Box | None = None
    turn: int | None = None

    @classmethod
    def of(cls, sent: Any) -> "Selection":
        """Parse what the browser sent; anything invalid selects the largest car."""
        sent = sent if isinstance(sent, dict) else {}
        mode, car, box, turn = (sent.get(key) for key in ("mode", "car", "box", "turn"))
        car, turn = (car if isinstance(car, int) and car >= 0 else 0), (turn if isinstance(turn, int) else None)
        if mode == "own" and _is_box(box):
            return cls("own", box=tuple(box), turn=turn)
        return cls("whole", turn=turn) if mode == "whole" else cls("found", car, turn=turn)


def control() -> gr.HTML:
    """Draw the empty control into the open Blocks, in the column of `#photo`, which it covers."""
    return scripted(None, STAGE, "frame.js", "frame")


def shown(prediction: Prediction, found: Prediction, selection: Selection) -> dict | None:
    """The value of the control; None, which hides it, without a detector.

    Args:
        prediction: The answer that is shown: for one of the detected cars, or for what the visitor selected.
        found: The answer for the photo as it was uploaded, with all its cars.
        selection: What the visitor selected.
    """
    if prediction.is_car is None:
        return None
    cars = [car for car in found.cars if car.bounds]
    photo = prediction.photo.copy()
    photo.thumbnail(SIZE)
    return {
        "id": secrets.token_hex(8),
        "photo": data_url(photo, 80),
        "ratio": photo.width / photo.height,
        "box": None if selection.mode == "whole" else selection.box or prediction.bounds,
        "dim": selection.mode == "own" or prediction.refined,
        "cars": [_labelled(car) for car in cars],
        "car": cars.index(prediction) if prediction in cars else None,
        "mode": selection.mode,
        "turn": selection.turn,
        "text": _text(prediction, len(cars), selection),
    }


def _labelled(car: Prediction) -> dict:
    described = describe(car)
    return {"box": car.bounds, "label": described.label, "text": described.first, "state": described.state}


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


def _text(prediction: Prediction, cars: int, selection: Selection) -> str:
    if selection.mode == "whole":
        return "The whole photo was used."
    if selection.mode == "own":
        return "Only the area in your frame was used."
    if prediction.is_car is False:
        return "No car found. If there is one, draw a frame around it."
    if cars > 1:
        return f"{cars} cars found. Pick one, or draw a frame around another."
    if not cars:
        return "The whole photo was used. For one part of it, draw a frame."
    if prediction.refined:
        return "Only the area in the frame was used. Wrong spot? Drag it or draw a new one."
    return "The car fills most of the photo, so all of it was used."
