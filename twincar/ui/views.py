"""What the tabs of charts share: a view is a heading, a sentence that says what to see, and a chart below it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import pandas as pd
from gradio.components.plot import PlotData
from gradio.context import Context

if TYPE_CHECKING:
    import plotly.graph_objects as go

PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
STILL = {"displaylogo": False, "displayModeBar": False}
ZOOM = {"displaylogo": False, "displayModeBar": True, "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d"]]}


@dataclass(frozen=True)
class View:
    """A heading, a sentence and a chart, drawn into the open column; `show` fills them."""

    title: str
    words: gr.HTML
    plot: gr.Plot

    @property
    def parts(self) -> list:
        return [self.words, self.plot]

    def show(self, sentence: str, figure: "go.Figure | None" = None) -> dict[Any, Any]:
        """The updates that show `figure` and its sentence; without a figure only the sentence stands there."""
        return {self.words: heading(self.title, sentence), self.plot: gr.Plot(**_plot(figure))}


def view(title: str, sentence: str = "", elem_id: str | None = None, controls: Callable[[], Any] | None = None):
    """Draw a view; gives it, or (it, what `controls` drew between sentence and chart)."""
    words = gr.HTML(heading(title, sentence), elem_classes="view-words")
    drawn = controls() if controls else None
    plot = gr.Plot(visible=False, show_label=False, container=False, elem_id=elem_id, elem_classes="chart")
    made = View(title, words, plot)
    return (made, drawn) if controls else made


def heading(title: str, sentence: str) -> str:
    return f'<div class="view"><h3>{escape(title)}</h3><p>{escape(sentence)}</p></div>'


def on_first_opening(fill: Callable[[], dict[Any, Any]], outputs: list) -> None:
    """Fill `outputs` when a visitor opens the tab that is being drawn, and not before: the page opens without them."""
    drawn = gr.State(False)

    def first(already: bool) -> dict[Any, Any]:
        return {drawn: True} if already else {drawn: True} | fill()

    block = Context.block
    while block is not None and not isinstance(block, gr.Tab):
        block = block.parent
    opened = block.select if block else Context.root_block.load
    opened(first, drawn, [drawn, *outputs], **PRIVATE)


def read_table(path: Path | None, *columns: str) -> pd.DataFrame | None:
    """A CSV, or None where it is missing, cannot be read, has no rows or lacks one of the columns."""
    if path is None or not path.is_file():
        return None
    try:
        rows = pd.read_csv(path)
    except (ValueError, OSError):
        return None
    return rows if len(rows) and set(columns) <= set(rows.columns) else None


def share(value: float) -> str:
    """With one decimal, since half a point is what recipes differ by."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _plot(figure: "go.Figure | None") -> dict[str, Any]:
    if figure is None:
        return {"value": None, "visible": False}
    # Gradio sends a figure without plotly's config, which is where its logo and its buttons are switched.
    content = json.loads(figure.to_json()) | {"config": ZOOM if figure.layout.dragmode else STILL}
    return {"value": PlotData(type="plotly", plot=json.dumps(content)), "visible": True}
