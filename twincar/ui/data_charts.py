"""The charts of the tab *Explore the data*: a table in, a plotly figure or HTML out."""

from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from twincar.data.statistics import SHARPNESS
from twincar.plots.palette import AMBER, CATEGORICAL, GREY, VIOLET
from twincar.plots.palette import SPLITS as SPLIT_COLOURS
from twincar.ui import html_charts
from twincar.ui.charts import blank, shorten

SPLITS = {"train": "training", "val": "validation", "test": "test", "holdout": "held out"}
CHANNELS = {"red": "#d94f45", "green": "#3f9e5a", "blue": "#4a7fd6"}  # each in a row of its own, with its name


def totals(distribution: pd.DataFrame) -> pd.Series:
    """Pictures of each class in all splits. `distribution` has a row per class and a column of counts per split."""
    return distribution[[split for split in SPLITS if split in distribution]].sum(axis=1)


def _by_size(distribution: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with their total, largest first, and the splits that have pictures."""
    rows = distribution.assign(total=totals(distribution)).sort_values("total", ascending=False, kind="stable")
    return rows, [split for split in SPLITS if split in distribution and distribution[split].any()]


def class_counts(distribution: pd.DataFrame, alt: str) -> str:
    """Pictures per class, most first, as thin HTML bars stacked by split.

    Args:
        distribution: A row per class: class_name and a column of counts per split.
        alt: Text alternative.
    """
    rows, splits = _by_size(distribution)
    values = {SPLITS[split]: rows[split].tolist() for split in splits}
    return html_charts.columns(rows["class_name"].tolist(), values, [SPLIT_COLOURS[split] for split in splits], alt)


def largest(distribution: pd.DataFrame, number: int) -> str:
    """The classes with the most pictures by name, as HTML bars. `distribution` as for `class_counts`."""
    rows, splits = _by_size(distribution)
    bars = [
        html_charts.Bar(row["class_name"], [row[split] for split in splits], f"{row['total']:,}")
        for row in rows.head(number).to_dict("records")
    ]
    colors = [SPLIT_COLOURS[split] for split in splits]
    return html_charts.ranked(bars, [SPLITS[split] for split in splits], max(rows["total"].max(), 1), colors)


def splits(distribution: pd.DataFrame) -> str:
    """The fraction of pictures in each split, as an HTML ring. `distribution` as for `totals`."""
    counts = {split: int(distribution[split].sum()) for split in SPLITS if split in distribution}
    counts = {split: number for split, number in counts.items() if number}
    named = {SPLITS[split]: number for split, number in counts.items()}
    return html_charts.donut(named, [SPLIT_COLOURS[split] for split in counts], "pictures")


def sizes(statistics: pd.DataFrame, make: str | None = None, most: int = 8) -> go.Figure:
    """Width against height, a point per picture, with some classes highlighted by colour and marker shape.

    Args:
        statistics: class_name, make, width, height, aspect_ratio and, where there are boxes, box_width and box_height.
        make: Highlight the classes of this make; by default those with most pictures.
        most: Highlight at most this many classes, because more colours cannot be distinguished.
    """
    chosen = statistics[statistics["make"] == make] if make else statistics
    coloured = chosen["class_name"].value_counts().index[:most]
    hover = "<b>%{customdata[0]}</b><br>%{x:,} × %{y:,} px, aspect ratio %{customdata[1]:.2f}%{customdata[2]}"
    shapes = ("circle", "diamond", "square", "triangle-up", "cross", "star", "triangle-down", "x")

    def points(rows: pd.DataFrame, name: str, **marker) -> go.Scatter:
        box = [f"<br>car {w:,.0f} × {h:,.0f} px" if w == w else "" for w, h in zip(*_box(rows), strict=True)]
        details = list(zip(rows["class_name"], rows["aspect_ratio"].round(4), box, strict=True))
        return go.Scatter(
            x=rows["width"].tolist(), y=rows["height"].tolist(), name=name, mode="markers", marker=marker,
            customdata=details, hovertemplate=hover + "<extra></extra>",
        )  # fmt: skip

    rest = statistics[~statistics["class_name"].isin(coloured)]
    traces = [points(rest, "other classes", color=GREY, size=7, opacity=0.45)] if len(rest) else []
    for i, name in enumerate(coloured):
        rows = statistics[statistics["class_name"] == name]
        traces.append(
            points(rows, shorten(name, 34), color=CATEGORICAL[i % 5], symbol=shapes[i % len(shapes)], size=11)
        )
    below = {"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"}
    figure = blank(*traces, height=430 + 16 * len(traces), zoom=True, showlegend=True, legend=below)
    figure.update_xaxes(title_text="width in pixels", rangemode="tozero")
    return figure.update_yaxes(title_text="height in pixels", rangemode="tozero")


def _box(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    nothing = pd.Series(np.nan, rows.index)
    return rows.get("box_width", nothing), rows.get("box_height", nothing)


def aspect_ratios(statistics: pd.DataFrame) -> go.Figure:
    """Histogram of width / height of the pictures and, where there are boxes, of the cars."""
    width, height = _box(statistics)
    shown = {"picture": statistics["aspect_ratio"], "car": width / height}
    shown = {name: values.dropna() for name, values in shown.items() if values.notna().any()}
    everything = pd.concat([*shown.values(), pd.Series([0.9, 1.1])])
    edges = np.arange(np.floor(everything.min() * 10) / 10, everything.max() + 0.1, 0.1)
    traces = [
        _histogram(values, edges, name=name, marker_color=colour, opacity=0.75,
                   hovertemplate="%{y:,} pictures near %{x:.2f}<extra>" + name + "</extra>")
        for (name, values), colour in zip(shown.items(), (VIOLET, AMBER), strict=False)
    ]  # fmt: skip
    figure = blank(*traces, height=300, barmode="overlay", showlegend=len(shown) > 1)
    return figure.update_xaxes(title_text="width / height", showgrid=False).update_yaxes(title_text="pictures")


def channel_means(statistics: pd.DataFrame) -> go.Figure:
    """Histograms of mean brightness in red, green and blue, in a row each: readable without distinguishing colours."""
    edges = np.linspace(0, 255, 33)
    figure = blank(figure=make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.06), height=300, showlegend=False)
    for row, (channel, colour) in enumerate(CHANNELS.items(), 1):
        hover = "%{y:,} pictures near %{x:.0f}<extra>" + channel + "</extra>"
        figure.add_trace(_histogram(statistics[channel], edges, marker_color=colour, hovertemplate=hover), row, 1)
        figure.add_annotation(
            row=row, col=1, xref="x domain", yref="y domain", x=0, y=1, xanchor="left", yanchor="top", showarrow=False,
            text=f"<b>{channel}</b>, mean {statistics[channel].mean():.0f}",
        )  # fmt: skip
    figure.update_yaxes(showgrid=False, showticklabels=False).update_xaxes(range=[0, 255], showgrid=False)
    return figure.update_xaxes(row=3, title_text="mean of the channel (0–255)")


def sharpness(statistics: pd.DataFrame) -> go.Figure:
    """Histogram of the variance of the Laplacian, logarithmic, with the bands of SHARPNESS and their counts."""
    values = statistics["sharpness"].clip(lower=1)
    top = np.ceil(np.log10(max(values.max(), 2000)) * 10) / 10
    low = min(np.floor(np.log10(values.min()) * 10) / 10, 1.5)
    edges = np.arange(low, top + 0.1, 0.1)
    counts, _ = np.histogram(np.log10(values), edges)
    bounds = [low, *(np.log10(bound) for bound, _ in SHARPNESS[1:]), top]
    centres = (edges[:-1] + edges[1:]) / 2
    ranges = [f"{10**a:,.0f} to {10**b:,.0f}" for a, b in pairwise(edges)]
    figure = blank(
        go.Bar(x=centres, y=counts, customdata=ranges, width=0.094, marker_color=VIOLET,
               hovertemplate="%{y:,} pictures with a variance of %{customdata}<extra></extra>"),
        height=320, showlegend=False, margin={"l": 4, "r": 8, "t": 64, "b": 4},
    )  # fmt: skip
    inside = pd.cut(values, [0, *(bound for bound, _ in SHARPNESS[1:]), np.inf], right=False).value_counts(sort=False)
    for (_, band), left, right, count in zip(SHARPNESS, bounds, bounds[1:], inside, strict=False):
        if left > low:
            figure.add_vline(x=left, line={"color": AMBER, "width": 2, "dash": "dot"})
        figure.add_annotation(
            x=(left + right) / 2, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=f"{band.replace(' ', '<br>')}<br><b>{count:,}</b>",
        )  # fmt: skip
    ticks = [bound for bound in (10, 30, 100, 500, 2000, 10000, 50000) if low <= np.log10(bound) <= top]
    figure.update_xaxes(
        range=[low, top], tickvals=[np.log10(tick) for tick in ticks], ticktext=[f"{tick:,}" for tick in ticks],
        title_text="variance of the Laplacian", showgrid=False,
    )  # fmt: skip
    return figure.update_yaxes(title_text="pictures")


def _histogram(values: pd.Series, edges: np.ndarray, **bar) -> go.Bar:
    """A histogram counted on the server, so that only bins are sent to the page."""
    counts, _ = np.histogram(values.dropna(), edges)
    return go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges) * 0.94, **bar)
