"""The question "Was this right?" under an answer, where the operator set TWINCAR_FEEDBACK=file.csv.

A row of the file holds the answer and what the visitor said about it, and neither the photo nor anything about the
visitor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from twincar.config import TwinCarError
from twincar.files import for_spreadsheets, locked
from twincar.modeling.inference.describe import describe
from twincar.modeling.inference.prediction import Prediction
from twincar.text import display_name

COLUMNS = ("time", "state", "class_name", "probability", "right", "car", "model", "version")
MOST_BYTES = 50_000_000  # of the file; further answers are not kept
QUESTION = "<p>Was this right?</p>"
THANKS = '<p role="status">Thank you. Your answer was kept, without the photo.</p>'


@dataclass(frozen=True)
class FeedbackRow:
    """The row's components.

    Attributes:
        parts: All of them, as outputs.
        row: What holds them.
        text: The question, then the thanks.
        buttons: Yes and no.
        correction: What is shown after "No": the name of the car, and a button that sends it.
    """

    parts: list
    row: gr.Column
    text: gr.HTML
    buttons: gr.Row
    correction: gr.Row

    def reset(self) -> dict[Any, Any]:
        """The updates for a new answer: ask."""
        return self._shown(QUESTION, buttons=True)

    def hidden(self) -> dict[Any, Any]:
        """The updates where there is no answer."""
        return {self.row: gr.Column(visible=False)}

    def corrected(self) -> dict[Any, Any]:
        """The updates after "No": ask for the name."""
        return self._shown("<p>Which car is it? Leave it empty if you don’t know.</p>", correction=True)

    def thanked(self, text: str = THANKS) -> dict[Any, Any]:
        """The updates after the answer was kept."""
        return self._shown(text)

    def _shown(self, text: str, buttons: bool = False, correction: bool = False) -> dict[Any, Any]:
        return {
            self.row: gr.Column(visible=True),
            self.text: text,
            self.buttons: gr.Row(visible=buttons),
            self.correction: gr.Row(visible=correction),
        }


def feedback_row(file: Path, answer: gr.State) -> FeedbackRow:
    """Draw the hidden row into the open tab.

    Args:
        file: The CSV file.
        answer: The state with the Prediction that is shown.
    """
    with gr.Column(visible=False, elem_id="feedback") as row:
        text = gr.HTML(QUESTION)
        with gr.Row() as buttons:
            yes, no = gr.Button("Yes", size="sm", min_width=88), gr.Button("No", size="sm", min_width=88)
        with gr.Row(visible=False) as correction:
            car = gr.Textbox(label="Car", show_label=False, placeholder="make, model, year", max_length=160, lines=1)
            send = gr.Button("Send", size="sm", min_width=88)
    asked = FeedbackRow([row, text, buttons, correction], row, text, buttons, correction)

    def kept(right: bool) -> Callable[..., dict[Any, Any]]:
        def keep(prediction: Prediction | None, name: str = "") -> dict[Any, Any]:
            if prediction is None:
                return asked.hidden()
            try:
                write(file, prediction, right, name)
            except (OSError, TwinCarError):
                return asked.thanked('<p role="status">Your answer could not be kept.</p>')
            return asked.thanked()

        return keep

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    yes.click(kept(True), answer, asked.parts, **private)
    no.click(asked.corrected, None, asked.parts, **private)
    gr.on([send.click, car.submit], kept(False), [answer, car], asked.parts, **private)
    return asked


def write(file: Path, prediction: Prediction, right: bool, car: str = "") -> None:
    """Add a row to the file, whose lines are written one at a time.

    Args:
        file: The CSV file; created with its folder where it does not exist.
        prediction: The answer.
        right: Whether the visitor says that it is right.
        car: The visitor's name of the car, untrusted.

    Raises:
        OSError: The file cannot be written.
    """
    best, described = prediction.top(1)[0], describe(prediction)
    values = (
        datetime.now(UTC).isoformat(timespec="seconds"), described.state, best.class_name, round(best.probability, 4),
        "yes" if right else "no", display_name(str(car)[:1000]).strip(), prediction.model["name"],
        prediction.model["version"],
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock")):
        new = not file.exists()
        if not new and file.stat().st_size > MOST_BYTES:
            raise OSError(f"{file} is larger than {MOST_BYTES:,} bytes.")
        table = for_spreadsheets(pd.DataFrame([values], columns=list(COLUMNS)))
        table.to_csv(file, mode="a", index=False, header=new, encoding="utf-8")
