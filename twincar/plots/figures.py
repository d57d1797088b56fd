"""One function a figure: a table in, a matplotlib Figure out. Nothing here knows a path; `report.py` writes the files.

Figures that show photos are drawn in `photo_plots.py`, the confusion matrices in `confusion_plots.py`, in this style.
No pyplot: a Figure belongs to nobody else, so a server may draw several at once.
"""

import textwrap
from collections.abc import Callable
from functools import wraps

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from twincar.plots.palette import AMBER, DIVERGING, GREY, GROUND, INK, PINK, RULE, SPLITS, SUBDUED, TEAL, VIOLET

LIGHT = DIVERGING[1]  # under other marks

F1 = "Macro F1, validation"
WIDTH = 10.0  # inches of every figure; at 120 dots an inch a page shows it whole
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10.5, "text.color": INK, "figure.facecolor": GROUND,
    "axes.facecolor": GROUND, "axes.edgecolor": RULE, "axes.labelcolor": SUBDUED, "axes.titlelocation": "left",
    "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlecolor": INK, "axes.grid": True,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "grid.color": RULE, "grid.linewidth": 0.8, "xtick.color": SUBDUED, "ytick.color": SUBDUED, "xtick.major.size": 0,
    "ytick.major.size": 0, "lines.linewidth": 2.2, "legend.edgecolor": GROUND, "legend.framealpha": 0.9,
    "legend.fontsize": 10, "legend.borderpad": 0.2, "svg.fonttype": "none", "svg.hashsalt": "twincar",
}  # fmt: skip


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the house's style, whatever matplotlib is set to elsewhere."""

    @wraps(draw)
    def with_style(*args, **options) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **options)

    return with_style


def blank(height: float, title: str, sentence: str, width: float = WIDTH) -> Figure:
    """A figure, in inches, that has nothing but what it says and, below that, how to read it."""
    return _headed(height, title, sentence, width)[0]


def canvas(height: float, title: str, sentence: str, width: float = WIDTH) -> Figure:
    """`blank`, whose subplots will fill the room below the words."""
    figure, above = _headed(height, title, sentence, width)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - above / height), w_pad=0.1, h_pad=0.1)
    return figure


def _headed(height: float, title: str, sentence: str, width: float) -> tuple[Figure, float]:
    lines = textwrap.wrap(sentence, min(int(width * 12.4), 140))
    figure = Figure((width, height))
    figure.text(0.13 / width, 1 - 0.12 / height, title, size=15, weight="bold", va="top")
    figure.text(0.13 / width, 1 - 0.46 / height, "\n".join(lines), color=SUBDUED, va="top", linespacing=1.35)
    return figure, 0.55 + 0.21 * len(lines)


