"""Figures with photos: augmentation, confused pairs and Grad-CAM++ overlays.

Each function takes PIL images and text, and returns a matplotlib figure in the style of `figures.py`.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from twincar.config import parse_class_name
from twincar.plots.figures import WIDTH, blank, fit, letter_width, short, styled
from twincar.plots.palette import AMBER, INK, RULE, SUBDUED, TEAL
from twincar.text import count, percent

PIXELS = 220  # side of a photo in a figure; more is not visible at 120 dpi
MARGIN = 0.13  # inches
LONGEST = 48  # letters of a class name below a photo


def tile(figure: Figure, image: Image.Image, left: float, top: float, side: float, color: str = RULE) -> None:
    """Draw a photo, padded to a square.

    Args:
        figure: The figure to draw on.
        image: The photo.
        left: Left edge, in inches from the left of the figure.
        top: Upper edge, in inches from the top of the figure.
        side: Side of the square in inches.
        color: Color of the frame.
    """
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    axes.imshow(np.asarray(ImageOps.pad(image.convert("RGB"), (PIXELS, PIXELS), color=RULE)), interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=2.2 if color != RULE else 0.8)


def write(figure: Figure, text: str, left: float, top: float, wide: float, size: float = 7.6, **style: Any) -> None:
    """Write text, wrapped to `wide` inches, below the point (left, top), in inches as for `tile`."""
    width, height = figure.get_size_inches()
    letters = wide * 72 / (size * 0.6 * letter_width(text))
    for row, line in enumerate(textwrap.wrap(text, max(int(letters), 8))):
        baseline = top + (1.05 + 1.25 * row) * size / 72
        drawn = figure.text(left / width, 1 - baseline / height, line, size=size, **{"color": SUBDUED} | style)
        fit(figure, drawn, wide)


@styled
def augmentation(columns: Sequence[Sequence[Image.Image]], recipe: str, mixes: bool = False) -> Figure:
    """Draw training pictures and their augmented variants: each column is an original and then its variants."""
    rows = max(len(column) for column in columns)
    side = min((WIDTH - 2 * MARGIN - 0.6) / len(columns), 1.6)
    above = 1.05
    figure = blank(
        above + rows * side + 0.35,
        f"Augmentation of the recipe {short(recipe)}",
        "Top row: training pictures before augmentation. Below: augmented variants; every epoch uses a new one."
        + (" Afterwards pairs of pictures are mixed (not shown)." if mixes else ""),
    )
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            top = above + y * side + (0.12 if y else 0)
            tile(figure, picture, MARGIN + 0.55 + x * side, top, side * 0.95)
    height = figure.get_size_inches()[1]
    for text, middle in (("original", 0.47), ("variants", 1.12 / side + (rows - 1) / 2)):
        place = (MARGIN + 0.2) / WIDTH, 1 - (above + middle * side) / height
        figure.text(*place, text, rotation=90, ha="center", va="center", color=SUBDUED, size=10)
    return figure


@styled
def confused_pairs(cards: Sequence[dict]) -> Figure:
    """Draw the most frequently confused pairs of classes: a misclassified photo and one of the predicted class each.

    Args:
        cards: One dict per pair: the columns of `report.tables.confused_pairs`, `photo` (of class `true`, predicted as
            `predicted`) and `other` (of class `predicted`), PIL images or None.
    """
    across, high = 4, 1.95
    side = (WIDTH - 2 * MARGIN - 0.25 * (across - 1)) / across / 2
    above = 1.05
    mistakes = count(sum(card["count"] + card["reverse"] for card in cards), "error")
    same = sum(parse_class_name(card["true"]).make == parse_class_name(card["predicted"]).make for card in cards)
    figure = blank(
        above + high * -(-len(cards) // across),
        f"The {len(cards)} most frequently confused pairs of classes" if len(cards) > 1 else "The confused pair",
        "Left, framed: a misclassified photo. Right: a photo of the class predicted for it. Above: how many pictures "
        "of the class were confused this way, and in reverse. "
        f"In total {mistakes}; {same} of {count(len(cards), 'pair')} of one make.",
    )
    for i, card in enumerate(cards):
        left = MARGIN + (i % across) * (2 * side + 0.25)
        top = above + (i // across) * high
        back = f", reverse {card['reverse']} of {card['reverse_support']}" if card["reverse"] else ""
        write(figure, f"{card['count']} of {card['support']}{back}", left, top, 2 * side, 9, color=INK, weight="bold")
        for image, name, shift, color in (
            (card["photo"], card["true"], 0, AMBER), (card["other"], card["predicted"], side, RULE)
        ):  # fmt: skip
            if image is not None:
                tile(figure, image, left + shift + 0.02, top + 0.22, side - 0.04, color)
            write(figure, short(name, LONGEST), left + shift + 0.02, top + side + 0.25, side)
    return figure


@styled
def grad_cam(right: Sequence[dict], wrong: Sequence[dict]) -> Figure:
    """Draw photos and their Grad-CAM++ overlays.

    Args:
        right: Correct predictions, one dict each: `photo`, `predicted`, `probability` and `evidence` (the overlay for
            the class `predicted`).
        wrong: Wrong predictions: the same keys, and `true`, `true_probability` and `true_evidence`.
    """
    side = (WIDTH - 2 * MARGIN - 2 * 0.18) / 6
    above, high = 1.3, (side + 0.34, side + 0.6)  # inches of a row
    rows_right, rows_wrong = -(-len(right) // 3), -(-len(wrong) // 2)
    figure = blank(
        above + high[0] * rows_right + high[1] * rows_wrong + 0.35 * (bool(right) + bool(wrong)),
        "Grad-CAM++ of correct and of wrong predictions",
        "Bright regions are evidence for the class. Correct predictions are sampled evenly from the least to the most "
        "confident; wrong ones are the most confident, with the evidence for the predicted and for the true class. A "
        "region that is bright in both does not separate the two classes.",
    )
    top = above
    if right:
        text = "Correct: the photo and the evidence for the predicted class"
        write(figure, text, MARGIN, top, WIDTH, 11, color=TEAL, weight="bold")
        top += 0.28
    for i, card in enumerate(right):
        left, y = MARGIN + (i % 3) * (2 * side + 0.18), top + (i // 3) * high[0]
        tile(figure, card["photo"], left, y, side - 0.05)
        tile(figure, card["evidence"], left + side, y, side - 0.05)
        write(
            figure, f"{short(card['predicted'], LONGEST)}, {percent(card['probability'])}", left, y + side, 2 * side, 8
        )
    top += rows_right * high[0]
    if wrong:
        text = "Wrong: the photo, the evidence for the predicted class and for the true class"
        write(figure, text, MARGIN, top, WIDTH, 11, color=AMBER, weight="bold")
        top += 0.28
    for i, card in enumerate(wrong):
        left, y = MARGIN + (i % 2) * (3 * side + 0.18), top + (i // 2) * high[1]
        for shift, image, text in (
            (0, card["photo"], ""),
            (side, card["evidence"], f"Predicted: {short(card['predicted'], LONGEST)}, {percent(card['probability'])}"),
            (
                2 * side,
                card["true_evidence"],
                f"True: {short(card['true'], LONGEST)}, {percent(card['true_probability'])}",
            ),
        ):
            tile(figure, image, left + shift, y, side - 0.05)
            write(figure, text, left + shift, y + side, side, 8)
    return figure
