"""Shared parts of the chart tabs: a view is a heading, a sentence of explanation, and a chart below it."""

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

from twincar.ui.answer_html import with_code

if TYPE_CHECKING:
    import plotly.graph_objects as go

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
STATIC = {"displaylogo": False, "displayModeBar": False}
ZOOM = {"displaylogo": False, "displayModeBar": True, "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d"]]}


@dataclass(frozen=True)
class View:
    """The components of one view, drawn into the open column; `show` fills them."""

    title: str
    text: gr.HTML
    plot: gr.Plot

    @property
    def parts(self) -> list:
        """The components that `show` updates."""
        return [self.text, self.plot]

    def show(self, sentence: str, figure: "go.Figure | None" = None) -> dict[Any, Any]:
        """The updates that show a sentence and its figure, or the sentence only."""
        return {self.text: heading(self.title, sentence), self.plot: gr.Plot(**_plot(figure))}


def view(title: str, elem_id: str, controls: Callable[[], Any] | None = None) -> Any:
    """Draw an empty view.

    Args:
        title: The heading.
        elem_id: HTML id of the chart.
        controls: Draws the components between sentence and chart.

    Returns:
        The View; with `controls`, a tuple of the View and what `controls` returned.
    """
    text = gr.HTML(heading(title, ""), elem_classes="view-text")
    drawn = controls() if controls else None
    plot = gr.Plot(visible=False, show_label=False, container=False, elem_id=elem_id, elem_classes="chart")
    made = View(title, text, plot)
    return (made, drawn) if controls else made


def heading(title: str, sentence: str) -> str:
    """The HTML of a view's heading and sentence."""
    return f'<div class="view"><h3>{escape(title)}</h3><p>{with_code(sentence)}</p></div>'


def on_first_opening(fill: Callable[[], dict[Any, Any]], outputs: list) -> None:
    """Fill `outputs` when a visitor first opens the tab that is being drawn, so that the page itself loads faster."""
    drawn = gr.State(False)

    def first(already: bool) -> dict[Any, Any]:
        return {drawn: True} if already else {drawn: True} | fill()

    block = Context.block
    while block is not None and not isinstance(block, gr.Tab):
        block = block.parent
    root = Context.root_block
    assert root is not None, "call this inside a gr.Blocks"
    opened = block.select if block else root.load
    opened(first, drawn, [drawn, *outputs], **PRIVATE)


def read_table(path: Path | None, *columns: str) -> pd.DataFrame | None:
    """Read a CSV; None where it is missing, cannot be read, has no rows or lacks one of the columns."""
    if path is None or not path.is_file():
        return None
    try:
        rows = pd.read_csv(path)
    except (ValueError, OSError):
        return None
    return rows if len(rows) and set(columns) <= set(rows.columns) else None


def percent(fraction: float) -> str:
    """Format a fraction in 0-1 as a percentage with one decimal, the precision at which recipes differ."""
    return f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def _plot(figure: "go.Figure | None") -> dict[str, Any]:
    if figure is None:
        return {"value": None, "visible": False}
    # Gradio sends a figure without plotly's config, which switches its logo and its buttons.
    content = json.loads(figure.to_json()) | {"config": ZOOM if figure.layout.dragmode else STATIC}
    return {"value": PlotData(type="plotly", plot=json.dumps(content)), "visible": True}
