"""The plotly charts of the tab *How good is it*: each function draws a table of reports/ as a figure."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from twincar.config import parse_class_name
from twincar.plots.palette import AMBER, CATEGORICAL, GREY, VIOLET
from twincar.text import percent
from twincar.ui.charts import PERCENT, blank, faded, shorten

MARKS = 300  # pixels that the marks of a row of the confusion matrix fill: its width on a phone
LEAST_MARK, LARGEST_MARK = 6, 22  # pixels


def curves(metrics: pd.DataFrame, columns: dict[str, str], fractions: bool = True) -> go.Figure:
    """Columns of a training log over the epochs, with the learning rate and changes of image size.

    Args:
        metrics: `epoch`, from 0, and, where known, `lr_*` and `image_size`.
        columns: Name in the chart -> column of `metrics`; missing ones are left out.
        fractions: Whether the columns are fractions in 0-1, shown as percentages.
    """
    epochs, traces = (metrics["epoch"] + 1).tolist(), []
    rates = metrics[[column for column in metrics if column.startswith("lr_")]]
    if rates.size:
        rate = rates[rates.max().idxmax()]
        traces.append(
            go.Scatter(x=epochs, y=rate.tolist(), name="learning rate", yaxis="y2", mode="none", fill="tozeroy",
                       fillcolor=faded(GREY, 0.22), hovertemplate="%{y:.2g}")
        )  # fmt: skip
    scale, unit = (100, "%{y:.1f}\N{NO-BREAK SPACE}%") if fractions else (1, "%{y:.3f}")
    for (name, column), color, dash in zip(columns.items(), CATEGORICAL, ("solid", "dash", "dot"), strict=False):
        if column in metrics:
            line = {"color": color, "width": 3, "dash": dash}
            traces.append(go.Scatter(x=epochs, y=(scale * metrics[column]).tolist(), name=name, mode="lines+markers",
                                     line=line, marker_size=5, hovertemplate=unit))  # fmt: skip
    figure = blank(
        *traces, height=380, hovermode="x unified", showlegend=True, margin={"l": 4, "r": 4, "t": 56, "b": 4}
    )
    if "image_size" in metrics:
        grown = metrics[metrics["image_size"].diff().fillna(0) > 0]
        for epoch, size in zip(grown["epoch"] + 1, grown["image_size"], strict=True):
            figure.add_vline(x=epoch - 0.5, line={"color": GREY, "width": 1, "dash": "dot"})
            figure.add_annotation(x=epoch - 0.5, y=0, yref="paper", yanchor="bottom", xanchor="left", showarrow=False,
                                  text=f"{size:.0f} px")  # fmt: skip
    figure.update_xaxes(title_text="epoch", showgrid=False)
    figure.update_yaxes(rangemode="tozero", **(PERCENT if fractions else {}))
    rate_axis = {"overlaying": "y", "side": "right", "title": {"text": "learning rate", "standoff": 8}, "nticks": 5}
    return figure.update_layout(
        yaxis2=rate_axis | {"rangemode": "tozero", "fixedrange": True, "showgrid": False, "automargin": True}
    )


def curves_in_words(metrics: pd.DataFrame, columns: dict[str, str], fractions: bool = True) -> str:
    """The chart of `curves` as text: the first, the best and the last value of each line."""
    parts = []
    for name, column in columns.items():
        if column in metrics:
            values = metrics[column].dropna()
            best = values.max() if fractions else values.min()
            first, best, last = (
                percent(value) if fractions else f"{value:.3f}" for value in (values.iloc[0], best, values.iloc[-1])
            )
            parts.append(f"{name}: {first} in the first epoch, {last} in the last, {best} at best")
    return f"Lines over {len(metrics):,} epochs. {'; '.join(parts)}."


def confusion(counts: pd.DataFrame, make: str | None = None) -> go.Figure:
    """Confusion matrix: true class down, predicted class across, ordered by make. It is as high as it is wide.

    Args:
        counts: true, predicted, count; pairs with a count of 0 may be missing.
        make: Show only the classes of this make and those they were confused with.
    """
    counts = of_make(counts, make)
    names = sorted({*counts["true"], *counts["predicted"]}, key=lambda name: (_make(name) != make, _make(name), name))
    place = {name: i for i, name in enumerate(names)}
    side = min(max(MARKS / len(names), LEAST_MARK), LARGEST_MARK)
    right = counts["true"] == counts["predicted"]
    traces = [
        _marks(counts[rows], place, color, label, side)
        for rows, color, label in ((right, VIOLET, "correct"), (~right, AMBER, "wrong"))
    ]
    legend = {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"}
    figure = blank(*traces, zoom=True, showlegend=True, legend=legend, margin={"l": 4, "r": 4, "t": 34, "b": 4})
    figure.update_layout(height=None)  # charts.css makes it square
    if make:
        labels = [shorten(name.removeprefix(f"{make} "), 18) for name in names]
        size = min(max(MARKS / len(names) - 1.5, 7), 12)  # no taller than a row on a phone
        ticks = {"tickvals": list(range(len(names))), "ticktext": labels, "tickfont_size": size, "ticks": ""}
    else:
        ticks = _make_ticks([_make(name) for name in names])
    ends = [-0.5, len(names) - 0.5]
    # Names on one side only: both axes have the same order, and a phone has no room for more.
    figure.update_xaxes(range=ends, constrain="domain", constraintoward="left", **ticks, showticklabels=False)
    return figure.update_yaxes(range=ends[::-1], constrain="domain", constraintoward="top", scaleanchor="x", **ticks)


def of_make(counts: pd.DataFrame, make: str | None) -> pd.DataFrame:
    """The pairs that occurred and, with a make, only those of which one class is of this make."""
    if make:
        counts = counts[(counts["true"].map(_make) == make) | (counts["predicted"].map(_make) == make)]
    return counts[counts["count"] > 0]


def confusion_in_words(counts: pd.DataFrame, make: str | None = None) -> tuple[str, list[str]]:
    """The chart of `confusion` as text: a sentence with its totals, and its mistakes, the most frequent first."""
    counts = of_make(counts, make)
    mistakes = counts[counts["true"] != counts["predicted"]].sort_values("count", ascending=False, kind="stable")
    right, wrong = int(counts["count"].sum() - mistakes["count"].sum()), int(mistakes["count"].sum())
    same = int(mistakes.loc[mistakes["true"].map(_make) == mistakes["predicted"].map(_make), "count"].sum())
    where = f"{make}: " if make else ""
    sentence = f"{where}{right:,} correct, {wrong:,} wrong" + (f", {same:,} of them within one make." if wrong else ".")
    rows = zip(mistakes["true"], mistakes["predicted"], mistakes["count"], strict=True)
    return sentence, [f"{true} → {predicted}: {number:,}" for true, predicted, number in rows]


def _marks(rows: pd.DataFrame, place: dict[str, int], color: str, label: str, side: float) -> go.Scatter:
    pairs = [f"{a} → {b}: {n:,}" for a, b, n in zip(rows["true"], rows["predicted"], rows["count"], strict=True)]
    return go.Scatter(
        x=[place[name] for name in rows["predicted"]], y=[place[name] for name in rows["true"]], mode="markers",
        name=label, marker={"color": color, "symbol": "square", "size": side, "line_width": 0, "opacity": 1},
        hovertext=pairs, hovertemplate=f"%{{hovertext}} ({label})<extra></extra>", customdata=rows["count"].tolist(),
    )  # fmt: skip


def _make_ticks(makes: Sequence[str]) -> dict:
    """Axis ticks: thin lines between makes, and names of the makes that have room for one."""
    runs = pd.Series(range(len(makes))).groupby(pd.Series(list(makes))).agg(["min", "max", "size"])
    named = runs[runs["size"] >= len(makes) / 45]
    return {
        "tickvals": ((named["min"] + named["max"]) / 2).tolist(), "ticktext": named.index.tolist(), "showgrid": False,
        "minor": {"tickvals": (runs["min"] - 0.5).tolist(), "showgrid": True, "gridcolor": GREY, "gridwidth": 0.5},
        "tickfont_size": 11, "ticks": "",
    }  # fmt: skip


def _make(class_name: str) -> str:
    return parse_class_name(class_name).make


def reliability(bins: pd.DataFrame) -> go.Figure:
    """Reliability diagram: accuracy against confidence; perfect calibration is the diagonal.

    Args:
        bins: confidence and accuracy (0-1), count and, where known, low and high, the bounds of the accuracy.
    """
    bins = bins[bins["count"] > 0]
    error = None
    if {"low", "high"} <= set(bins):
        up, down = (bins["high"] - bins["accuracy"]).clip(lower=0), (bins["accuracy"] - bins["low"]).clip(lower=0)
        error = {"type": "data", "symmetric": False, "array": (100 * up).tolist(), "arrayminus": (100 * down).tolist(),
                 "color": VIOLET, "thickness": 1.5, "width": 0}  # fmt: skip
    size = (4 + 8 * (bins["count"] / bins["count"].max()) ** 0.5).tolist()
    unit = "\N{NO-BREAK SPACE}%"
    figure = blank(
        go.Scatter(x=[0, 100], y=[0, 100], mode="lines", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"),
        go.Scatter(
            x=(100 * bins["confidence"]).tolist(), y=(100 * bins["accuracy"]).tolist(), mode="markers", error_y=error,
            marker={"color": VIOLET, "size": size, "line": {"color": "#ffffff", "width": 1}},
            customdata=bins["count"].tolist(),
            hovertemplate=f"%{{customdata:,}} pictures<br>confidence %{{x:.0f}}{unit}, accuracy %{{y:.0f}}{unit}"
            "<extra></extra>",
        ),
        height=420, showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(title_text="confidence", range=[0, 104], **PERCENT)
    return figure.update_yaxes(title_text="accuracy", range=[0, 104], **PERCENT)


def reliability_in_words(bins: pd.DataFrame) -> str:
    """The chart of `reliability` as text."""
    bins = bins[bins["count"] > 0]
    listed = "; ".join(
        f"at {percent(confidence, 0)} confidence {percent(accuracy, 0)} accuracy"
        for confidence, accuracy in zip(bins["confidence"], bins["accuracy"], strict=True)
    )
    return f"{len(bins)} groups of pictures: {listed}."
