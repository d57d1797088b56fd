"""Figures that show photos: what training does to them, which are taken for one another, and the evidence in them.

Each takes PIL images and words, and returns a matplotlib Figure in the style of `plots.py`.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from twincar.config import parse_class_name
from twincar.plots.figures import WIDTH, blank, percent, styled
from twincar.plots.palette import AMBER, INK, RULE, SUBDUED, TEAL
from twincar.text import count

PIXELS = 220  # side of a photo in a figure; more would not be seen
MARGIN = 0.13  # inches


def tile(figure: Figure, image: Image.Image, left: float, top: float, side: float, colour: str = RULE) -> None:
    """Put a photo whole into a square of `side` inches whose upper left corner lies (left, top) inches from the
    figure's."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    axes.imshow(np.asarray(ImageOps.pad(image.convert("RGB"), (PIXELS, PIXELS), color=RULE)), interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.2 if colour != RULE else 0.8)


def words(figure: Figure, text: str, left: float, top: float, wide: float, size: float = 7.6, **style) -> None:
    """Write text, wrapped to `wide` inches, below that corner; first lines side by side stand on one line."""
    width, height = figure.get_size_inches()
    for row, line in enumerate(textwrap.wrap(text, max(int(wide * 72 / (size * 0.6)), 8))):
        baseline = top + (1.05 + 1.25 * row) * size / 72
        figure.text(left / width, 1 - baseline / height, line, **{"color": SUBDUED, "size": size} | style)


@styled
def augmentation(columns: Sequence[Sequence[Image.Image]], recipe: str, mixes: bool = False) -> Figure:
    """Training pictures above what the recipe makes of them: `columns` of the original and then its variants."""
    rows = max(len(column) for column in columns)
    side = min((WIDTH - 2 * MARGIN - 0.6) / len(columns), 1.6)
    above = 1.05
    figure = blank(
        above + rows * side + 0.35,
        f"What the recipe {recipe} makes of a training picture",
        "On top the pictures as they were taken, below each what the network may see of it in as many epochs: never "
        "the same twice, so that it cannot be learnt by heart."
        + (" Two pictures are mixed into one after this, which is not shown." if mixes else ""),
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
    """The pairs most often taken for one another: a card each, with the misread photo and one of the other class.

    A card has the columns of `tables.confused_pairs`, `photo` (of `true`, read as `predicted`) and `other` (of
    `predicted`), PIL images or None.
    """
    across, high = 4, 1.95
    side = (WIDTH - 2 * MARGIN - 0.25 * (across - 1)) / across / 2
    above = 1.05
    mistakes = count(sum(card["count"] + card["reverse"] for card in cards), "mistake")
    same = sum(parse_class_name(card["true"]).make == parse_class_name(card["predicted"]).make for card in cards)
    figure = blank(
        above + high * -(-len(cards) // across),
        f"The {len(cards)} pairs most often taken for one another" if len(cards) > 1 else "The pair taken for another",
        "Left, framed, a photo that was misread; right, one of the class whose name it got. Above them, how many "
        "pictures of that class went this way, and of the other class came back. "
        f"Together {mistakes}; {same} of the {len(cards)} pairs are of one make.",
    )
    for i, card in enumerate(cards):
        left = MARGIN + (i % across) * (2 * side + 0.25)
        top = above + (i // across) * high
        back = f", {card['reverse']} of {card['reverse_support']} back" if card["reverse"] else ""
        words(figure, f"{card['count']} of {card['support']}{back}", left, top, 2 * side, 9, color=INK, weight="bold")
        for image, name, shift, colour in (
            (card["photo"], card["true"], 0, AMBER), (card["other"], card["predicted"], side, RULE)
        ):  # fmt: skip
            if image is not None:
                tile(figure, image, left + shift + 0.02, top + 0.22, side - 0.04, colour)
            words(figure, name, left + shift + 0.02, top + side + 0.25, side)
    return figure


@styled
def grad_cam(right: Sequence[dict], wrong: Sequence[dict]) -> Figure:
    """Photos with the evidence (Grad-CAM++) laid over them.

    right : `photo`, `predicted`, `probability`, `evidence` (the overlay for `predicted`).
    wrong : the same, with `true`, `true_probability` and `true_evidence`.
    """
    side = (WIDTH - 2 * MARGIN - 2 * 0.18) / 6
    above, high = 1.3, (side + 0.34, side + 0.6)  # inches of a row
    rows_right, rows_wrong = -(-len(right) // 3), -(-len(wrong) // 2)
    figure = blank(
        above + high[0] * rows_right + high[1] * rows_wrong + 0.35 * (bool(right) + bool(wrong)),
        "Where it looked when it was right, and when it was wrong",
        "The brighter, the more that part of the photo spoke for the name (Grad-CAM++). Right answers are picked "
        "evenly from the least sure to the surest; wrong ones are the surest, with the evidence for the name given and "
        "for the true one: where both light up one part, that part does not tell the two apart.",
    )
    top = above
    if right:
        text = "Right: the photo, and the evidence for the answer"
        words(figure, text, MARGIN, top, WIDTH, 11, color=TEAL, weight="bold")
        top += 0.28
    for i, card in enumerate(right):
        left, y = MARGIN + (i % 3) * (2 * side + 0.18), top + (i // 3) * high[0]
        tile(figure, card["photo"], left, y, side - 0.05)
        tile(figure, card["evidence"], left + side, y, side - 0.05)
        words(figure, f"{card['predicted']}, {percent(card['probability'])}", left, y + side, 2 * side, 8)
    top += rows_right * high[0]
    if wrong:
        text = "Wrong: the photo, the evidence for the answer, and for the true name"
        words(figure, text, MARGIN, top, WIDTH, 11, color=AMBER, weight="bold")
        top += 0.28
    for i, card in enumerate(wrong):
        left, y = MARGIN + (i % 2) * (3 * side + 0.18), top + (i // 2) * high[1]
        for shift, image, text in (
            (0, card["photo"], ""),
            (side, card["evidence"], f"Said: {card['predicted']}, {percent(card['probability'])}"),
            (2 * side, card["true_evidence"], f"True: {card['true']}, {percent(card['true_probability'])}"),
        ):
            tile(figure, image, left + shift, y, side - 0.05)
            words(figure, text, left + shift, y + side, side, 8)
    return figure
