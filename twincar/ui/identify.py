"""The Identify tab: a photo in; the car's name, how sure that is, the five nearest, and the evidence for each.

The network runs once or twice a photo, and once more for every frame that the visitor draws on it. The Prediction stays
in the visitor's session, so that another of the five costs one pass of the head. Everything that is shown comes from
`Predictor`; here it is only put into words.
"""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from twincar.features.photo import PhotoError, load_photo
from twincar.modeling.detection.boxes import Box, to_pixels
from twincar.modeling.inference.describe import as_dict
from twincar.modeling.inference.explain import GRAD_CAM_PLUS_PLUS, METHODS
from twincar.modeling.inference.prediction import Guess, Prediction
from twincar.modeling.inference.predictor import Predictor
from twincar.ui import answer as answer_html
from twincar.ui import frame
from twincar.ui.compare import drawer
from twincar.ui.frame import Wish
from twincar.ui.uploads import stored_photo

TOP = 5
SHOWN_SIDE = 1280  # pixels: the page needs no more, and a phone's 12 megapixels would take seconds to draw and send
FORGOTTEN = "The page has forgotten this photo, as it does after a while: choose the photo again."
ADVICE = "Drop, paste or pick another one: the page is ready for it."
BUSY = "The page is too busy to answer just now, or cannot be reached."
LATER = "Wait a moment, then choose the photo again."
LOOKING = '<div class="looking"><p>Looking at the photo…</p></div>'

CAR = """<svg viewBox="0 0 240 96" aria-hidden="true"><defs><radialGradient id="heat" cx=".34" cy=".55" r=".5">
<stop offset="0" stop-color="#f7d13d"/><stop offset=".3" stop-color="#ed6925"/>
<stop offset=".62" stop-color="#a52c60"/>
<stop offset="1" stop-color="#4a1d7c"/></radialGradient></defs>
<path fill="url(#heat)" d="M14 70c-5 0-8-3-8-8V50c0-6 4-10
10-11l34-5 27-18c6-4 12-6 19-6h45c9 0 17 3 24 9l21 17 34 6c8 1 14 7 14 15v7c0 4-3 6-7 6h-10a23 23 0 0 0-46 0H84a23 23 0
0 0-46 0z"/><path class="window" d="M72 33l14-10c4-3 8-4 13-4h20v14zM128 19h14c7 0 12 2 17 6l10 8h-41z"/>
<circle class="tyre" cx="61" cy="71" r="16"/><circle class="tyre" cx="194" cy="71" r="16"/></svg>"""


