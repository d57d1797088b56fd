"""The confusion matrix, drawn to be read: ordered by make, and the makes that are muddled most in large.

A matrix of some hundred classes is nearly empty, so what is right is drawn small and every mistake stands out.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.isotonic import isotonic_regression

from twincar.config import parse_class_name
from twincar.plots.figures import LIGHT, canvas, percent, short, styled
from twincar.plots.palette import AMBER, GREY, GROUND, INK, RULE, SUBDUED, VIOLET
from twincar.text import count

FEW = 30  # classes; up to here every cell has its number and every row its name


def by_make(names: Sequence[str]) -> list[str]:
    """Class names by make, then by name; upper and lower case alike."""
    return sorted(names, key=lambda name: (parse_class_name(name).make.lower(), name.lower()))


@styled
def confusion(counts: pd.DataFrame, names: Sequence[str], *, all_names: bool = False) -> Figure:
    """The whole matrix, truth down, answer across. `counts` is `tables.confusion`'s, `names` are all classes.

    all_names : write every class's name at its row and column: for a file that is zoomed into.
    """
    order = by_make(names)
    few = len(order) <= FEW
    place = {name: i for i, name in enumerate(order)}
    row, column = (counts[side].map(place).to_numpy() for side in ("true", "predicted"))
    number, right = counts["count"].to_numpy(), row == column
    makes = pd.Series([parse_class_name(name).make for name in order])
    inside = number[~right & (makes[row].to_numpy() == makes[column].to_numpy())].sum()
    side = 0.3 * len(order) + 3.2 if few else max(0.14 * len(order) + 3, 9.2) if all_names else 9.2  # inches
    title = f"{number[~right].sum():,} of {number.sum():,} pictures wrong"
    sentence = (
        "A row is a true class, a column an answer, ordered by make. Violet on the diagonal is right; amber is wrong"
    )
    sentence += "." if few else ", the larger the more often."
    if makes.duplicated().any():
        title += f", {inside:,} of them within the make"
        sentence += " Shaded squares are makes: amber in them names the right make, not the right car."
    figure = canvas(side + 1.1, title, sentence, width=max(side + 0.8, 10.0))
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
        share = (number[~right] / number[~right].max(initial=1)).clip(0.25)
        largest = max(0.85 * cell, 9) ** 2
        axes.scatter(column[~right], row[~right], s=largest * share, color=AMBER, edgecolor=GROUND, linewidth=0.4)
    axes.set(xlim=(-0.5, len(order) - 0.5), ylim=(len(order) - 0.5, -0.5), aspect="equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)
    if few or all_names:
        words = [short(name, 34 if few else 60) for name in order]
        axes.set_yticks(range(len(order)), words, size=8.5 if few else 7)
        axes.set_xticks(range(len(order)), words, size=8.5 if few else 7, rotation=90)
    else:
        axes.set(xticks=[], yticks=[])
        _write_makes(axes, blocks, len(order), side)
    axes.set_xlabel("answer", labelpad=4 if few or all_names else 72)
    axes.set_ylabel("truth", labelpad=4 if few or all_names else 84)
    return figure


def _write_cells(axes, cells: Iterable[tuple[int, int, int]], size: float) -> None:
    """Fill (row, column, count) cells that have a count: pale on the diagonal, amber beside it, the number in them."""
    for y, x, times in cells:
        if times:
            colour = LIGHT if x == y else AMBER
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=GROUND))
            axes.text(x, y, f"{times:,}", ha="center", va="center", size=size, color=INK)


def _write_makes(axes, blocks: pd.Series, many: int, side: float) -> None:
    """Each make at the middle of its rows and columns, moved apart where they would touch; where there are many, the
    larger ones."""
    gap = 9.0 / (72 * side * 0.85) * many  # in rows: a line of text is 9 points high
    sizes = blocks.map(lambda block: block[1]).sort_values(ascending=False, kind="stable")
    kept = sizes[sizes > (len(blocks) > FEW)].head(int(many / gap)).index
    written = blocks[blocks.index.isin(kept)]
    middles = [first + (size - 1) / 2 for first, size in written]
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 0}
    words = {"size": 8, "color": SUBDUED, "annotation_clip": False}
    off = many * 0.02
    for make, middle, place in zip(written.index, middles, spread(middles, gap, 0, many - 1), strict=True):
        axes.annotate(short(make, 16), (-0.5, middle), (-0.5 - off, place), ha="right", va="center",
                      arrowprops=line | {"relpos": (1, 0.5)}, **words)  # fmt: skip
        axes.annotate(short(make, 16), (middle, many - 0.5), (place, many - 0.5 + off), ha="center", va="top",
                      rotation=90, arrowprops=line | {"relpos": (0.5, 1)}, **words)  # fmt: skip


def spread(middles: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Ascending places moved as little as it takes to lie `gap` apart, within low to high where they fit."""
    places = np.asarray(middles, dtype=float)
    if not len(places):
        return places
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    steps = gap * np.arange(len(places))
    # Least squares under "ascending by gap" is isotonic regression of what is left after the steps.
    return isotonic_regression(places - steps, y_min=low, y_max=high - steps[-1]) + steps


@styled
def confusion_makes(counts: pd.DataFrame, names: Sequence[str], most: int = 4) -> Figure | None:
    """The makes with the most mistakes between their own classes, each a matrix with numbers; None without any.

    Arguments are as of `confusion`.
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
        f"{shown[0]} is most often taken for another {shown[0]}: {count(int(totals.iloc[0]), 'mistake')}",
        "A row is a true class, a column the answer, by the numbers behind the names. Amber is a mistake; the last "
        f"column counts answers of another make. These makes hold {percent(totals[shown].sum() / totals.sum(), 0)} of "
        "all mistakes within a make.",
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
        words = [f"{short(name.removeprefix(make).strip() or name, 28)}  {i}" for i, name in enumerate(mine, 1)]
        axes.set_yticks(range(len(mine)), words, size=size)
        axes.set_xticks(range(len(mine) + 1), [*range(1, len(mine) + 1), "else"], size=size * 0.9)
        axes.set_title(f"{make}: {totals[make]:,} within the make, {other.sum():,} outside")
    for axes in figure.axes[len(shown) :]:
        axes.set_axis_off()
    return figure
