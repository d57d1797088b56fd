"""Shared parts of the interactive charts: the page's plotly style and ranked bars.

Backgrounds are transparent, and text and grid take their colours from charts.css, so that a figure is readable on light
and dark. Ranked bars carry the class name above the bar, because a phone has no room for it at the side.
"""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from twincar.plots.palette import CATEGORICAL, GREY, GROUND, INK

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BAR, LINE = 18, 16  # pixels: height of a ranked bar, and of each line of its name


def blank(*traces, height: int = 320, zoom: bool = False, figure: go.Figure | None = None, **layout: Any) -> go.Figure:
    """An empty figure in the page's style, with the traces added.

    Args:
        *traces: plotly traces.
        height: Height in pixels.
        zoom: Whether dragging zooms; otherwise touch and wheel scroll the page.
        figure: The figure to style; a new one by default.
        **layout: plotly layout, which overrides the page's.
    """
    figure = (figure or go.Figure()).add_traces(list(traces)).update_layout(template="none")
    axis = {"automargin": True, "gridcolor": GREY, "zeroline": False, "fixedrange": not zoom, "title_standoff": 8}
    figure.update_layout(
        height=height,
        font={"family": FONT, "size": 13, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 4, "r": 8, "t": 30, "b": 4},
        hoverlabel={"bgcolor": INK, "bordercolor": GREY, "font": {"color": GROUND, "family": FONT}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        dragmode="zoom" if zoom else False,
        colorway=CATEGORICAL,
    )
    figure.update_layout(layout)
    return figure.update_xaxes(axis).update_yaxes(axis)


def faded(colour: str, opacity: float) -> str:
    """A colour "#rrggbb" of the palette as rgba with this opacity (0-1)."""
    return f"rgba({', '.join(str(value) for value in bytes.fromhex(colour[1:]))}, {opacity})"


def ranked(
    labels: Sequence[str],
    bars: dict[str, Sequence[float]],
    figures: Sequence[str],
    hover: str,
    colours: Sequence[str] = CATEGORICAL,
    full: float | None = None,
) -> go.Figure:
    """Horizontal bars from the top down, each with its label above it and its number at the end.

    Args:
        labels: One per row; may have several lines (<br>).
        bars: Name of a series -> a value per row; several series are stacked.
        figures: The number printed at the end of each row.
        hover: plotly's hovertemplate; the label is %{customdata}.
        colours: One per series.
        full: The value of a bar of full width; the largest sum by default.
    """
    lines = max((label.count("<br>") + 1 for label in labels), default=1)
    row = BAR + LINE * lines
    half, above = 0.275 * BAR / row, 0.3 * BAR / row  # in rows: half a bar's height, and the label's offset
    places = list(range(len(labels)))
    traces = [
        go.Bar(y=places, x=list(values), name=name, orientation="h", width=2 * half, customdata=list(labels),
               marker_color=colour, hovertemplate=hover)
        for (name, values), colour in zip(bars.items(), colours, strict=False)
    ]  # fmt: skip
    longest = full or max((sum(values) for values in zip(*bars.values(), strict=True)), default=1) or 1
    text = {"y": [place - above for place in places], "mode": "text", "hoverinfo": "skip", "showlegend": False}
    short = ["<br>".join(shorten(line) for line in label.split("<br>")) for label in labels]
    traces.append(go.Scatter(text, x=[0] * len(labels), text=short, textposition="top right"))
    traces.append(go.Scatter(text, x=[longest] * len(labels), text=list(figures), textposition="top left"))
    legend = 34 if len(bars) > 1 else 0
    figure = blank(*traces, height=legend + 8 + row * len(labels), barmode="stack", showlegend=legend > 0)
    figure.update_layout(margin={"t": legend + 4, "b": 4})
    figure.update_yaxes(visible=False, range=[len(labels) - 1 + 2 * half, 2 * half - 1])
    return figure.update_xaxes(visible=False, range=[0, longest])


def shorten(name: str, longest: int = 40) -> str:
    """Cut a name to the width of a phone; the hover text has the full name."""
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
