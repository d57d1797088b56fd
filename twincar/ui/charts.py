"""Shared parts of the plotly charts: the page's style.

Backgrounds are transparent, and text and grid take their colours from charts.css, so that a figure is readable on light
and dark.
"""

from typing import Any

import plotly.graph_objects as go

from twincar.plots.palette import CATEGORICAL, GREY, GROUND, INK

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PERCENT = {"ticksuffix": "\N{NO-BREAK SPACE}%"}  # of an axis whose values are percentages


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
    axis = {
        "automargin": True,
        "gridcolor": GREY,
        "zeroline": False,
        "fixedrange": not zoom,
        "title_standoff": 8,
        "separatethousands": True,
    }
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


def shorten(name: str, longest: int = 40) -> str:
    """Cut a name to the width of a phone; the hover text has the full name."""
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
