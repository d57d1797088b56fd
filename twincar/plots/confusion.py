"""Confusion matrix figures: all classes ordered by make, and the makes with the most errors in detail.

A matrix of some hundred classes is nearly empty, so correct predictions are drawn small and errors large.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.isotonic import isotonic_regression

from twincar.config import parse_class_name
from twincar.plots.figures import LIGHT, canvas, short, styled
from twincar.plots.palette import AMBER, GREY, GROUND, INK, RULE, SUBDUED, VIOLET
from twincar.text import count, percent

FEW = 30  # up to this number of classes, every cell shows its count and every row its name


def by_make(names: Sequence[str]) -> list[str]:
    """Sort class names by make, then by name, ignoring case."""
    return sorted(names, key=lambda name: (parse_class_name(name).make.lower(), name.lower()))


@styled
def confusion(counts: pd.DataFrame, names: Sequence[str], *, all_names: bool = False) -> Figure:
    """Draw the whole confusion matrix: true classes as rows, predicted classes as columns.

    Args:
        counts: The table of `report.tables.confusion`.
        names: All K class names.
        all_names: Label every row and column with its class name, for a file to zoom into.
    """
    order = by_make(names)
    few = len(order) <= FEW
    place = {name: i for i, name in enumerate(order)}
    row, column = (counts[side].map(place).to_numpy() for side in ("true", "predicted"))
    number, right = counts["count"].to_numpy(), row == column
    makes = pd.Series([parse_class_name(name).make for name in order])
    inside = number[~right & (makes[row].to_numpy() == makes[column].to_numpy())].sum()
    side = 0.3 * len(order) + 3.2 if few else max(0.14 * len(order) + 3, 9.2) if all_names else 9.2  # inches
    title = f"{number[~right].sum():,} of {number.sum():,} pictures misclassified"
    caption = "Rows are true classes, columns predicted classes, ordered by make. Violet: correct. Amber: wrong"
    caption += "." if few else "; larger dots are more pictures."
    if makes.duplicated().any():
        title += f", {inside:,} of them within the make"
        caption += " Shaded squares are makes: amber inside one is the right make but the wrong class."
    figure = canvas(side + 1.1, title, caption, width=max(side + 0.8, 10.0))
    axes = figure.subplots()
    blocks = makes.groupby(makes, sort=False).agg(lambda rows: (rows.index[0], len(rows)))
    for first, size in blocks:
        box = Rectangle((first - 0.5, first - 0.5), size, size, facecolor=RULE, edgecolor=GREY, linewidth=0.4, zorder=0)
        axes.add_patch(box)
    if few:
        _write_cells(axes, zip(row, column, number, strict=True), size=9)
    else:
        cell = 72 * side * 0.8 / len(order)  # points
        axes.scatter(column[right], row[right], s=max(0.6 * cell, 1.6) ** 2, marker="s", color=VIOLET, linewidth=0)
        fraction = (number[~right] / number[~right].max(initial=1)).clip(0.25)
        largest = max(0.85 * cell, 9) ** 2
        axes.scatter(column[~right], row[~right], s=largest * fraction, color=AMBER, edgecolor=GROUND, linewidth=0.4)
    axes.set(xlim=(-0.5, len(order) - 0.5), ylim=(len(order) - 0.5, -0.5), aspect="equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)
    if few or all_names:
        labels = [short(name, 34 if few else 60) for name in order]
        axes.set_yticks(range(len(order)), labels, size=8.5 if few else 7)
        axes.set_xticks(range(len(order)), labels, size=8.5 if few else 7, rotation=90)
    else:
        axes.set(xticks=[], yticks=[])
        _write_makes(axes, blocks, len(order), side)
    axes.set_xlabel("predicted class", labelpad=4 if few or all_names else 72)
    axes.set_ylabel("true class", labelpad=4 if few or all_names else 84)
    return figure


def _write_cells(axes, cells: Iterable[tuple[int, int, int]], size: float) -> None:
    """Draw the (row, column, count) cells with a count above 0: pale on the diagonal, amber elsewhere."""
    for y, x, times in cells:
        if times:
            color = LIGHT if x == y else AMBER
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor=GROUND))
            axes.text(x, y, f"{times:,}", ha="center", va="center", size=size, color=INK)


def _write_makes(axes, blocks: pd.Series, many: int, side: float) -> None:
    """Label each make at the middle of its rows and columns, without overlaps; of many makes, only the larger ones."""
    gap = 9.0 / (72 * side * 0.85) * many  # in rows: a line of text is 9 points high
    sizes = blocks.map(lambda block: block[1]).sort_values(ascending=False, kind="stable")
    kept = sizes[sizes > (len(blocks) > FEW)].head(int(many / gap)).index
    written = blocks[blocks.index.isin(kept)]
    middles = [first + (size - 1) / 2 for first, size in written]
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 0}
    style = {"size": 8, "color": SUBDUED, "annotation_clip": False}
    off = many * 0.02
    for make, middle, place in zip(written.index, middles, spread(middles, gap, 0, many - 1), strict=True):
        axes.annotate(short(make, 16), (-0.5, middle), (-0.5 - off, place), ha="right", va="center",
                      arrowprops=line | {"relpos": (1, 0.5)}, **style)  # fmt: skip
        axes.annotate(short(make, 16), (middle, many - 0.5), (place, many - 0.5 + off), ha="center", va="top",
                      rotation=90, arrowprops=line | {"relpos": (0.5, 1)}, **style)  # fmt: skip


def spread(middles: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Move ascending positions as little as possible so that they are `gap` apart, in [low, high] if they fit."""
    places = np.asarray(middles, dtype=float)
    if not len(places):
        return places
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    steps = gap * np.arange(len(places))
    # Least squares with a minimum distance is isotonic regression after subtracting the steps.
    return isotonic_regression(places - steps, y_min=low, y_max=high - steps[-1]) + steps


