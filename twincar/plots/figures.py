"""Figures of training, scores and calibration: a pandas table in, a matplotlib figure out.

Figures with photos are in `photos.py`, confusion matrices in `confusion.py`; both use the style defined here. Files are
written by `report.report.save`. Figures are made without pyplot, whose global state is not thread-safe.
"""

import textwrap
import unicodedata
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

from twincar.plots.palette import AMBER, DIVERGING, GREY, GROUND, INK, PINK, RULE, SPLITS, SUBDUED, TEAL, VIOLET
from twincar.text import percent, printable

P = ParamSpec("P")
T = TypeVar("T")

LIGHT = DIVERGING[1]  # the color of bars below other marks

F1 = "Macro F1, validation"
WIDTH = 10.0  # inches; 1200 pixels at the 120 dpi of `report.report.save`
FONT = "DejaVu Sans"  # part of matplotlib
# Fonts of Linux, Windows and macOS for class names in scripts that DejaVu Sans lacks; the installed ones are used.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Nirmala UI", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS", "Noto Emoji",
    "Segoe UI Emoji",
)  # fmt: skip
STYLE: dict[Any, Any] = {
    "text.parse_math": False, "text.usetex": False,  # class names may contain dollars
    "font.size": 10.5, "text.color": INK, "figure.facecolor": GROUND,
    "axes.facecolor": GROUND, "axes.edgecolor": RULE, "axes.labelcolor": SUBDUED, "axes.titlelocation": "left",
    "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlecolor": INK, "axes.grid": True,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "grid.color": RULE, "grid.linewidth": 0.8, "xtick.color": SUBDUED, "ytick.color": SUBDUED, "xtick.major.size": 0,
    "ytick.major.size": 0, "lines.linewidth": 2.2, "legend.edgecolor": GROUND, "legend.framealpha": 0.9,
    "legend.fontsize": 10, "legend.borderpad": 0.2, "svg.fonttype": "none", "svg.hashsalt": "twincar",
}  # fmt: skip


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to run with the matplotlib settings of STYLE.

    A character that no font has is drawn as a box, without a warning.
    """

    @wraps(draw)
    def with_style(*args: P.args, **options: P.kwargs) -> T:
        fonts = [FONT, *(font for font in FALLBACK_FONTS if font in fontManager.get_font_names())]
        with rc_context(STYLE | {"font.family": fonts}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            return draw(*args, **options)

    return with_style


def blank(height: float, title: str, caption: str, width: float = WIDTH) -> Figure:
    """Create a figure of `width` x `height` inches with a title and, below it, a wrapped caption."""
    return _headed(height, title, caption, width)[0]


def canvas(height: float, title: str, caption: str, width: float = WIDTH) -> Figure:
    """Create a figure as `blank` does, whose subplots fill the space below the caption."""
    figure, above = _headed(height, title, caption, width)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - above / height), w_pad=0.1, h_pad=0.1)
    return figure


def _headed(height: float, title: str, caption: str, width: float) -> tuple[Figure, float]:
    """Create the figure; return it and the height of title and caption in inches."""
    lines = textwrap.wrap(caption, min(int(width * 12.4), 140) // letter_width(caption))
    figure = Figure((width, height))
    figure.text(0.13 / width, 1 - 0.12 / height, title, size=15, weight="bold", va="top")
    figure.text(0.13 / width, 1 - 0.46 / height, "\n".join(lines), color=SUBDUED, va="top", linespacing=1.35)
    for text in figure.texts:
        fit(figure, text, width - 0.13)
    return figure, 0.55 + 0.21 * len(lines)


def fit(figure: Figure, text: Text, wide: float) -> None:
    """Reduce the size of a text, such as a class name of wide letters, until it is at most `wide` inches wide."""
    while text.get_window_extent().width > wide * figure.dpi:
        text.set_fontsize(0.95 * float(text.get_fontsize()))


def short(name: str, longest: int = 42) -> str:
    """Shorten an untrusted name to the width of `longest` letters, all printable; a year at its end is kept."""
    name = printable(name)
    longest //= letter_width(name)
    if len(name) <= longest:
        return name
    return f"{name[: longest - 6].rstrip()}… {name[-4:]}" if name[-4:].isdigit() else f"{name[: longest - 1].rstrip()}…"


def letter_width(text: str) -> int:
    """Width of a text's characters in Latin letters: 2 if it contains Chinese ones, Japanese ones or emoji, else 1."""
    return 2 if any(unicodedata.east_asian_width(letter) in "WF" for letter in text) else 1


