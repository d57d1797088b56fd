"""The drawer of the Identify tab that compares two classes: their evidence side by side, and the difference.

Nothing is computed before the drawer is opened; then each class costs one pass of the head over the stored features.
"""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from twincar.modeling.inference.describe import percent
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.inference.predictor import Predictor

EQUAL = 1.2  # ratio of two probabilities below which they are called equally likely


@dataclass(frozen=True)
class Drawer:
    """The drawer's components.

    Attributes:
        box: The accordion.
        one: Selects the first class.
        other: Selects the second class.
        outputs: The sentence, and the pictures with their captions.
    """

    box: gr.Accordion
    one: gr.Dropdown
    other: gr.Dropdown
    outputs: list

    def closed(self, prediction: Prediction | None) -> dict[Any, Any]:
        """The updates for a new photo: close the drawer, select the two most probable classes, clear the pictures."""
        if prediction is None or len(prediction.class_names) < 2:
            return {self.box: gr.Accordion(visible=False, open=False)}
        first, second = (guess.class_name for guess in prediction.top(2))
        names = sorted(prediction.class_names)  # a visitor may have added some
        return {
            self.box: gr.Accordion(visible=True, open=False),
            self.one: gr.Dropdown(names, value=first),
            self.other: gr.Dropdown(names, value=second),
            **dict.fromkeys(self.outputs),
        }


def drawer(predictor: Predictor, answer: gr.State) -> Drawer:
    """Draw the closed drawer into the open tab; `answer` is the state with the Prediction."""
    names = sorted(predictor.class_names)
    with gr.Accordion("Why this car and not another?", open=False, visible=False, elem_id="compare") as box:
        with gr.Row(elem_id="pair"):
            one = gr.Dropdown(names, label="This car", value=names[0], elem_id="one")
            other = gr.Dropdown(names, label="Other car", value=names[-1], elem_id="other")
        verdict = gr.HTML(elem_id="verdict")
        with gr.Row(elem_id="sides"):
            pictures = []
            for side in ("one", "other", "difference"):
                with gr.Column(min_width=0):
                    picture = gr.Image(
                        type="pil", format="jpeg", interactive=False, show_label=False, container=False,
                        buttons=["fullscreen"], elem_id=f"{side}-picture",
                    )  # fmt: skip
                    pictures += [picture, gr.HTML(elem_id=f"{side}-caption", elem_classes="caption")]
    outputs = [verdict, *pictures]

    def compare(prediction: Prediction | None, class_name: str | None, against: str | None) -> list:
        if prediction is None or not class_name or not against:
            return [None] * len(outputs)
        shown: list[Any] = [_verdict(prediction, class_name, against)]
        for name in (class_name, against):
            shown += [
                gr.Image(prediction.overlay(name), alt_text=f"The photo with the evidence for {name} over it"),
                _caption(name, prediction.probability(name)),
            ]
        same = class_name == against
        difference = gr.Image(
            None if same else prediction.difference_overlay(class_name, against),
            alt_text=f"The photo with the difference between {class_name} and {against} over it",
        )
        return [*shown, difference, "" if same else _legend(class_name, against)]

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    gr.on([box.expand, one.input, other.input], compare, [answer, one, other], outputs, **quiet)
    return Drawer(box, one, other, outputs)


def _verdict(prediction: Prediction, class_name: str, against: str) -> str:
    if class_name == against:
        return "<p>Select two different cars to compare them.</p>"
    ranked = sorted(((prediction.probability(name), name) for name in (class_name, against)), reverse=True)
    (more, likelier), (less, rarer) = ranked
    times = more / max(less, 1e-12)
    if times < EQUAL:
        return "<p>In this photo, the two are <b>about equally likely</b>.</p>"
    figure = "over 1,000" if times >= 1000 else f"{times:,.0f}" if times >= 10 else f"{times:.1f}"
    return f"<p>In this photo, <b>{escape(likelier)}</b> is {figure} times as likely as <b>{escape(rarer)}</b>.</p>"


def _caption(class_name: str, probability: float) -> str:
    return f"<p><b>{escape(class_name)}</b> <span>{percent(probability)}</span></p>"


def _legend(class_name: str, against: str) -> str:
    return (
        '<p><b>Difference</b></p><p class="scale difference" aria-hidden="true"><span>other car</span><i></i>'
        f"<span>this car</span></p><p>Orange areas count more towards <b>{escape(class_name)}</b>, violet areas more "
        f"towards <b>{escape(against)}</b>.</p>"
    )
