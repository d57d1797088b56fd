"""The interactive charts of the tab *How good is it*: each function draws a table of reports/ as a plotly figure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from twincar.config import parse_class_name
from twincar.plots.palette import AMBER, CATEGORICAL, GREY, PINK, VIOLET
from twincar.ui.chart_view import percent
from twincar.ui.charts import blank, faded, ranked, shorten


def curves(metrics: pd.DataFrame, columns: dict[str, str], percent: bool = True) -> go.Figure:
    """Columns of a training log over the epochs, with the learning rate and changes of image size.

    Args:
        metrics: `epoch` and, where known, `lr_*` and `image_size`.
        columns: Name in the chart -> column of `metrics`; missing ones are left out.
        percent: Whether the columns are fractions in 0-1, shown as percentages.
    """
    epochs, traces = metrics["epoch"].tolist(), []
    rates = metrics[[column for column in metrics if column.startswith("lr_")]]
    if rates.size:
        rate = rates[rates.max().idxmax()]
        traces.append(
            go.Scatter(x=epochs, y=rate.tolist(), name="learning rate", yaxis="y2", mode="none", fill="tozeroy",
                       fillcolor=faded(GREY, 0.22), hovertemplate="%{y:.2g}")
        )  # fmt: skip
    kind = ".1%" if percent else ".3f"
    for (name, column), colour, dash in zip(columns.items(), CATEGORICAL, ("solid", "dash", "dot"), strict=False):
        if column in metrics:
            line = {"color": colour, "width": 3, "dash": dash}
            traces.append(go.Scatter(x=epochs, y=metrics[column].tolist(), name=name, mode="lines+markers", line=line,
                                     marker_size=5, hovertemplate=f"%{{y:{kind}}}"))  # fmt: skip
    figure = blank(
        *traces, height=380, hovermode="x unified", showlegend=True, margin={"l": 4, "r": 8, "t": 56, "b": 4}
    )
    if "image_size" in metrics:
        grown = metrics[metrics["image_size"].diff().fillna(0) > 0]
        for epoch, size in zip(grown["epoch"], grown["image_size"], strict=True):
            figure.add_vline(x=epoch - 0.5, line={"color": GREY, "width": 1, "dash": "dot"})
            figure.add_annotation(x=epoch - 0.5, y=0, yref="paper", yanchor="bottom", xanchor="left", showarrow=False,
                                  text=f"{size:.0f} px")  # fmt: skip
    figure.update_xaxes(title_text="epoch", showgrid=False)
    figure.update_yaxes(tickformat=".0%" if percent else "", rangemode="tozero")
    return figure.update_layout(yaxis2={"overlaying": "y", "visible": False, "rangemode": "tozero", "fixedrange": True})


def confusion(counts: pd.DataFrame, make: str | None = None) -> go.Figure:
    """Confusion matrix: true class down, predicted class across, ordered by make.

    Args:
        counts: true, predicted, count; pairs with a count of 0 may be missing.
        make: Show only the classes of this make and those they were confused with.
    """
    if make:
        of_make = [{name for name in counts[side] if _make(name) == make} for side in ("true", "predicted")]
        counts = counts[counts["true"].isin(of_make[0]) | counts["predicted"].isin(of_make[1])]
    counts = counts[counts["count"] > 0]
    names = sorted({*counts["true"], *counts["predicted"]}, key=lambda name: (_make(name) != make, _make(name), name))
    place = {name: i for i, name in enumerate(names)}
    right = counts[counts["true"] == counts["predicted"]]
    wrong = counts[counts["true"] != counts["predicted"]]
    traces = [
        _cells(rows, place, colour, label)
        for rows, colour, label in ((right, VIOLET, "correct"), (wrong, AMBER, "wrong"))
    ]
    figure = blank(*traces, height=700, zoom=True, margin={"l": 4, "r": 4, "t": 34, "b": 4})
    if make:
        labels = [shorten(name.removeprefix(f"{make} "), 24) for name in names]
        ticks = {
            "tickvals": list(range(len(names))),
            "ticktext": labels,
            "showgrid": False,
            "tickfont_size": 11,
            "ticks": "",
        }
    else:
        ticks = _make_ticks([_make(name) for name in names])
    ends = [-0.5, len(names) - 0.5]
    figure.update_xaxes(range=ends, tickangle=-90, title_text="predicted class", **ticks)
    return figure.update_yaxes(range=ends[::-1], title_text="true class", **ticks)


def _cells(rows: pd.DataFrame, place: dict[str, int], colour: str, label: str) -> go.Heatmap:
    """A heatmap of the pairs that occurred. Empty cells on the diagonal keep every row and column in place."""
    x, y = [place[name] for name in rows["predicted"]], [place[name] for name in rows["true"]]
    pairs = [f"{a} → {b}: {n:,}" for a, b, n in zip(rows["true"], rows["predicted"], rows["count"], strict=True)]
    filled = set(zip(x, y, strict=True))
    empty = [i for i in place.values() if (i, i) not in filled]
    return go.Heatmap(
        x=x + empty, y=y + empty, z=rows["count"].tolist() + [None] * len(empty), hovertext=pairs + [""] * len(empty),
        hovertemplate=f"%{{hovertext}} ({label})<extra></extra>", hoverongaps=False, showscale=False, zmin=0,
        zmax=max(rows["count"].max(), 2) if len(rows) else 2,
        colorscale=[[0, faded(colour, 0.3)], [0.5, colour], [1, colour]],
    )  # fmt: skip


def _make_ticks(makes: Sequence[str]) -> dict:
    """Axis ticks: lines between makes, and names of the makes that have room for one."""
    runs = pd.Series(range(len(makes))).groupby(pd.Series(list(makes))).agg(["min", "max", "size"])
    named = runs[runs["size"] >= len(makes) / 45]
    return {
        "tickvals": ((named["min"] + named["max"]) / 2).tolist(), "ticktext": named.index.tolist(), "showgrid": False,
        "minor": {"tickvals": (runs["min"] - 0.5).tolist(), "showgrid": True, "gridcolor": GREY, "gridwidth": 0.5},
        "tickfont_size": 11, "ticks": "",
    }  # fmt: skip


def _make(class_name: str) -> str:
    return parse_class_name(class_name).make


def confused_pairs(pairs: pd.DataFrame, most: int = 20) -> go.Figure:
    """The most confused pairs of classes, in the table's order.

    Args:
        pairs: true, predicted, count and, where known, support, reverse and reverse_support; the last two are the
            count and support of the opposite direction.
        most: Show at most this many rows.
    """
    rows = pairs.head(most)
    labels = [f"{a}<br>→ {b}" for a, b in zip(rows["true"], rows["predicted"], strict=True)]
    bars, total, pictures = {"mistakes": rows["count"].tolist()}, rows["count"], rows.get("support")
    if "reverse" in rows and rows["reverse"].any():
        bars, total = {"as shown": bars["mistakes"], "in reverse": rows["reverse"].tolist()}, total + rows["reverse"]
        pictures = None if pictures is None else pictures + rows.get("reverse_support", 0)
    of = [""] * len(rows) if pictures is None else [f" of {count:,.0f}" for count in pictures]
    figures = [f"{count:,}{rest}" for count, rest in zip(total, of, strict=True)]
    return ranked(labels, bars, figures, "%{customdata}: %{x:,}<extra>%{fullData.name}</extra>", (AMBER, PINK))


def class_scores(per_class: pd.DataFrame, best: int = 0, worst: int = 0) -> go.Figure:
    """F1 per class.

    Args:
        per_class: class_name, f1 (0-1) and support; classes with support 0 have no F1 and are left out.
        best: Show this many of the best classes by name.
        worst: Show this many of the worst classes by name. With neither, all classes are thin bars.
    """
    rows = per_class[per_class["support"] > 0].sort_values(["f1", "support"], ascending=[False, False], kind="stable")
    if not best and not worst:
        bars = go.Bar(y=rows["f1"].tolist(), customdata=rows["class_name"].tolist(), marker_color=VIOLET,
                      hovertemplate="%{customdata}<br>F1 %{y:.2f}<extra></extra>")  # fmt: skip
        figure = blank(bars, height=300, bargap=0.08)
        figure.update_xaxes(showticklabels=False, showgrid=False, title_text=f"{len(rows):,} classes, best first")
        return figure.update_yaxes(title_text="F1", range=[0, 1.02])
    rows = rows.head(best) if best else rows.iloc[::-1].head(worst)
    figures = [f"{f1:.2f}" for f1 in rows["f1"]]
    hover = "%{customdata}<br>F1 %{x:.2f}<extra></extra>"
    return ranked(rows["class_name"], {"F1": rows["f1"].tolist()}, figures, hover, full=1)


def reliability(bins: pd.DataFrame) -> go.Figure:
    """Reliability diagram: accuracy against confidence; perfect calibration is the diagonal.

    Args:
        bins: confidence and accuracy (0-1), count and, where known, low and high, the bounds of the accuracy.
    """
    bins = bins[bins["count"] > 0]
    error = None
    if {"low", "high"} <= set(bins):
        up, down = (bins["high"] - bins["accuracy"]).clip(lower=0), (bins["accuracy"] - bins["low"]).clip(lower=0)
        error = {"type": "data", "symmetric": False, "array": up.tolist(), "arrayminus": down.tolist(), "color": VIOLET,
                 "thickness": 1.5, "width": 0}  # fmt: skip
    size = (4 + 8 * (bins["count"] / bins["count"].max()) ** 0.5).tolist()
    figure = blank(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"),
        go.Scatter(
            x=bins["confidence"].tolist(), y=bins["accuracy"].tolist(), mode="markers", error_y=error,
            marker={"color": VIOLET, "size": size, "line": {"color": "#ffffff", "width": 1}},
            customdata=bins["count"].tolist(),
            hovertemplate="%{customdata:,} pictures<br>confidence %{x:.0%}, accuracy %{y:.0%}<extra></extra>",
        ),
        height=420, showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(title_text="confidence", tickformat=".0%", range=[0, 1.04])
    return figure.update_yaxes(title_text="accuracy", tickformat=".0%", range=[0, 1.04])


def recipes(table: pd.DataFrame, measure: str) -> go.Figure:
    """A row per recipe, best first: a dot with its 95 % interval, hollow where the schedule was shortened.

    Args:
        table: recipe, a column `measure` (0-1) and, where known, `<measure>_low`, `<measure>_high`, status, and
            `original_<measure>`, the result of the original system, shown as a diamond.
        measure: The column to show.
    """
    rows = table.dropna(subset=[measure]).sort_values(measure, ascending=False, kind="stable").reset_index(drop=True)
    status = rows["status"] if "status" in rows else pd.Series("", rows.index)
    whole = ~status.fillna("").str.startswith("shortened")
    low, high = (rows.get(f"{measure}_{end}", rows[measure]).fillna(rows[measure]) for end in ("low", "high"))
    labels = [
        f"<b>{name}</b>" + ("" if full else " (shortened)") for name, full in zip(rows["recipe"], whole, strict=True)
    ]
    original = rows.get(f"original_{measure}", pd.Series(np.nan, rows.index))
    start = max(min(low.min(), original.min() if original.notna().any() else 1) - 0.06, 0) if len(rows) else 0
    dots = go.Scatter(
        x=rows[measure].tolist(), y=rows.index.tolist(), mode="markers", customdata=rows["recipe"].tolist(),
        error_x={"type": "data", "symmetric": False, "array": (high - rows[measure]).tolist(),
                 "arrayminus": (rows[measure] - low).tolist(), "color": VIOLET, "thickness": 2, "width": 5},
        marker={"color": VIOLET, "size": 13, "symbol": ["circle" if full else "circle-open" for full in whole],
                "line_width": 2},
        hovertemplate="%{customdata}: %{x:.1%}<extra></extra>",
    )  # fmt: skip
    reported = go.Scatter(
        x=original.tolist(), y=rows.index.tolist(), mode="markers", customdata=rows["recipe"].tolist(),
        marker={"color": AMBER, "size": 11, "symbol": "diamond"},
        hovertemplate="%{customdata}, original result: %{x:.1%}<extra></extra>",
    )  # fmt: skip
    above = {"mode": "text", "hoverinfo": "skip", "y": [i - 0.34 for i in rows.index]}
    names = go.Scatter(above, x=[start] * len(rows), text=labels, textposition="middle right")
    figures = go.Scatter(
        above, x=[1] * len(rows), text=[percent(value) for value in rows[measure]], textposition="middle left"
    )
    figure = blank(dots, reported, names, figures, height=70 + 52 * len(rows), showlegend=False)
    figure.update_yaxes(visible=False, range=[len(rows) - 0.5, -0.75])
    return figure.update_xaxes(tickformat=".0%", range=[start, 1.0])
