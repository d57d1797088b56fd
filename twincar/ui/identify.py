"""The Identify tab: a photo in; the class name, its probability, the top 5, and the evidence for each of them.

The network runs once or twice per photo, and once more for every frame that the visitor draws. The Predictions of all
its cars stay in the visitor's session, so that another car, or the evidence for another class, costs one pass of the
head. Nothing is computed here:
`Predictor` returns everything that is shown.
"""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from twincar.config import TwinCarError
from twincar.features.photo import PhotoError, load_photo
from twincar.modeling.detection.boxes import WHOLE, to_pixels
from twincar.modeling.inference.describe import as_dict, percent
from twincar.modeling.inference.explain import GRAD_CAM_PLUS_PLUS, METHODS, describe_method, overlay
from twincar.modeling.inference.prediction import Guess, Prediction
from twincar.ui import answer_html, frame
from twincar.ui.added_cars import AddedCar, AddedCars, note
from twincar.ui.api_docs import tool_description
from twincar.ui.compare import drawer
from twincar.ui.examples import Example, gallery
from twincar.ui.feedback import feedback_row
from twincar.ui.frame import Selection
from twincar.ui.known_cars import known_cars
from twincar.ui.uploads import stored_photo

TOP = 5
NUMBERS = ("no", "one", "two", "three", "four", "five")
SHOWN_SIDE = 1280  # pixels: enough for the page; a phone's 12 megapixels would take seconds to draw and send
SLOWER = ("Eigen-CAM", "Eigen-Grad-CAM", "Ablation-CAM", "Score-CAM")  # methods that take a second or more
EXPIRED = "This photo is no longer stored here: upload it again."
ADVICE = "Drop, paste or choose another photo."
BUSY = "The page is too busy to answer now, or cannot be reached."
LATER = "Wait a moment, then upload the photo again."
ACTIONS = """<div class="actions" role="group" aria-label="Photo"><button type="button" data-do="choose">Choose a photo
</button><button type="button" data-do="camera">Take a photo</button></div>"""
READING = '<div class="reading"><p>Reading the photo…</p></div>'

CAR = """<svg viewBox="0 0 240 96" aria-hidden="true"><defs><radialGradient id="heat" cx=".34" cy=".55" r=".5">
<stop offset="0" stop-color="#f7d13d"/><stop offset=".3" stop-color="#ed6925"/>
<stop offset=".62" stop-color="#a52c60"/>
<stop offset="1" stop-color="#4a1d7c"/></radialGradient></defs>
<path fill="url(#heat)" d="M14 70c-5 0-8-3-8-8V50c0-6 4-10
10-11l34-5 27-18c6-4 12-6 19-6h45c9 0 17 3 24 9l21 17 34 6c8 1 14 7 14 15v7c0 4-3 6-7 6h-10a23 23 0 0 0-46 0H84a23 23 0
0 0-46 0z"/><path class="window" d="M72 33l14-10c4-3 8-4 13-4h20v14zM128 19h14c7 0 12 2 17 6l10 8h-41z"/>
<circle class="tyre" cx="61" cy="71" r="16"/><circle class="tyre" cx="194" cy="71" r="16"/></svg>"""


