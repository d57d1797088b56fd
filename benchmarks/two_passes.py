"""Accuracy and time of one and of two passes over whole photos.

    python -m benchmarks.two_passes models/twincar --data data_full --out reports/two_passes.md

`data_full` is the output of `twincar prepare` for whole photos with boxes, none of them used for training. Each is
predicted from the whole photo (one pass), from the box that the detector finds (two passes) and from the annotated box.
Predictions are those of torch in single precision, the same on every machine; times are those of the default engine.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from scipy.stats import binomtest

from benchmarks.common import write_report
from twincar import Predictor
from twincar.data.listing import BOX
from twincar.data.table import load_table
from twincar.features.photo import load_photo
from twincar.modeling.detection.boxes import iou, to_fractions
from twincar.modeling.inference.predictor import REFERENCE

ROUNDS = 3  # of the timing


def main(
    model: Annotated[Path, typer.Argument(help="Model folder with a detector.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote for whole photos with boxes.")],
    out: Annotated[
        Path | None, typer.Option(help="Markdown file to write, with a CSV for the page next to it.")
    ] = None,
) -> None:
    """Compare predictions from the whole photo, the found box and the annotated box."""
    exact, fast = Predictor.from_pretrained(model, device="cpu", engine=REFERENCE), Predictor.from_pretrained(model)
    table = load_table(data).dropna(subset=BOX)
    photos = [load_photo(path) for path in table["path"]]
    boxes = [tuple(int(value) for value in row) for row in table[BOX].to_numpy()]
    whole, found, annotated = "whole photo, one pass", "found box, two passes", "annotated box"
    sources = {
        whole: lambda predictor, row: predictor(photos[row], refine=False),
        found: lambda predictor, row: predictor(photos[row]),
        annotated: lambda predictor, row: predictor(photos[row], box=boxes[row]),
    }
    right: dict[str, list[bool]] = {source: [] for source in sources}
    seconds: dict[str, list[float]] = {source: [] for source in sources}
    answers = []
    for row, name in enumerate(table["class_name"]):
        for source, predict in sources.items():
            answer = predict(exact, row)
            right[source].append(answer.top(1)[0].class_name == name)
            if source == found:
                answers.append(answer)
    for _ in range(ROUNDS):
        for row in range(len(photos)):
            for source, predict in sources.items():
                start = time.perf_counter()
                predict(fast, row)
                seconds[source].append(time.perf_counter() - start)
    lines = [
        f"{len(photos)} whole photos, each predicted three times by `{model}`.",
        "",
        f"| predicted from | top-1 ({exact.engine.name}) | 95 % interval (Wilson) | median time ({fast.engine.name}) |",
        "| --- | --- | --- | --- |",
    ]
    figures = []
    for source in sources:
        correct = sum(right[source])
        low, high = binomtest(correct, len(photos)).proportion_ci(0.95, method="wilson")
        figures.append({"predicted_from": source, "photos": len(photos), "correct": correct, "low": low, "high": high})
        median = 1000 * statistics.median(seconds[source])
        lines.append(f"| {source} | {np.mean(right[source]):.1%} | {low:.1%} to {high:.1%} | {median:.1f} ms |")
    ious = [_iou(answer.box, truth, photo.size) for answer, truth, photo in zip(answers, boxes, photos, strict=True)]
    frame = [_iou((0, 0, *photo.size), truth, photo.size) for photo, truth in zip(photos, boxes, strict=True)]
    ratio = statistics.median(seconds[found]) / statistics.median(seconds[whole])
    lines += [
        "",
        f"- IoU of found and annotated boxes: mean {np.mean(ious):.3f}, 10th percentile {np.quantile(ious, 0.1):.2f}; "
        f"of whole photos and annotated boxes: mean {np.mean(frame):.3f}.",
        f"- Found box against whole photo: {_gained(right[whole], right[found])} photos are correct only with the "
        f"found box, {_gained(right[found], right[whole])} only with the whole photo. Found box against annotated box: "
        f"{_gained(right[annotated], right[found])} only with the found box, "
        f"{_gained(right[found], right[annotated])} only with the annotated box.",
        f"- {np.mean([answer.refined for answer in answers]):.0%} of the photos needed the second pass; the median "
        f"prediction took {ratio:.2f} times as long as one pass.",
        f"- Rejected as a photo without a car: {sum(not answer.is_car for answer in answers)}; as an unknown class: "
        f"{sum(not answer.is_known for answer in answers)}.",
    ]
    print("\n".join(lines))
    if out:
        write_report(out, "One and two passes over whole photos", "two_passes", lines, pd.DataFrame(figures))


def _iou(box, truth, size) -> float:
    return iou(to_fractions(box, size), to_fractions(truth, size)) if box else 0.0


def _gained(before: list[bool], after: list[bool]) -> int:
    """Count the photos that are wrong in `before` and correct in `after`."""
    return sum(a and not b for b, a in zip(before, after, strict=True))


if __name__ == "__main__":
    typer.run(main)