def percents(axis) -> None:
    """Format the ticks of an axis as percentages."""
    axis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))


@styled
def training(log: pd.DataFrame, monitor: str = "val_f1_macro", best_is: str = "max") -> Figure:
    """Draw loss, accuracy, macro F1, macro precision and macro recall by epoch.

    Args:
        log: A run's `metrics.csv`, one row per epoch.
        monitor: The column that selects the best epoch; "epoch" selects the last one.
        best_is: "max" if the best epoch has the highest value, "min" if the lowest.
    """
    best = _best(log, monitor, best_is)
    figure = canvas(
        7.2,
        f"Epoch {best['epoch'] + 1:.0f} of {len(log)} was {'kept' if monitor == 'epoch' else 'best'}: "
        f"accuracy {percent(best['val_top1'])}, macro F1 {best['val_f1_macro']:.3f}",
        "Dots mark the epoch whose weights were kept. Training metrics are measured on augmented and possibly "
        "mixed pictures, so they can be worse than validation metrics. Overfitting would show as a rising validation "
        "loss.",
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
        for label, (column, color) in lines.items():
            axes.plot(log["epoch"] + 1, log[column], color=color, label=label)
            axes.plot(best["epoch"] + 1, best[column], "o", color=color, markersize=6.5)
        axes.set_title(title)
        _epochs(axes, log)
        axes.set_ylim(0, None if title == "Loss" else 1)
        if title not in ("Loss", F1):
            percents(axes.yaxis)
        if len(lines) > 1:  # "best" avoids the lines but not their dots, which are high in all panels but the loss
            axes.legend(loc="best" if title == "Loss" else "lower right")
    return figure


def _best(log: pd.DataFrame, monitor: str, best_is: str) -> pd.Series:
    """The row of the best epoch among those with the last picture size, as the training selects it."""
    last = log.loc[log["image_size"] == log["image_size"].iloc[-1], monitor]
    return log.loc[last.idxmin() if best_is == "min" else last.idxmax()]


@styled
def top_k(log: pd.DataFrame, monitor: str = "val_f1_macro", best_is: str = "max") -> Figure:
    """Draw validation top-1, top-3 and top-5 accuracy and the learning rate by epoch. Args as for `training`."""
    rates = [column for column in log if column.startswith("lr_")]
    best = _best(log, monitor, best_is)
    figure = canvas(
        4.8,
        f"Top-1 accuracy {percent(best['val_top1'])}, top-5 accuracy {percent(best['val_top5'])}",
        f"On the validation pictures, in epoch {best['epoch'] + 1:.0f}. The shaded area is the learning rate: accuracy "
        "fluctuates while it is high and settles as it falls."
        + (" Dashed lines mark changes of the training image size." if log["image_size"].nunique() > 1 else ""),
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
    for k, color in ((5, TEAL), (3, AMBER), (1, VIOLET)):
        axes.plot(log["epoch"] + 1, log[f"val_top{k}"], color=color, label=f"top {k}", marker=_marker(log))
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
    return "o" if len(log) < 3 else ""  # a line with one point is invisible


def _epochs(axes, log: pd.DataFrame) -> None:
    axes.set_xlim(0.5, log["epoch"].max() + 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")


@styled
def f1_all(per_class: pd.DataFrame, makes: dict[str, str], most: int = 60) -> Figure:
    """Draw F1 of every class as dots, one row per make, sorted by mean F1, the lowest on top.

    Args:
        per_class: The columns class_name, f1 and support, one row per class.
        makes: Class name -> make.
        most: How many makes to draw at most; those with the highest mean are left out.
    """
    present = per_class[per_class["support"] > 0].assign(make=lambda rows: rows["class_name"].map(makes))
    order = present.groupby("make")["f1"].mean().sort_values(kind="stable").index[:most][::-1]
    perfect = int((present["f1"] == 1).sum())
    left = present["make"].nunique() - len(order)
    figure = canvas(
        2.0 + 0.205 * len(order),
        f"F1 is 1 for {perfect} of {len(present)} classes",
        "One row per make. Dots are the F1 of its classes, larger where several are equal; the amber tick is their "
        f"mean. A class has {_span(present['support'])} pictures here, so a single error changes its F1 a lot."
        + (f" The {left} makes with the highest mean are left out." if left else ""),
    )
    axes = figure.subplots()
    for row, make in enumerate(order):
        f1, times = np.unique(present.loc[present["make"] == make, "f1"].round(3), return_counts=True)
        axes.plot([f1.min(), f1.max()], [row, row], color=RULE, linewidth=5, zorder=1, solid_capstyle="round")
        axes.scatter(f1, np.full(len(f1), row), s=26 * times, color=VIOLET, alpha=0.8, linewidth=0, zorder=3)
        if len(f1) > 1:
            mean = (f1 * times).sum() / times.sum()
            axes.scatter(mean, row, marker="|", s=110, color=AMBER, linewidth=2.4, zorder=2)
    axes.set_yticks(
        range(len(order)), [f"{short(make, 24)}  {(present['make'] == make).sum()}" for make in order], size=9
    )
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(max(present["f1"].min() - 0.08, -0.02), 1.02)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("F1")
    return figure


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


@styled
def f1_extremes(per_class: pd.DataFrame, most: int = 20) -> Figure:
    """Draw F1, precision and recall of the `most` classes with the lowest and with the highest F1."""
    present = per_class[per_class["support"] > 0].sort_values(["f1", "support"], ascending=[True, False], kind="stable")
    perfect = int((present["f1"] == 1).sum())
    many = min(most, len(present) // 2)
    panels = {f"The {many} lowest": present.head(many)}
    panels[f"The {many} highest"] = present.sort_values(["f1", "support"], ascending=False, kind="stable").head(many)
    if len(present) <= most:
        panels, many = {"All classes, the lowest F1 first": present}, len(present)
    figure = canvas(
        1.6 + (0.24 * many + 0.2) * len(panels),
        f"Lowest: {short(present['class_name'].iloc[0], 60)}, F1 {present['f1'].iloc[0]:.2f}",
        "Bars show F1. Low precision: other classes are predicted as this one. Low recall: this class is predicted as "
        "others. The number after a name is its number of pictures."
        + (f" Of the {perfect} classes with F1 1, those with the most pictures are shown." if perfect > many else ""),
    )
    drawn = figure.subplots(len(panels), 1, sharex=True, squeeze=False).flat
    for axes, (title, rows) in zip(drawn, panels.items(), strict=True):
        place = np.arange(len(rows))[::-1]
        axes.barh(place, rows["f1"], height=0.68, color=LIGHT)
        for column, color, size in (
            ("precision", TEAL, 190),
            ("recall", PINK, 60),
        ):  # the smaller one on top
            axes.scatter(rows[column], place, marker="|", s=size, color=color, linewidth=2.8, label=column, zorder=3)
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
    """Draw the number of pictures per class and per make, by split, from the table of `statistics.distribution`."""
    splits = [split for split in SPLITS if table[split].sum()]
    counts = table[splits].sum(axis=1)
    order = counts.sort_values(ascending=False, kind="stable").index
    low, high = counts.quantile([0.05, 0.95])
    makes = table.groupby("make")[splits].sum().assign(classes=table["make"].value_counts())
    makes = makes.loc[makes[splits].sum(axis=1).sort_values(ascending=False, kind="stable").index[:most]]
    figure = canvas(
        5.6 + 0.19 * len(makes),
        f"{counts.sum():,} pictures of {len(table)} classes, {_span(counts)} each",
        f"Top: one bar per class; 90 % of the classes have {low:.0f} to {high:.0f} pictures. "
        f"{short(table['class_name'][order[0]], 60)} has the most, {short(table['class_name'][order[-1]], 60)} the "
        "fewest. "
        "Bottom: one bar per make, with its number of classes.",
    )
    above, below = figure.subplots(2, 1, height_ratios=[2.6, max(0.19 * len(makes), 1)])
    bottom, left = np.zeros(len(table)), np.zeros(len(makes))
    for split in splits:
        high, wide = table[split][order].to_numpy(), makes[split].to_numpy()
        above.bar(range(len(table)), high, bottom=bottom, width=1.0 if len(table) > 60 else 0.8, color=SPLITS[split])
        below.barh(range(len(makes)), wide, left=left, color=SPLITS[split], label=f"{split} {table[split].sum():,}")
        bottom, left = bottom + high, left + wide
    above.set_title("Pictures per class, in descending order")
    above.set_xlim(-0.7, len(table) - 0.3)
    above.grid(axis="x", visible=False)
    above.set_xticks([])
    below.set_yticks(
        range(len(makes)), [f"{short(m, 24)}  {n}" for m, n in zip(makes.index, makes["classes"], strict=True)], size=9
    )
    below.set_ylim(len(makes) - 0.4, -0.6)
    below.grid(axis="y", visible=False)
    below.set_title("Pictures per make")
    below.legend(loc="lower right")
    return figure


@styled
def reliability(table: pd.DataFrame, facts: dict) -> Figure:
    """Draw the reliability diagram: accuracy by confidence.

    Args:
        table: The bins of `calibration.reliability`.
        facts: The content of `calibration.json`.
    """
    how = (
        "The probabilities are cross-fitted (10 folds, 5 repeats), because the published calibration was fitted on "
        f"these pictures; without calibration the difference would be {100 * facts['before']['ece']:.1f} points."
        if facts["cross_fitted"]
        else "The probabilities are those of the model."
    )
    figure = canvas(
        5.9,
        f"Confidence and accuracy differ by {100 * facts['ece']:.1f} percentage points on average",
        f"A dot is {_span(table['count'])} of {facts['pictures']:,} pictures, with a 95 % interval (Wilson). On the "
        f"dashed line confidence equals accuracy; above it the model is underconfident, below overconfident. {how}",
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
    diagonal.set(xlim=(lowest, 1.02), ylim=(lowest, 1.02), ylabel="accuracy", xlabel="confidence")
    percents(diagonal.xaxis)
    bins.set(xlim=(0.3, len(table) + 0.7), xlabel="the same dots, in order of confidence")
    bins.set_xticks([])
    diagonal.text(0.03, 0.97, f"ECE {facts['ece']:.3f}\nBrier {facts['brier']:.3f}\nNLL {facts['nll']:.3f}",
                  transform=diagonal.transAxes, color=SUBDUED, va="top")  # fmt: skip
    return figure


@styled
def selective(table: pd.DataFrame) -> Figure:
    """Draw accuracy by the fraction of photos answered, from the table of `calibration.selective`."""
    whole, most = table.iloc[-1], table[table["accuracy"] >= 0.99]
    best = f"; 99 % on the most confident {percent(most['answered'].max())}" if len(most) else ""
    figure = canvas(
        4.6,
        f"Accuracy {percent(whole['accuracy'])} on all photos{best}",
        "Photos are answered in order of confidence: at the left only the most confident ones, at the right all. "
        "Declining to answer below a confidence threshold moves to the left along the curve.",
    )
    axes = figure.subplots()
    axes.plot(table["answered"], table["accuracy"], color=VIOLET, linewidth=2)
    axes.fill_between(table["answered"], table["accuracy"], 1, color=VIOLET, alpha=0.08)
    lowest = min(0.9, float(table["accuracy"].min()) - 0.02)
    axes.set(xlim=(0, 1.01), ylim=(max(lowest, 0), 1.003), xlabel="fraction of photos answered", ylabel="accuracy")
    percents(axes.xaxis)
    percents(axes.yaxis)
    return figure