def tab(
    cars: AddedCars,
    added: gr.State,
    scope: str,
    examples: list[Example],
    keep_for: float,
    feedback: Path | None = None,
) -> None:
    """Draw the tab into the open Blocks.

    Args:
        cars: Makes the predictor of each visitor.
        added: The visitor's own cars.
        scope: A short description of the model's classes, from `page.scope`.
        examples: Pictures to offer.
        keep_for: Seconds for which answers are kept.
        feedback: A CSV file for what visitors say about the answers; None does not ask them.
    """
    predictor = cars.predictor(None)
    answer, source = gr.State(None, time_to_live=keep_for), gr.State(None, time_to_live=keep_for)
    with gr.Row(elem_id="identify"):
        with gr.Column(elem_classes="side"):
            with gr.Column(elem_id="shown"):
                photo = gr.Image(
                    type="filepath",
                    sources=["upload", "webcam"],  # switched by page.js, which has buttons with text for them
                    label="Photo of a car",
                    show_label=False,
                    buttons=[],
                    alt_text="Your photo",
                    elem_id="photo",
                    height=330,
                    placeholder="# Drop or paste a photo of a car anywhere\nor click to choose one",
                    webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
                )
                framed = frame.control()
                gr.HTML(ACTIONS, apply_default_css=False, elem_id="actions")
            with gr.Column(visible=False, elem_id="top5") as top5:
                choice = gr.Radio(label="Top five matches", info=answer_html.top_info(None))
                bars = gr.HTML(elem_id="bars")
            if examples:
                gr.HTML(gallery(examples), apply_default_css=False, elem_id="examples")
        with gr.Column(elem_classes="main"):
            headline = gr.HTML(
                _welcome(scope),
                js_on_load=Path(__file__).with_name("answer.js").read_text(encoding="utf-8"),
                elem_id="headline",
            )
            asked = feedback_row(feedback, answer) if feedback else None
            with gr.Accordion("Evidence", visible=False, elem_id="evidence") as evidence:
                slider = gr.ImageSlider(
                    label="Photo and evidence", show_label=False, type="filepath", format="jpeg", interactive=False,
                    buttons=["fullscreen"], max_height=460, elem_id="slider",
                )  # fmt: skip
                sentence = gr.HTML(elem_id="sentence")
                method = gr.Dropdown(
                    [(f"{name} (slower)" if name in SLOWER else name, name) for name in METHODS],
                    value=GRAD_CAM_PLUS_PLUS,
                    label="Evidence method",
                    info=describe_method(GRAD_CAM_PLUS_PLUS),
                    filterable=False,
                    elem_id="method",
                )
    compared = drawer(predictor, answer)
    gr.HTML(known_cars(predictor.class_names), apply_default_css=False, elem_id="known-cars")

    def show(upload: dict | None, name: str, mine: tuple[AddedCar, ...]) -> dict[Any, Any]:
        if not upload:
            return _nothing(_welcome(scope))
        try:
            file = stored_photo(upload)
            prediction = cars.predictor(mine)(file, side=SHOWN_SIDE)
        except PhotoError as error:
            return _nothing(answer_html.error_card(str(error), ADVICE))
        return _answered(prediction, file, prediction, Selection(), name, mine)

    def answer_again(
        before: tuple[Path, Prediction] | None, name: str, mine: tuple[AddedCar, ...], event: gr.EventData
    ) -> dict[Any, Any]:
        if not before or not before[0].is_file():
            return _nothing(answer_html.error_card(EXPIRED, ADVICE))
        file, found = before
        selection = Selection.of(event._data)
        if selection.mode == "found":
            prediction = found.cars[selection.car] if selection.car < len(found.cars) else found
        else:
            image = load_photo(file)
            box = to_pixels(selection.box or WHOLE, image.size)
            prediction = cars.predictor(mine)(image, box=box, found=found.cars)
        return _answered(prediction, file, found, selection, name, mine)

    def _answered(
        prediction: Prediction,
        file: Path,
        found: Prediction,
        selection: Selection,
        name: str,
        mine: tuple[AddedCar, ...],
    ) -> dict[Any, Any]:
        # In place, after the network has read the photo: the page needs no more pixels to draw and to keep.
        prediction.photo.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        top = prediction.top(TOP)
        several = selection.mode == "found" and len(found.cars) > 1
        return {
            answer: prediction,
            source: (file, found),
            framed: frame.shown(prediction, found, selection),
            headline: answer_html.answer(
                prediction,
                where="this frame" if selection.mode == "own" else "this photo",
                which=f"Car {found.cars.index(prediction) + 1} of {len(found.cars)}" if several else "",
                take=True,
                note=note(prediction, mine),
            ),
            top5: gr.Column(visible=True),
            choice: gr.Radio(
                choices=[guess.class_name for guess in top],
                value=top[0].class_name,
                label=f"Top {NUMBERS[len(top)]} matches" if len(top) > 1 else "The only match",
                info=answer_html.top_info(prediction),
            ),
            bars: _bars(top),
            # where there is no car, the evidence for the closest match misleads unless it is asked for
            evidence: gr.Accordion(visible=True, open=prediction.is_car is not False),
            **(asked.reset() if asked else {}),
            **_evidence(prediction, top[0].class_name, name),
            **compared.closed(None if prediction.is_car is False else prediction),
        }

    def choose(class_name: str, name: str, prediction: Prediction | None) -> dict[Any, Any]:
        if not prediction:
            return _nothing(answer_html.error_card(EXPIRED, ADVICE))
        return _evidence(prediction, class_name, name)

    def _evidence(prediction: Prediction, class_name: str, name: str) -> dict[Any, Any]:
        name = name if name in tuple(METHODS) else GRAD_CAM_PLUS_PLUS  # the browser may send anything
        note = ""
        try:
            heatmap = prediction.heatmap(class_name, name)
        except TwinCarError as error:  # the method's package is not installed
            note = f'<p role="alert">{answer_html.with_code(str(error))} The map shown is {GRAD_CAM_PLUS_PLUS}.</p>'
            heatmap = prediction.heatmap(class_name)
        return {
            slider: gr.ImageSlider(
                (prediction.photo, overlay(prediction.photo, heatmap)), slider_position=beside(heatmap)
            ),
            sentence: note + answer_html.evidence(class_name, bool(heatmap.any())),
            method: gr.Dropdown(info=describe_method(name)),
        }

    def _nothing(html: str) -> dict[Any, Any]:
        hidden = gr.Column(visible=False)
        emptied = dict.fromkeys((answer, source, framed))
        closed = {evidence: gr.Accordion(visible=False), **(asked.hidden() if asked else {})}
        return {**emptied, headline: html, top5: hidden, **closed, **compared.closed(None)}

    def identify(photo: dict) -> tuple[dict, Any]:
        """Identify every car in a photo: the top 5 classes, and the evidence for the first one of the largest car.

        Args:
            photo: A picture file: JPEG, PNG, WebP, HEIC, AVIF, TIFF, BMP or GIF.

        Returns:
            answer: cars: every car, the largest first, each with box (x1, y1, x2, y2 in pixels of the upright photo;
                null where the whole photo was read), top (the five most probable classes, best first, each with
                class_name, make, model, body, year and probability, 0 to 1), makes (the three most probable ones with
                their probabilities), is_known (false where it is none of the model's classes), said (the answer in
                words) and state: car, model or make (one class, or several of one model or make), unsure, unknown_car.
                The list is empty where there is no car. For the largest car the same keys, with state no_car where
                there is none, is_car, and others (boxes of the other cars). model (its name and version); version (of
                TwinCar). is_car and is_known are null from a model without this function.
            overlay: The photo with the Grad-CAM++ heatmap for the first class over it, at the photo's size.
        """
        try:
            prediction = predictor(stored_photo(photo))
        except PhotoError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return as_dict(prediction, TOP), prediction.overlay()

    # preprocess=False: Gradio would open the file itself first, and report a broken one with its own message.
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    waiting = f"(photo) => [photo ? '{READING}' : '{_one_line(_welcome(scope))}', null]"
    # "input" comes once per photo; "change" comes twice for a photo on top of another one, and the second answer would
    # undo what the visitor has selected in between.
    photo.input(None, photo, [headline, framed], js=waiting, **private)
    everything: list = [answer, source, framed, headline, top5, choice, bars, evidence, slider, sentence, method]
    everything += [compared.box, compared.one, compared.other, *compared.outputs, *(asked.parts if asked else [])]
    again = framed.select(answer_again, [source, method, added], everything, **private)
    # A late answer for the previous photo must not replace the answer for this one.
    answered = photo.input(show, [photo, method, added], everything, preprocess=False, cancels=[again], **private)
    answered.failure(None, None, headline, js=f"() => '{_one_line(answer_html.error_card(BUSY, LATER))}'", **private)
    progress = private | {"show_progress": "minimal", "show_progress_on": [slider]}  # some methods take seconds
    gr.on([choice.input, method.input], choose, [choice, method, answer], everything, **progress)
    # Outputs of the API only.
    result, picture = gr.JSON(visible=False, label="answer"), gr.Image(visible=False, label="overlay", format="jpeg")
    gr.on(
        [],
        identify,
        photo,
        [result, picture],
        preprocess=False,
        api_name="identify",
        api_description=tool_description(identify),
    )