def percent(share: float, digits: int = 1) -> str:
    """0.918 -> "91.8 %", with a space that no line breaks at; what is hardly anything is not written as nothing."""
    if 0 < share < 0.5 * 10 ** -(digits + 2):
        return f"<\N{NO-BREAK SPACE}{10.0**-digits:.{digits}f}\N{NO-BREAK SPACE}%"
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def short(name: str, longest: int = 42) -> str:
    """The name, cut where it is too long for an axis; the year at its end stays."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 6].rstrip()}… {name[-4:]}" if name[-4:].isdigit() else f"{name[: longest - 1].rstrip()}…"


def percents(axis) -> None:
    """Write an axis in per cent, as `percent` does."""
    axis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))


@styled
def training(log: pd.DataFrame, monitor: str = "val_f1_macro", best_is: str = "max") -> Figure:
    """Loss, accuracy, macro F1, precision and recall, epoch by epoch. `log` is a run's metrics.csv; the epoch whose
    weights were kept is the one where its column `monitor` is highest ("max"), or lowest ("min")."""
    best = _best(log, monitor, best_is)
    figure = canvas(
        7.2,
        f"Epoch {best['epoch'] + 1:.0f} of {len(log)} was best: {percent(best['val_top1'])} right, "
        f"macro F1 {best['val_f1_macro']:.3f}",
        "Dots mark that epoch, whose weights were kept. Training is measured on augmented pictures, perhaps mixed "
        "ones, so it may look worse than validation. A network that only learns by heart would show it in a validation "
        "loss that rises again.",
    )
    panels = {
        "Loss": {"training": ("train_loss", VIOLET), "validation": ("val_loss", AMBER)},
        "Accuracy": {"training": ("train_top1", VIOLET), "validation": ("val_top1", AMBER)},
        F1: {"F1": ("val_f1_macro", AMBER)},
        "Macro precision and recall, validation": {
            "precision": ("val_precision_macro", TEAL),
            "recall": ("val_recall_macro", PINK),
        },
    }
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for label, (column, colour) in lines.items():
            axes.plot(log["epoch"] + 1, log[column], color=colour, label=label)
            axes.plot(best["epoch"] + 1, best[column], "o", color=colour, markersize=6.5)
        axes.set_title(title)
        _epochs(axes, log)
        axes.set_ylim(0, None if title == "Loss" else 1)
        if title not in ("Loss", F1):
            percents(axes.yaxis)
        if len(lines) > 1:
            axes.legend(loc="upper right" if title == "Loss" else "lower right")
    return figure


def _best(log: pd.DataFrame, monitor: str, best_is: str) -> pd.Series:
    """The epoch whose weights were kept."""
    return log.loc[log[monitor].idxmin() if best_is == "min" else log[monitor].idxmax()]


@styled
def top_k(log: pd.DataFrame, monitor: str = "val_f1_macro", best_is: str = "max") -> Figure:
    """Validation top-1, top-3 and top-5 with the learning rate behind them; the parameters are those of `training`."""
    rates = [column for column in log if column.startswith("lr_")]
    best = _best(log, monitor, best_is)
    figure = canvas(
        4.8,
        f"In {percent(best['val_top1'])} the first guess is right, in {percent(best['val_top5'])} one of five",
        f"Of the validation pictures, in epoch {best['epoch'] + 1:.0f}. Behind the lines stands the learning rate: "
        "under a high one accuracy jumps about, under a falling one it settles."
        + (" Dashes are where the training pictures grow." if log["image_size"].nunique() > 1 else ""),
    )
    axes = figure.subplots()
    if rates:
        rate = max(rates, key=lambda column: log[column].max())
        behind = axes.twinx()
        behind.fill_between(log["epoch"] + 1, log[rate], color=RULE, linewidth=0)
        behind.set_ylim(0, log[rate].max() * 1.08 or 1)
        behind.set_ylabel(f"learning rate ({rate.removeprefix('lr_')})")
        behind.grid(False)
        axes.set_zorder(behind.get_zorder() + 1)
        axes.patch.set_visible(False)
    for k, colour in ((5, TEAL), (3, AMBER), (1, VIOLET)):
        axes.plot(log["epoch"] + 1, log[f"val_top{k}"], color=colour, label=f"top {k}", marker=_marker(log))
    changes = log.index[log["image_size"].diff().fillna(0) != 0]
    for row in changes:
        axes.axvline(log["epoch"][row] + 0.5, color=GREY, linewidth=1, linestyle="--")
    if len(changes):
        for row in [log.index[0], *changes]:
            axes.text(log["epoch"][row] + 0.7, 1.01, f"{log['image_size'][row]:.0f} px", color=SUBDUED, size=9.5)
    _epochs(axes, log)
    axes.set_ylim(0, 1)
    percents(axes.yaxis)
    axes.legend(loc="lower right")
    return figure


def _marker(log: pd.DataFrame) -> str:
    return "o" if len(log) < 3 else ""  # a line of one point is none


def _epochs(axes, log: pd.DataFrame) -> None:
    axes.set_xlim(0.5, log["epoch"].max() + 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


@styled
def f1_all(per_class: pd.DataFrame, makes: dict[str, str], most: int = 60) -> Figure:
    """F1 of every class: a dot a class, a row a make, the makes with the lowest mean on top.

    per_class : class_name, f1, support; makes : class name -> make. Beyond `most` makes the better ones are left out.
    """
    seen = per_class[per_class["support"] > 0].assign(make=lambda rows: rows["class_name"].map(makes))
    order = seen.groupby("make")["f1"].mean().sort_values(kind="stable").index[:most][::-1]
    perfect = int((seen["f1"] == 1).sum())
    left = seen["make"].nunique() - len(order)
    figure = canvas(
        2.0 + 0.205 * len(order),
        f"{perfect} of {len(seen)} classes are read without a mistake",
        "A row a make: its classes, the larger a dot the more of them share it; the amber tick is their mean, and the "
        f"weakest makes stand on top. A class has {_span(seen['support'])} pictures here, so one mistake moves it far."
        + (f" The {left} best makes are left out." if left else ""),
    )
    axes = figure.subplots()
    for row, make in enumerate(order):
        f1, share = np.unique(seen.loc[seen["make"] == make, "f1"].round(3), return_counts=True)
        axes.plot([f1.min(), f1.max()], [row, row], color=RULE, linewidth=5, zorder=1, solid_capstyle="round")
        axes.scatter(f1, np.full(len(f1), row), s=26 * share, color=VIOLET, alpha=0.8, linewidth=0, zorder=3)
        if len(f1) > 1:
            axes.scatter((f1 * share).sum() / share.sum(), row, marker="|", s=110, color=AMBER, linewidth=2.4, zorder=2)
    axes.set_yticks(range(len(order)), [f"{short(make, 24)}  {(seen['make'] == make).sum()}" for make in order], size=9)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(max(seen["f1"].min() - 0.08, -0.02), 1.02)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("F1")
    return figure


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


@styled
def f1_extremes(per_class: pd.DataFrame, most: int = 20) -> Figure:
    """The classes with the worst and the best F1, with their precision and recall."""
    seen = per_class[per_class["support"] > 0].sort_values(["f1", "support"], ascending=[True, False], kind="stable")
    perfect = int((seen["f1"] == 1).sum())
    many = min(most, len(seen) // 2)
    panels = {f"The {many} weakest": seen.head(many)}
    panels[f"The {many} best"] = seen.sort_values(["f1", "support"], ascending=False, kind="stable").head(many)
    if len(seen) <= most:
        panels, many = {"All classes, the weakest first": seen}, len(seen)
    figure = canvas(
        1.6 + (0.24 * many + 0.2) * len(panels),
        f"Weakest: {seen['class_name'].iloc[0]}, F1 {seen['f1'].iloc[0]:.2f}",
        "Bars are F1. Low precision: its name is given to other cars. Low recall: it is called something else. Behind "
        "each name stands how many pictures it has."
        + (f" Of the {perfect} without a mistake, those with the most pictures are shown." if perfect > many else ""),
    )
    drawn = figure.subplots(len(panels), 1, sharex=True, squeeze=False).flat
    for axes, (title, rows) in zip(drawn, panels.items(), strict=True):
        place = np.arange(len(rows))[::-1]
        axes.barh(place, rows["f1"], height=0.68, color=LIGHT)
        for column, colour, size in (("precision", TEAL, 190), ("recall", PINK, 60)):  # both are seen where they meet
            axes.scatter(rows[column], place, marker="|", s=size, color=colour, linewidth=2.8, label=column, zorder=3)
        axes.set_yticks(
            place, [f"{short(n)}  {s}" for n, s in zip(rows["class_name"], rows["support"], strict=True)], size=9
        )
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(0, 1.02)
        axes.grid(axis="y", visible=False)
        axes.set_title(title)
    figure.axes[0].legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1), borderaxespad=0.2)
    return figure


@styled
def class_distribution(table: pd.DataFrame, most: int = 60) -> Figure:
    """Pictures of each class, and of each make, by split. `table` is that of `statistics.distribution`."""
    splits = [split for split in SPLITS if table[split].sum()]
    counts = table[splits].sum(axis=1)
    order = counts.sort_values(ascending=False, kind="stable").index
    low, high = counts.quantile([0.05, 0.95])
    makes = table.groupby("make")[splits].sum().assign(classes=table["make"].value_counts())
    makes = makes.loc[makes[splits].sum(axis=1).sort_values(ascending=False, kind="stable").index[:most]]
    figure = canvas(
        5.6 + 0.19 * len(makes),
        f"{counts.sum():,} pictures of {len(table)} classes, {_span(counts)} each",
        f"Above, a bar a class: nine of ten have {low:.0f} to {high:.0f}. {table['class_name'][order[0]]} has the "
        f"most, {table['class_name'][order[-1]]} the fewest. Below, the makes, with the number of their classes.",
    )
    above, below = figure.subplots(2, 1, height_ratios=[2.6, max(0.19 * len(makes), 1)])
    bottom, left = np.zeros(len(table)), np.zeros(len(makes))
    for split in splits:
        high, wide = table[split][order].to_numpy(), makes[split].to_numpy()
        above.bar(range(len(table)), high, bottom=bottom, width=1.0 if len(table) > 60 else 0.8, color=SPLITS[split])
        below.barh(range(len(makes)), wide, left=left, color=SPLITS[split], label=f"{split} {table[split].sum():,}")
        bottom, left = bottom + high, left + wide
    above.set_title("Pictures a class, all classes from many to few")
    above.set_xlim(-0.7, len(table) - 0.3)
    above.grid(axis="x", visible=False)
    above.set_xticks([])
    below.set_yticks(
        range(len(makes)), [f"{short(m, 24)}  {n}" for m, n in zip(makes.index, makes["classes"], strict=True)], size=9
    )
    below.set_ylim(len(makes) - 0.4, -0.6)
    below.grid(axis="y", visible=False)
    below.set_title("Pictures a make")
    below.legend(loc="lower right")
    return figure


@styled
def reliability(table: pd.DataFrame, facts: dict) -> Figure:
    """How often the first guess is right, by how sure it is: `calibrate.reliability`'s bins, and calibration.json."""
    how = (
        "Each probability was calibrated on other pictures (ten folds, five times), since the published calibration "
        f"was fitted on these; with none at all the mean gap would be {100 * facts['before']['ece']:.1f}."
        if facts["cross_fitted"]
        else "The probabilities are as the model gives them."
    )
    figure = canvas(
        5.9,
        f"How sure it is and how often it is right differ by {100 * facts['ece']:.1f} points on average",
        f"A dot is {_span(table['count'])} of {facts['pictures']:,} pictures, its bar a 95 % interval (Wilson). On the "
        f"dashes a probability means what it says; above them the model is too modest, below too sure. {how}",
    )
    diagonal, bins = figure.subplots(1, 2, sharey=True)
    diagonal.plot([0, 1], [0, 1], color=GREY, linewidth=1.4, linestyle="--")
    places = np.arange(1, len(table) + 1)
    bins.step([*(places - 0.5), places[-1] + 0.5], [*table["confidence"], table["confidence"].iloc[-1]], where="post",
              color=GREY, linewidth=1.4, linestyle="--")  # fmt: skip
    error = np.abs(table[["low", "high"]].to_numpy().T - table["accuracy"].to_numpy())
    for axes, where in ((diagonal, table["confidence"]), (bins, places)):
        axes.errorbar(where, table["accuracy"], yerr=error, fmt="o", color=VIOLET, elinewidth=1.4, markersize=5.5)
        percents(axes.yaxis)
    lowest = max(0.0, min(table["confidence"].min(), table["low"].min()) - 0.05)
    diagonal.set(xlim=(lowest, 1.02), ylim=(lowest, 1.02), ylabel="how often it is right", xlabel="how sure it is")
    percents(diagonal.xaxis)
    bins.set(xlim=(0.3, len(table) + 0.7), xlabel="the same dots, from the least sure to the surest")
    bins.set_xticks([])
    diagonal.text(0.03, 0.97, f"ECE {facts['ece']:.3f}\nBrier {facts['brier']:.3f}\nNLL {facts['nll']:.3f}",
                  transform=diagonal.transAxes, color=SUBDUED, va="top")  # fmt: skip
    return figure


@styled
def selective(table: pd.DataFrame) -> Figure:
    """How often the answers are right, by the share of photos that get one: `calibrate.selective`."""
    whole, most = table.iloc[-1], table[table["accuracy"] >= 0.99]
    surest = f"; of its surest {percent(most['answered'].max())}, 99 %" if len(most) else ""
    figure = canvas(
        4.6,
        f"Of all its answers {percent(whole['accuracy'])} are right{surest}",
        "From the left: only the surest answers count, then ever more of them, until at the right all do. A page that "
        "keeps its doubtful answers to itself moves to the left along the line.",
    )
    axes = figure.subplots()
    axes.plot(table["answered"], table["accuracy"], color=VIOLET, linewidth=2)
    axes.fill_between(table["answered"], table["accuracy"], 1, color=VIOLET, alpha=0.08)
    lowest = min(0.9, float(table["accuracy"].min()) - 0.02)
    axes.set(xlim=(0, 1.01), ylim=(max(lowest, 0), 1.003), xlabel="share of photos answered", ylabel="of them right")
    percents(axes.xaxis)
    percents(axes.yaxis)
    return figure
