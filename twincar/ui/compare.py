"""Why this car and not that one: two classes' evidence side by side, and what in the photo tells them apart.

A closed drawer of the Identify tab. Nothing in it is computed before it is opened; then a class costs one pass of the
head over features that the answer has kept.
"""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.inference.predictor import Predictor
from twincar.ui.answer import percent

SIMILAR = 1.2  # times as likely; nearer than that nobody should read a preference into it


@dataclass(frozen=True)
class Drawer:
    """The drawer's components. `closed` are the updates for a new photo, `forgotten` what is in need of an answer."""

    box: gr.Accordion
    one: gr.Dropdown
    other: gr.Dropdown
    outputs: list

    def closed(self, prediction: Prediction | None) -> dict[Any, Any]:
        """A new photo, or none: close it, choose the two nearest classes and forget the old pictures."""
        if prediction is None or len(prediction.class_names) < 2:
            return {self.box: gr.Accordion(visible=False, open=False)}
        first, second = (guess.class_name for guess in prediction.top(2))
        return {
            self.box: gr.Accordion(visible=True, open=False),
            self.one: first,
            self.other: second,
            **dict.fromkeys(self.outputs),
        }


def drawer(predictor: Predictor, answer: gr.State) -> Drawer:
    """Draw the closed drawer into the open tab. `answer` holds the Prediction."""
    names = sorted(predictor.class_names)
    with gr.Accordion("Why this car and not another?", open=False, visible=False, elem_id="compare") as box:
        with gr.Row(elem_id="pair"):
            one = gr.Dropdown(names, label="This car", value=names[0], elem_id="one")
            other = gr.Dropdown(names, label="and that one", value=names[-1], elem_id="other")
        verdict = gr.HTML(elem_id="verdict")
        with gr.Row(elem_id="sides"):
            pictures = []
            for side in ("one", "other", "apart"):
                with gr.Column(min_width=0):
                    picture = gr.Image(
                        type="pil", format="jpeg", interactive=False, show_label=False, container=False,
                        buttons=["fullscreen"], elem_id=f"{side}-picture",
                    )  # fmt: skip
                    pictures += [picture, gr.HTML(elem_id=f"{side}-words", elem_classes="caption")]
    outputs = [verdict, *pictures]

    def compare(prediction: Prediction | None, class_name: str | None, against: str | None) -> list:
        if prediction is None or not class_name or not against:
            return [None] * len(outputs)
        shown = [_verdict(prediction, class_name, against)]
        for name in (class_name, against):
            shown += [
                gr.Image(prediction.overlay(name), alt_text=f"The photo with the evidence for {name} over it"),
                _caption(name, prediction.probability(name)),
            ]
        alike = class_name == against
        difference = gr.Image(
            None if alike else prediction.difference_overlay(class_name, against),
            alt_text=f"The photo with what tells {class_name} from {against} over it",
        )
        return [*shown, difference, "" if alike else _legend(class_name, against)]

    quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    gr.on([box.expand, one.input, other.input], compare, [answer, one, other], outputs, **quiet)
    return Drawer(box, one, other, outputs)


def _verdict(prediction: Prediction, class_name: str, against: str) -> str:
    if class_name == against:
        return "<p>Choose two different cars to see what tells them apart.</p>"
    chances = sorted(((prediction.probability(name), name) for name in (class_name, against)), reverse=True)
    (more, likelier), (less, rarer) = chances
    times = more / max(less, 1e-12)
    if times < SIMILAR:
        return "<p>For this photo it finds the two <b>about as likely</b>.</p>"
    figure = "over 1,000" if times >= 1000 else f"{times:,.0f}" if times >= 10 else f"{times:.1f}"
    return (
        f"<p>For this photo it finds <b>{escape(likelier)}</b> {figure} times as likely as <b>{escape(rarer)}</b>.</p>"
    )


def _caption(class_name: str, probability: float) -> str:
    return f"<p><b>{escape(class_name)}</b> <span>{percent(probability)}</span></p>"


def _legend(class_name: str, against: str) -> str:
    return (
        '<p><b>What tells them apart</b></p><p class="scale apart" aria-hidden="true"><span>that one</span><i></i>'
        f"<span>this car</span></p><p>Orange parts spoke more for <b>{escape(class_name)}</b>, violet parts more for "
        f"<b>{escape(against)}</b>.</p>"
    )
