"""Shared parts of the chart tabs: a view is a card with a heading, a sentence of explanation, and a chart below it."""

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
SIGHT = """new IntersectionObserver(([place], observer) => {
  if (!place.isIntersecting) return;
  observer.disconnect();
  trigger("click");
}, { rootMargin: "99999px 0px 400px" }).observe(element);"""
CONFIG = {"displaylogo": False, "displayModeBar": False}


@dataclass(frozen=True)
class View:
    """The components of one view. It is hidden until `show` or `draw` fills it.

    Attributes:
        title: The heading.
        card: The column around it.
        text: The heading and the sentence.
        chart: The chart, by plotly or as HTML.
    """

    title: str
    card: gr.Column
    text: gr.HTML
    chart: gr.Plot | gr.HTML

    @property
    def parts(self) -> list:
        """The components that `show`, `draw` and `hide` update."""
        return [self.card, self.text, self.chart]

    def show(self, sentence: str, figure: "go.Figure", summary: str, below: str = "") -> dict[Any, Any]:
        """The updates that show a sentence and its plotly figure.

        Args:
            sentence: The explanation.
            figure: The chart.
            summary: The chart in words.
            below: HTML after the sentence.
        """
        # Gradio sends a figure without plotly's config, which switches its logo and its buttons off.
        content = json.loads(figure.to_json()) | {"config": CONFIG}
        plot = gr.Plot(value=PlotData(type="plotly", plot=json.dumps(content)))
        return self._filled(sentence, plot, f"{self.title}. {summary}", bool(figure.layout.dragmode), below)

    def draw(self, sentence: str, html: str) -> dict[Any, Any]:
        """The updates that show a sentence and its chart of `html_charts`."""
        return self._filled(sentence, html)

    def hide(self) -> dict[Any, Any]:
        """The updates that hide the view, because there is nothing to show."""
        return {self.card: gr.Column(visible=False)}

    def _filled(
        self, sentence: str, chart: Any, summary: str = "", zooms: bool = False, below: str = ""
    ) -> dict[Any, Any]:
        # page.js gives the summary to the plotly chart; charts.css adds how to zoom, which takes a mouse.
        attributes = f' data-chart="{self.chart.elem_id}" data-summary="{escape(summary)}"' if summary else ""
        hint = ' class="zooms"' if zooms else ""
        html = f"<h3>{escape(self.title)}</h3><p{hint}>{with_code(sentence)}</p>{below}"
        text = f'<div class="view"{attributes}>{html}</div>'
        return {self.card: gr.Column(visible=True), self.text: text, self.chart: chart}


def view(title: str, elem_id: str, controls: Callable[[], Any] | None = None, **options: Any) -> Any:
    """Draw an empty view.

    Args:
        title: The heading.
        elem_id: HTML id of the chart.
        controls: Draws the components between sentence and chart.
        **options: `width`, a class of the card in a row; `html`, the arguments of a gr.HTML for the chart, which is
            drawn by plotly otherwise.

    Returns:
        The View; with `controls`, a tuple of the View and what `controls` returned.
    """
    with gr.Column(elem_classes=["card", *options.get("width", "").split()], visible=False) as card:
        text = gr.HTML(elem_classes="view-text")
        drawn = controls() if controls else None
        chart: gr.Plot | gr.HTML
        if "html" in options:
            chart = gr.HTML(elem_id=elem_id, elem_classes="drawing", apply_default_css=False, **options["html"])
        else:
            chart = gr.Plot(show_label=False, container=False, elem_id=elem_id, elem_classes="chart")
    made = View(title, card, text, chart)
    return (made, drawn) if controls else made


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


def watcher() -> gr.HTML:
    """Draw a place whose `click` event comes once, when a visitor has scrolled near it or past it.

    The charts below it are filled then, so that plotly (1.3 MB) is loaded only for those who get there. It is hidden,
    so that it cannot be near before what is above it has been filled.
    """
    return gr.HTML("<span></span>", visible=False, js_on_load=SIGHT, elem_classes="watcher")


def read_table(path: Path | None, *columns: str) -> pd.DataFrame | None:
    """Read a CSV; None where it is missing, cannot be read, has no rows or lacks one of the columns."""
    if path is None or not path.is_file():
        return None
    try:
        rows = pd.read_csv(path)
    except (ValueError, OSError):
        return None
    return rows if len(rows) and set(columns) <= set(rows.columns) else None