@styled
def confusion_makes(counts: pd.DataFrame, names: Sequence[str], most: int = 4) -> Figure | None:
    """Draw the confusion matrices of the makes with the most errors between their own classes.

    Args:
        counts: As for `confusion`.
        names: As for `confusion`.
        most: How many makes to draw at most.

    Returns:
        The figure; None if there is no such error.
    """
    wrong = counts[counts["true"] != counts["predicted"]]
    make_of = {name: parse_class_name(name).make for name in names}
    same = wrong[wrong["true"].map(make_of) == wrong["predicted"].map(make_of)]
    totals = same.groupby(same["true"].map(make_of))["count"].sum().sort_values(ascending=False, kind="stable")
    if totals.empty:
        return None
    shown = totals.index[:most]
    members = {make: [name for name in by_make(names) if make_of[name] == make] for make in shown}
    rows = -(-len(shown) // 2)
    figure = canvas(
        1.2 + 4.7 * rows,
        f"Most errors within a make: {short(shown[0])}, {count(int(totals.iloc[0]), 'picture')}",
        "Rows are true classes, columns predicted classes, numbered as in the row labels. Amber cells are errors; the "
        "last column counts predictions of another make. The makes shown have "
        f"{percent(totals[shown].sum() / totals.sum(), 0)} of all errors within a make.",
        width=13.0,
    )
    for axes, make in zip(figure.subplots(rows, 2, squeeze=False).flat, shown, strict=False):
        mine = members[make]
        table = pd.crosstab(counts["true"], counts["predicted"], counts["count"], aggfunc="sum").fillna(0)
        own = table.reindex(index=mine, columns=mine, fill_value=0).to_numpy(int)
        other = table.reindex(index=mine, fill_value=0).to_numpy(int).sum(1) - own.sum(1)
        cells = np.column_stack([own, other])
        size = min(9.0, 150 / len(mine))
        _write_cells(axes, ((y, x, times) for (y, x), times in np.ndenumerate(cells)), size)
        axes.set(xlim=(-0.5, len(mine) + 0.5), ylim=(len(mine) - 0.5, -0.5), aspect="equal")
        axes.grid(False)
        axes.axvline(len(mine) - 0.5, color=GREY, linewidth=0.8)
        labels = [f"{short(name.removeprefix(make).strip() or name, 28)}  {i}" for i, name in enumerate(mine, 1)]
        axes.set_yticks(range(len(mine)), labels, size=size)
        axes.set_xticks(range(len(mine) + 1), [*range(1, len(mine) + 1), "other"], size=size * 0.9)
        axes.set_title(f"{short(make, 20)}: {totals[make]:,} errors within the make,\n{other.sum():,} outside")
    for axes in figure.axes[len(shown) :]:
        axes.set_axis_off()
    return figure
