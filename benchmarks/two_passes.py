"""Does it find the car in a whole photo, what is that worth, and what does it cost?

    python benchmarks/two_passes.py models/twincar --data data_full --out reports/two_passes.md

`data_full` is what `twincar prepare` made of photos as they were taken, with boxes; none of them may have been learnt
from. Each is answered from the whole frame, from the box that the model finds (a second look), and from the annotated
box; and every pair of the three is held against each other photo by photo. Answers are those of torch in single
precision, the same on every machine; times are those of the engine that this machine chooses.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import binomtest

from twincar import Predictor
from twincar.data.listing import BOX
from twincar.data.table import load_table
from twincar.features.photo import load_photo
from twincar.files import atomic_write
from twincar.modeling.detection.boxes import iou, to_fractions
from twincar.modeling.inference.predictor import REFERENCE

TURNS = 3


def main(
    model: Annotated[Path, typer.Argument(help="A published model's folder, with knowledge.")],
    data: Annotated[Path, typer.Option(help="Whole photos with boxes, as `twincar prepare` left them.")],
    out: Annotated[Path | None, typer.Option(help="Also write the table there, as Markdown.")] = None,
) -> None:
    exact, fast = Predictor.from_pretrained(model, device="cpu", engine=REFERENCE), Predictor.from_pretrained(model)
    table = load_table(data).dropna(subset=BOX)
    photos = [load_photo(path) for path in table["path"]]
    boxes = [tuple(int(value) for value in row) for row in table[BOX].to_numpy()]
    ways = {
        "the whole frame": lambda predictor, row: predictor(photos[row], refine=False),
        "the box it finds": lambda predictor, row: predictor(photos[row]),
        "the annotated box": lambda predictor, row: predictor(photos[row], box=boxes[row]),
    }
    right, took, looked = {way: [] for way in ways}, {way: [] for way in ways}, []
    for row, name in enumerate(table["class_name"]):
        for way, ask in ways.items():
            answer = ask(exact, row)
            right[way].append(answer.top(1)[0].class_name == name)
            if way == "the box it finds":
                looked.append((answer.refined, answer.is_car, answer.is_known, answer.box))
    for _ in range(TURNS):
        for row in range(len(photos)):
            for way, ask in ways.items():
                start = time.perf_counter()
                ask(fast, row)
                took[way].append(time.perf_counter() - start)
    lines = [
        f"{len(photos)} whole photos, each answered three ways by `{model}`.",
        "",
        f"| answered from | right ({exact.engine.name}) | 95 % interval (Wilson) | median time ({fast.engine.name}) |",
        "| --- | --- | --- | --- |",
    ]
    for way in ways:
        low, high = binomtest(sum(right[way]), len(photos)).proportion_ci(0.95, method="wilson")
        middle = 1000 * statistics.median(took[way])
        lines.append(f"| {way} | {np.mean(right[way]):.1%} | {low:.1%} to {high:.1%} | {middle:.1f} ms |")
    found = [_iou(box, truth, photo.size) for (*_, box), truth, photo in zip(looked, boxes, photos, strict=True)]
    frame = [_iou((0, 0, *photo.size), truth, photo.size) for photo, truth in zip(photos, boxes, strict=True)]
    whole, refined, annotated = right.values()
    ratio = statistics.median(took["the box it finds"]) / statistics.median(took["the whole frame"])
    lines += [
        "",
        f"- Mean overlap (IoU) of found and annotated boxes: {np.mean(found):.3f}; a tenth lies below "
        f"{np.quantile(found, 0.1):.2f}; of the whole frame with them: {np.mean(frame):.3f}.",
        f"- Against the whole frame the found box put {_gained(whole, refined)} photos right and "
        f"{_gained(refined, whole)} wrong; against the annotated box it lost {_gained(refined, annotated)} and won "
        f"{_gained(annotated, refined)}.",
        f"- {np.mean([again for again, *_ in looked]):.0%} were looked at twice; the median answer took {ratio:.2f} "
        "times as long as one look.",
        f"- {sum(not is_car for _, is_car, *_ in looked)} were taken for photos without a car, and "
        f"{sum(not is_known for _, _, is_known, _ in looked)} for cars that it does not know.",
    ]
    print("\n".join(lines))
    if out:
        with atomic_write(out) as beside:
            title = "# The second look\n\n`python benchmarks/two_passes.py`\n\n"
            beside.write_text(title + "\n".join(lines) + "\n", encoding="utf-8")


def _iou(box, truth, size) -> float:
    return iou(to_fractions(box, size), to_fractions(truth, size)) if box else 0.0


def _gained(before: list[bool], after: list[bool]) -> int:
    return sum(a and not b for b, a in zip(before, after, strict=True))


if __name__ == "__main__":
    typer.run(main)