def beside(heatmap: np.ndarray) -> float:
    """The slider's position in per cent of the width, at which the bright part of a heatmap is uncovered.

    Args:
        heatmap: Height x width, 0 to 1. The overlay is drawn to the right of the position.
    """
    columns = heatmap.max(axis=0)
    bright = np.flatnonzero(columns > 0.25 * columns.max())
    return float(np.clip(100 * bright[0] / len(columns) - 3, 4, 50)) if len(bright) else 50.0


def _welcome(scope: str) -> str:
    return (
        f'<div class="welcome">{CAR}<h2>Which car is it?</h2>'
        "<p>You’ll get the answer as soon as the photo is uploaded. It works best when the car fills the frame.</p>"
        f'<p class="small">Covers {escape(scope)}. For any other car it can only name the closest match.</p></div>'
    )


def _bars(top: list[Guess]) -> str:
    """A style sheet with the length of the bar and the number of each row of the radio group."""
    rows = (
        f'#top5 label:nth-of-type({row}){{--fraction:{guess.probability:.4f};--figure:"{percent(guess.probability)}"}}'
        for row, guess in enumerate(top, 1)
    )
    return f"<style>{''.join(rows)}</style>"


def _one_line(html: str) -> str:
    return " ".join(html.split()).replace("'", "\\'")
