"""Detection of every car: whole photos alone, and two and three of them side by side.

    python -m benchmarks.every_car models/twincar --data data_full --not-cars photos --out reports/every_car.md

`data_full` is the output of `twincar prepare` for whole photos with boxes, none of them used for training, and `photos`
a folder of photos without cars, none of them used to fit the detector. Every photo of `data_full` is read alone, with
one other beside it, and with two. A car counts as found if a frame has an IoU above 0.5 with its annotated box, and as
named as from its annotated box if the model predicts the same class from this frame. Predictions are those of torch in
single precision, the same on every machine.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import typer
from PIL import Image
from rich.progress import track
from scipy.stats import binomtest

from benchmarks.common import write_report
from twincar import Predictor
from twincar.data.listing import BOX
from twincar.data.table import load_table
from twincar.features.photo import load_photo
from twincar.files import pictures_below
from twincar.modeling.detection.boxes import Pixels, iou, to_fractions
from twincar.modeling.inference.predictor import REFERENCE

HEIGHT = 600  # of photos set side by side, in pixels
STEP = 7  # the photo beside photo i is photo i + STEP
TITLES = {1: "one photo", 2: "two side by side", 3: "three side by side"}
FOUND = 0.5  # IoU above which a car counts as found


class Car(NamedTuple):
    """What was found of one car.

    Attributes:
        iou: IoU (0-1) of its annotated box and the best frame.
        as_annotated: Whether the class predicted from this frame is that predicted from the annotated box.
        right: Whether it is the true class.
        right_annotated: Whether the class predicted from the annotated box is the true class.
    """

    iou: float
    as_annotated: bool
    right: bool
    right_annotated: bool


def main(
    model: Annotated[Path, typer.Argument(help="Model folder with a detector.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote for whole photos with boxes.")],
    not_cars: Annotated[Path, typer.Option(help="Folder of photos without cars that the detector was not fitted on.")],
    out: Annotated[
        Path | None, typer.Option(help="Markdown file to write, with a CSV for the page next to it.")
    ] = None,
) -> None:
    """Count the cars that are found, and named as from their annotated boxes."""
    predictor = Predictor.from_pretrained(model, device="cpu", engine=REFERENCE)
    table = load_table(data).dropna(subset=BOX)
    photos = [load_photo(path) for path in table["path"]]
    boxes = [tuple(int(value) for value in row) for row in table[BOX].to_numpy()]
    names = list(table["class_name"])
    lines = [
        f"{len(photos)} whole photos and `{model}` ({predictor.engine.name}); 95 % intervals (Wilson) in brackets.",
        "",
        "| scene | cars | found (IoU > 0.5) | of those, named as from the annotated box | named right | named right "
        "from the annotated box | frames on no car |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    figures = []
    for count, title in TITLES.items():
        cars, wrong = [], 0
        for first in track(range(len(photos)), title):
            rows = [(first + STEP * index) % len(photos) for index in range(count)]
            photo, annotated = beside([photos[row] for row in rows], [boxes[row] for row in rows])
            found, others = compare(predictor, photo, annotated, [names[row] for row in rows])
            cars, wrong = [*cars, *found], wrong + others
        if count == 1:
            alone = np.array([car.iou for car in cars])
        seen = [car for car in cars if car.iou > FOUND]
        named = sum(car.right for car in cars)
        low, high = binomtest(len(seen), len(cars)).proportion_ci(0.95, method="wilson")
        figures.append(
            {"scene": title, "cars": len(cars), "found": len(seen), "low": low, "high": high, "named_right": named}
        )
        lines.append(
            f"| {title} | {len(cars)} | {rate(len(seen), len(cars))} | "
            f"{rate(sum(car.as_annotated for car in seen), len(seen))} | "
            f"{rate(named, len(cars))} | "
            f"{rate(sum(car.right_annotated for car in cars), len(cars))} | {wrong} |"
        )
    files = list(pictures_below(not_cars))
    framed = [any(car.box for car in predictor(file).cars) for file in track(files, "photos without cars")]
    lines += [
        "",
        f"- One photo: mean IoU of frame and annotated box {alone.mean():.3f}, of the worst tenth at most "
        f"{np.quantile(alone, 0.1):.2f}.",
        f"- Photos without a car that show a frame: {rate(sum(framed), len(framed))}, {sum(framed)} of {len(framed)}.",
    ]
    print("\n".join(lines))
    if out:
        write_report(out, "Every car", "every_car", lines, pd.DataFrame(figures))


def beside(photos: list[Image.Image], boxes: list[Pixels]) -> tuple[Image.Image, list[Pixels]]:
    """Set photos of one height side by side; returns the picture and the boxes in it. One photo stays as it is."""
    if len(photos) == 1:
        return photos[0], boxes
    scales = [HEIGHT / photo.height for photo in photos]
    resized = [
        photo.resize((round(photo.width * scale), HEIGHT), Image.Resampling.BICUBIC)
        for photo, scale in zip(photos, scales, strict=True)
    ]
    whole, left, moved = Image.new("RGB", (sum(photo.width for photo in resized), HEIGHT)), 0, []
    for photo, scale, (x1, y1, x2, y2) in zip(resized, scales, boxes, strict=True):
        whole.paste(photo, (left, 0))
        x1, x2 = (left + min(round(x * scale), photo.width) for x in (x1, x2))
        moved.append((x1, round(y1 * scale), x2, min(round(y2 * scale), HEIGHT)))
        left += photo.width
    return whole, moved


def compare(predictor: Predictor, photo: Image.Image, boxes: list[Pixels], names: list[str]) -> tuple[list[Car], int]:
    """Compare the cars found in a photo with the annotated ones; returns them and the number of frames on no car."""
    found = [car for car in predictor(photo).cars if car.box]
    overlaps = np.array(
        [[iou(to_fractions(car.box, photo.size), to_fractions(box, photo.size)) for car in found] for box in boxes]
    ).reshape(len(boxes), len(found))
    cars = []
    for box, name, row in zip(boxes, names, overlaps, strict=True):
        annotated = predictor(photo, box=box).top(1)[0].class_name
        best = found[row.argmax()].top(1)[0].class_name if row.max(initial=0) > FOUND else None
        cars.append(Car(float(row.max(initial=0)), best == annotated, best == name, annotated == name))
    return cars, int((overlaps.max(0, initial=0) <= FOUND).sum())


def rate(count: int, total: int) -> str:
    """A fraction in percent, with its interval."""
    low, high = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return f"{count / total:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    typer.run(main)
