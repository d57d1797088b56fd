"""Charts of plain HTML and CSS: ranked bars, intervals, a donut, and tables. Numbers in, HTML out.

They need no script: they follow the theme, fit any width, are read by screen readers as lists and tables, and let the
page load plotly only for the charts that need it. Their style is in charts.css.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import NamedTuple

import pandas as pd

from twincar.plots.palette import AMBER, CATEGORICAL, PINK, VIOLET
from twincar.text import percent

DENSE = 80  # bars without a gap between them, from this number on
MISTAKES = (AMBER, PINK)  # colors of the two directions of a confusion
SORTED, SHOWN_ROWS = "f1", 20  # the column by which the table of classes is sorted first, lowest first; rows at first


class Bar(NamedTuple):
    """One row of `ranked`.

    Attributes:
        label: Its name; a second line follows after a line break.
        values: One number per series.
        figure: The number printed at its end.
    """

    label: str
    values: Sequence[float]
    figure: str


def ranked(bars: Sequence[Bar], series: Sequence[str], full: float, colors: Sequence[str] = CATEGORICAL) -> str:
    """Horizontal bars from the top down, stacked by series, each with its name above it and its number at the end.

    Args:
        bars: The rows.
        series: Names of the series, for the legend, which a single one does not need.
        full: The value of a bar of full width.
        colors: One per series.
    """
    rows = []
    for bar in bars:
        parts = ", ".join(f"{value:,g} {name}" for name, value in zip(series, bar.values, strict=True) if value)
        title = f' title="{escape(parts)}"' if len(series) > 1 else ""
        pieces = "".join(
            f'<b style="width:{100 * value / full:.2f}%;background:{color}"></b>'
            for value, color in zip(bar.values, colors, strict=False)
            if value
        )
        label = escape(bar.label).replace("\n", "<br>")
        rows.append(f"<li{title}><span>{label}</span><em>{escape(bar.figure)}</em><i>{pieces}</i></li>")
    return f'{legend(series, colors) if len(series) > 1 else ""}<ol class="ranked">{"".join(rows)}</ol>'


def columns(names: Sequence[str], values: dict[str, Sequence[int]], colors: Sequence[str], alt: str) -> str:
    """Thin upright bars, stacked by series, with an axis from 0; a bar's numbers are shown when the mouse is on it.

    Args:
        names: One per bar.
        values: Name of a series -> a number per bar.
        colors: One per series.
        alt: Text alternative.
    """
    totals = [sum(each) for each in zip(*values.values(), strict=True)]
    ticks = _ticks(max(totals, default=1))
    bars = []
    for place, name in enumerate(names):
        numbers = {series: each[place] for series, each in values.items() if each[place]}
        title = f"{name}: {', '.join(f'{number:,} {series}' for series, number in numbers.items())}"
        pieces = "".join(
            f'<b style="height:{100 * each[place] / ticks[-1]:.2f}%;background:{color}"></b>'
            for each, color in zip(values.values(), colors, strict=False)
        )
        bars.append(f'<i title="{escape(title)}">{pieces}</i>')
    axis = "".join(f'<span style="bottom:{100 * tick / ticks[-1]:.2f}%">{tick:,.0f}</span>' for tick in ticks)
    dense = " dense" if len(names) > DENSE else ""
    plot = f'<div class="columns{dense}" role="img" aria-label="{escape(alt)}">{axis}<div>{"".join(bars)}</div></div>'
    return (legend(values, colors) if len(values) > 1 else "") + plot


def _ticks(highest: int) -> list[int]:
    """Two to six round numbers from 0 to at least `highest`."""
    step = next(
        part * power
        for power in (10**digits for digits in range(12))
        for part in (1, 2, 5)
        if highest <= 5 * part * power
    )
    return list(range(0, highest + step, step))


def legend(names: Iterable[str], colors: Sequence[str] = CATEGORICAL) -> str:
    """The names of series, each after its color."""
    items = (
        f'<li><i style="background:{color}"></i>{escape(name)}</li>' for name, color in zip(names, colors, strict=False)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def donut(counts: dict[str, int], colors: Sequence[str], unit: str) -> str:
    """A ring of the fractions of a total, with a legend of names, counts and percentages."""
    total = sum(counts.values())
    ends = [100 * end / total for end in accumulate(counts.values())]
    stops = ", ".join(
        f"{color} {start:.2f}% {end:.2f}%" for color, start, end in zip(colors, [0, *ends], ends, strict=False)
    )
    rows = "".join(
        f'<li><i style="background:{color}"></i>{escape(name)}<b>{count:,}</b><em>{percent(count / total)}</em></li>'
        for (name, count), color in zip(counts.items(), colors, strict=False)
    )
    ring = f'<div class="ring" style="background:conic-gradient({stops})"><p><b>{total:,}</b> {escape(unit)}</p></div>'
    return f'<div class="donut">{ring}<ul>{rows}</ul></div>'


def intervals(table: pd.DataFrame, measure: str) -> str:
    """A row per recipe, best first: a dot with its 95 % interval from 0 to 1, hollow where the run was shortened.

    Args:
        table: recipe, a column `measure` (0-1) and, where known, `<measure>_low`, `<measure>_high`, status, and
            `original_<measure>`, the result of the original system, shown as a diamond.
        measure: The column to show.
    """
    rows = []
    for row in table.dropna(subset=[measure]).sort_values(measure, ascending=False, kind="stable").to_dict("records"):
        value, original = row[measure], row.get(f"original_{measure}")
        low, high = (row.get(f"{measure}_{end}") for end in ("low", "high"))
        short = str(row.get("status") or "").startswith("shortened")
        marks = f'<b class="{"hollow" if short else ""}" style="left:{100 * value:.2f}%"></b>'
        said = []
        if _known(low) and _known(high):
            marks = f'<u style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></u>{marks}'
            said = [f"95\N{NO-BREAK SPACE}% interval {percent(low)} to {percent(high)}"]
        if _known(original):
            marks += f'<s style="left:{100 * original:.2f}%"></s>'
            said.append(f"original system {percent(original)}")
        note = "<small>shortened</small>" if short else ""
        rows.append(
            f'<li title="{escape("; ".join(said))}"><span>{escape(str(row["recipe"]))} {note}</span>'
            f"<em>{percent(value)}</em><i>{marks}</i></li>"
        )
    scale = "".join(f"<span>{100 * tick}\N{NO-BREAK SPACE}%</span>" for tick in (0, 1))
    return f'<ol class="ranked dots">{"".join(rows)}</ol><p class="ends" aria-hidden="true">{scale}</p>'


def _known(value: float | None) -> bool:
    return value is not None and value == value


def classes(table: pd.DataFrame, columns: dict[str, str]) -> str:
    """The scores of every class: a table that is sorted by a click on a heading, and searched. See class_table.js.

    Args:
        table: class_name, f1 and further numbers. Fractions have two decimals, whole numbers none.
        columns: Column of `table` -> heading.
    """
    name, *numbers = columns
    table = table.sort_values([SORTED, name], kind="stable")
    heads = "".join(
        f'<th scope="col"{" aria-sort=ascending" if column == SORTED else ""}><button type="button">{escape(title)}'
        "</button></th>"
        for column, title in columns.items()
    )
    rows = []
    for place, row in enumerate(table.to_dict("records")):
        cells = "".join(_cell(column, row[column]) for column in numbers)
        hidden = " hidden" if place >= SHOWN_ROWS else ""
        rows.append(f'<tr{hidden}><th scope="row">{escape(str(row[name]))}</th>{cells}</tr>')
    more = (
        f'<button type="button" class="more">Show all {len(rows):,} classes</button>' if len(rows) > SHOWN_ROWS else ""
    )
    return (
        '<label class="search">Search <input type="search" placeholder="make, model or year"></label>'
        f'<table class="classes"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p class="nothing" hidden>No class matches.</p>{more}'
    )


def _cell(column: str, value: float) -> str:
    if column != SORTED:
        return f"<td>{value:,}</td>" if isinstance(value, int) else f"<td>{value:.2f}</td>"
    return f'<td class="f1"><i><b style="width:{100 * value:.1f}%;background:{VIOLET}"></b></i>{value:.2f}</td>'


def shaded(table: pd.DataFrame, corner: str) -> str:
    """A table of fractions in 0-1, as whole percentages in cells that are shaded by their value.

    Args:
        table: Fractions; the index names the rows and the columns are headings.
        corner: What rows and columns are.
    """
    heads = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in table)
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th>'
        + "".join(f'<td style="--part:{value:.3f}">{percent(value, 0)}</td>' for value in values)
        + "</tr>"
        for name, values in zip(table.index, table.to_numpy(), strict=True)
    )
    return (
        f'<table class="shaded"><thead><tr><th scope="col">{escape(corner)}</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def plain(table: pd.DataFrame, label: str) -> str:
    """A table of texts, which scrolls sideways where the screen is narrower."""
    heads = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in table)
    rows = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>'
        + "".join(f"<td>{escape(str(one))}</td>" for one in rest)
        + "</tr>"
        for first, *rest in table.itertuples(index=False)
    )
    return (
        f'<div class="sideways" tabindex="0" role="region" aria-label="{escape(label)}"><table class="plain"><thead>'
        f"<tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