def tab(predictor: Predictor, scope: str, examples: list[str], keep_for: float) -> None:
    """Draw the tab into the open Blocks. `scope` says what the model knows; answers are kept `keep_for` seconds."""
    answer, kept = gr.State(None, time_to_live=keep_for), gr.State(None, time_to_live=keep_for)
    with gr.Row(elem_id="identify"):
        with gr.Column(elem_classes="side"):
            with gr.Column(elem_id="shown"):
                photo = gr.Image(
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    label="Photo of a car",
                    show_label=False,
                    buttons=[],
                    alt_text="Your photo",
                    elem_id="photo",
                    height=330,
                    placeholder="# Drop, paste or pick a photo of a car\nor take one with the camera below",
                    webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
                )
                framed = frame.control()
            if examples:
                gr.Examples(
                    examples,
                    photo,
                    label="Photos to try",
                    elem_id="examples",
                    cache_examples=False,
                    api_visibility="private",
                )
            with gr.Column(visible=False, elem_id="five") as five:
                nearest = gr.Radio(label="The five nearest", info=answer_html.nearest_info(None))
                bars = gr.HTML(elem_id="bars")
        with gr.Column(elem_classes="main"):
            headline = gr.HTML(_welcome(scope), elem_id="headline")
            with gr.Column(visible=False, elem_id="evidence") as evidence:
                slider = gr.ImageSlider(
                    label="Photo and evidence", show_label=False, type="filepath", format="jpeg", interactive=False,
                    buttons=["fullscreen"], max_height=460, elem_id="slider",
                )  # fmt: skip
                sentence = gr.HTML(elem_id="sentence")
                method = gr.Radio(
                    list(METHODS),
                    value=GRAD_CAM_PLUS_PLUS,
                    label="How the evidence is drawn",
                    info=answer_html.METHODS,
                    elem_id="method",
                )
    compared = drawer(predictor, answer)

    def show(upload: dict | None, drawn: str) -> dict[Any, Any]:
        try:
            file = upload and stored_photo(upload)
            prediction = file and predictor(file, side=SHOWN_SIDE)
        except PhotoError as error:
            return _nothing(answer_html.trouble(str(error), ADVICE))
        if not prediction:
            return _nothing(_welcome(scope))
        return _told(prediction, file, prediction.cars, Wish(), drawn)

    def answer_again(before: tuple[Path, list[Box]] | None, drawn: str, event: gr.EventData) -> dict[Any, Any]:
        if not before or not before[0].is_file():
            return _nothing(answer_html.trouble(FORGOTTEN, ADVICE))
        file, cars = before
        wish, image = Wish.of(event._data), load_photo(file)
        if wish.mode == "own":
            prediction = predictor(image, box=to_pixels(wish.box, image.size))
        else:
            prediction = predictor(image, refine=wish.mode == "found")
        return _told(prediction, file, cars, wish, drawn)

    def _told(prediction: Prediction, file: Path, cars: list[Box], wish: Wish, drawn: str) -> dict[Any, Any]:
        # In place, after the network has read all of it: what the page draws and keeps needs no more pixels.
        prediction.photo.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        top = prediction.top(TOP)
        return {
            answer: prediction,
            kept: (file, cars),
            framed: frame.shown(prediction, cars, wish),
            headline: answer_html.answer(
                prediction, _knows(scope), "this frame" if wish.mode == "own" else "this photo"
            ),
            five: gr.Column(visible=True),
            nearest: gr.Radio(
                choices=[guess.class_name for guess in top],
                value=top[0].class_name,
                label=answer_html.nearest_label(len(top)),
                info=answer_html.nearest_info(prediction),
            ),
            bars: _bars(top),
            evidence: gr.Column(visible=True),
            **_evidence(prediction, top[0].class_name, drawn),
            **compared.closed(prediction),
        }

    def choose(class_name: str, drawn: str, prediction: Prediction | None) -> dict[Any, Any]:
        return (
            _evidence(prediction, class_name, drawn) if prediction else _nothing(answer_html.trouble(FORGOTTEN, ADVICE))
        )

    def _evidence(prediction: Prediction, class_name: str, drawn: str) -> dict[Any, Any]:
        drawn = drawn if drawn in tuple(METHODS) else GRAD_CAM_PLUS_PLUS  # the browser may send anything
        return {
            slider: gr.ImageSlider(
                (prediction.photo, prediction.overlay(class_name, drawn)), slider_position=_middle(prediction)
            ),
            sentence: answer_html.evidence(class_name, bool(prediction.heatmap(class_name, drawn).any())),
        }

    def _nothing(said: str) -> dict[Any, Any]:
        hidden = gr.Column(visible=False)
        emptied = dict.fromkeys((answer, kept, framed))
        return {**emptied, headline: said, five: hidden, evidence: hidden, **compared.closed(None)}

    def identify(photo: dict) -> tuple[dict, Any]:
        """Name the car in a photo: the five nearest classes, and what in the photo speaks for the first.

        Args:
            photo: A picture file: JPEG, PNG or WebP.

        Returns:
            answer: top, the five best, best first: class_name, make, model, body, year and probability (0 to 1); makes,
                the three likeliest with theirs; is_car and is_known, false for what is no car or none of the model's;
                box, where the car was found, and others, more cars: x1, y1, x2, y2 in pixels of the upright photo.
                A model that was not taught so says null.
            overlay: The photo with the Grad-CAM++ evidence for the first laid over it, at the photo's size.
        """
        try:
            prediction = predictor(stored_photo(photo))
        except PhotoError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return as_dict(prediction, TOP), prediction.overlay()

    # preprocess=False: Gradio would open the file itself, before us, and answer a broken one in its own words.
    private = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    waiting = f"(photo) => [photo ? '{LOOKING}' : '{_one_line(_welcome(scope))}', null]"
    photo.change(None, photo, [headline, framed], js=waiting, **private)
    everything = [answer, kept, framed, headline, five, nearest, bars, evidence, slider, sentence]
    everything += [compared.box, compared.one, compared.other, *compared.outputs]
    again = framed.select(answer_again, [kept, method], everything, **private)
    # A late answer about the photo before must not be taken for one about this photo.
    answered = photo.change(show, [photo, method], everything, preprocess=False, cancels=[again], **private)
    answered.failure(None, None, headline, js=f"() => '{_one_line(answer_html.trouble(BUSY, LATER))}'", **private)
    gr.on([nearest.input, method.input], choose, [nearest, method, answer], everything, **private)
    told, overlay = gr.JSON(visible=False, label="answer"), gr.Image(visible=False, label="overlay", format="jpeg")
    gr.on([], identify, photo, [told, overlay], preprocess=False, api_name="identify")


def _middle(prediction: Prediction) -> float:
    """Where the slider parts photo and evidence, in per cent: in the middle of what was looked at."""
    if not prediction.refined or not prediction.box:
        return 50
    return 100 * (prediction.box[0] + prediction.box[2]) / 2 / prediction.photo.width


def _welcome(scope: str) -> str:
    return (
        f'<div class="welcome">{CAR}<h2>Which car is it?</h2>'
        "<p>The answer comes by itself as soon as the photo is in. A photo that the car fills is answered best.</p>"
        f'<p class="small">It knows {escape(scope)}. Any other car, or no car at all, gets the nearest look.</p></div>'
    )


def _knows(scope: str) -> str:
    return f'<p class="small">I know {escape(scope)} and no others: any other car gets the nearest look.</p>'


def _bars(top: list[Guess]) -> str:
    """The rows are a real radio group; this tells its style sheet how long each bar is, and its figure."""
    rows = (
        f"#five label:nth-of-type({row})"
        f'{{--share:{guess.probability:.4f};--figure:"{answer_html.percent(guess.probability)}"}}'
        for row, guess in enumerate(top, 1)
    )
    return f"<style>{''.join(rows)}</style>"


def _one_line(html: str) -> str:
    return " ".join(html.split()).replace("'", "\\'")
