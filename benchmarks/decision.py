"""Which pass decides whether the model knows a car, and how often photos with and without cars are taken for the other.

    python -m benchmarks.decision models/twincar --data data_full --not-cars no_cars --out reports/decision.md

`data_full` is the output of `twincar prepare` for whole photos with boxes, none of them used for training. Pairs of
them are also set side by side. Unknown cars are those of classes that are removed from the head, half of them in each
of 40 draws; the network was trained on them, so cars that it was not trained on may be harder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor

from benchmarks.common import table, write_report
from twincar import Predictor
from twincar.data.listing import BOX
from twincar.data.table import load_table
from twincar.features.photo import load_photo
from twincar.features.transforms import squash
from twincar.files import pictures_below
from twincar.modeling.detection.boxes import Box, iou, to_fractions, to_pixels, with_margin
from twincar.modeling.inference.predictor import REFERENCE
from twincar.modeling.open_set.open_set import energy
from twincar.modeling.open_set.scores import separation

DRAWS = 40
HEIGHT = 600  # pixels of photos that are set side by side
SAME = 0.5  # IoU from which on a found box is the annotated one
Scene = tuple[Image.Image, list[Box], list[int]]  # a photo, the boxes of its cars, their classes

RULES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {  # of the logits of the photo and of the car
    "the car's own pass": lambda photo, car, t: energy(car, t),
    "maximum of photo and car": lambda photo, car, t: torch.maximum(energy(photo, t), energy(car, t)),
    "mean logits, 1/3 photo and 2/3 car": lambda photo, car, t: energy((photo + 2 * car) / 3, t),
    "the whole photo": lambda photo, car, t: energy(photo, t),
}


def main(
    model: Annotated[Path, typer.Argument(help="Model folder with a detector and open-set data.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote for whole photos with boxes.")],
    not_cars: Annotated[Path, typer.Option(help="Folder of photos without cars.")],
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Compare rules for known classes, and count wrong decisions about photos with and without cars."""
    predictor = Predictor.from_pretrained(model, device="cpu", engine=REFERENCE)
    rows = load_table(data).dropna(subset=BOX)
    labels = {name: label for label, name in enumerate(predictor.class_names)}
    scenes: list[Scene] = []
    for path, name, box in zip(rows["path"], rows["class_name"], rows[BOX].to_numpy(int), strict=True):
        photo = load_photo(path)
        scenes.append((photo, [to_fractions(tuple(map(int, box)), photo.size)], [labels[name]]))
    order = np.random.default_rng(0).permutation(len(scenes))
    pairs = [beside([scenes[a], scenes[b]]) for a, b in zip(order[::2], order[1::2], strict=False)]

    lines = [f"{len(scenes)} whole photos and {len(pairs)} pairs of them, engine {predictor.engine.name}.", ""]
    lines += ["## Known or unknown class", "", "Energy of the logits; means over the draws.", ""]
    columns = ["pictures, and boxes read", "rule", "AUROC", "unknown accepted at 95 % of known", "top-1"]
    known = []
    for name, group in (("whole photos", scenes), ("pairs", pairs)):
        for boxes in ("annotated", "found"):
            known += [[f"{name}, {boxes}", *row] for row in compare(predictor, group, boxes == "found")]
    lines += [table(columns, known), "", "## Car or no car", ""]
    empty = list(pictures_below(not_cars))
    counted = []
    for name, photos in (
        ("whole photos", [scene[0] for scene in scenes]),
        ("pairs", [pair[0] for pair in pairs]),
        ("photos without cars", empty),
    ):
        answers = predictor.batch(photos)
        counts = [
            sum(not answer.cars for answer in answers),
            sum(bool(answer.box) for answer in answers),
            sum(answer.state == "unknown_car" for answer in answers),
        ]
        counted.append([name, len(answers), *(share(count, len(answers)) for count in counts)])
    lines.append(table(["photos", "number", "no car", "with a frame", "largest car unknown"], counted))
    print("\n".join(lines))
    if out:
        write_report(out, "The decision about a photo", "decision", lines)


def beside(scenes: list[Scene]) -> Scene:
    """Set photos side by side, at one height."""
    widths = [round(photo.width * HEIGHT / photo.height) for photo, _, _ in scenes]
    canvas, boxes, labels, x = Image.new("RGB", (sum(widths), HEIGHT)), [], [], 0
    for (photo, cars, names), width in zip(scenes, widths, strict=True):
        canvas.paste(photo.resize((width, HEIGHT)), (x, 0))
        boxes += [((x + x1 * width) / canvas.width, y1, (x + x2 * width) / canvas.width, y2) for x1, y1, x2, y2 in cars]
        labels += names
        x += width
    return canvas, boxes, labels


def compare(predictor: Predictor, scenes: list[Scene], found: bool) -> list[list[str]]:
    """Compare the rules on the cars of the scenes, read from their annotated boxes or from those that are found."""
    whole, own, labels = [], [], []
    for photo, boxes, names in scenes:
        output, logits = predictor.run([squash(photo, predictor.size)])
        if found:
            candidates = predictor.detect(output)[0]
            nearest = [max(candidates, key=lambda each, box=box: iou(each, box), default=box) for box in boxes]
            kept = [
                (box, name) for box, truth, name in zip(nearest, boxes, names, strict=True) if iou(box, truth) > SAME
            ]
            boxes, names = [box for box, _ in kept], [name for _, name in kept]
        if not boxes:
            continue
        crops = [squash(photo.crop(to_pixels(with_margin(box), photo.size)), predictor.size) for box in boxes]
        own.append(predictor.run(crops)[1])
        whole.append(logits.expand(len(boxes), -1))
        labels += names
    if not labels:
        return [[rule, "no car found", "", ""] for rule in RULES]
    photo_logits, car_logits, truth = torch.cat(whole).cpu(), torch.cat(own).cpu(), torch.tensor(labels)
    rng, rows = np.random.default_rng(0), []
    draws = [torch.from_numpy(rng.permutation(len(predictor.class_names))) for _ in range(DRAWS)]
    for rule, score in RULES.items():
        scores = []
        for draw in draws:
            kept = draw[: len(draw) // 2]
            values = score(photo_logits[:, kept], car_logits[:, kept], predictor.calibration.temperature)
            known = torch.isin(truth, kept)
            scores.append(separation(values[known].numpy(), values[~known].numpy()))
        means = {key: np.mean([each[key] for each in scores]) for key in ("auroc", "fpr95")}
        named = {"the whole photo": photo_logits, "mean logits, 1/3 photo and 2/3 car": photo_logits + 2 * car_logits}
        right = (
            ""
            if rule.startswith("maximum")
            else f"{(named.get(rule, car_logits).argmax(1) == truth).float().mean():.1%}"
        )
        rows.append([rule, f"{means['auroc']:.3f}", f"{means['fpr95']:.1%}", right])
    return rows


def share(count: int, of: int) -> str:
    """A fraction in per cent, with its 95 % interval (Wilson)."""
    low, high = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return f"{count / of:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    typer.run(main)
