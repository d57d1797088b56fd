"""Scores a folder of photos with a published model and writes the table.

    python twin_car_testing.py photos/ --out predictions.csv
    python twin_car_testing.py photos/ --model user/repo --out predictions.csv

Photos that lie in subfolders named like classes ("BMW M3 Coupe 2012/1.jpg", "/" written as "-") are taken as labelled
and scored as well; the others are only named. A photo that cannot be read is a row with its reason.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

from twincar import PhotoError, Predictor
from twincar.cli.answering import find_photos
from twincar.cli.base import Model, sentences
from twincar.config import PUBLISHED, canonical_class_name
from twincar.files import write_beside
from twincar.modeling.metrics import metrics


def score(folder: Path, predictor: Predictor) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row a photo (file, class_name where known, predicted, probability, error), and the metrics of the labelled."""
    label_of = {canonical_class_name(name): label for label, name in enumerate(predictor.class_names)}
    files = list(find_photos([folder]))
    rows, probabilities, labels = [], [], []
    for file, answer in zip(files, predictor.stream(files), strict=True):
        label = label_of.get(canonical_class_name(file.parent.name))
        row = {
            "file": str(file.relative_to(folder)),
            "class_name": None if label is None else predictor.class_names[label],
        }
        if isinstance(answer, PhotoError):
            rows.append(row | {"error": str(answer)})
            continue
        best = answer.top(1)[0]
        rows.append(row | {"predicted": best.class_name, "probability": round(best.probability, 4)})
        if label is not None:
            probabilities.append(torch.from_numpy(answer.probabilities))
            labels.append(label)
    columns = ["file", "class_name", "predicted", "probability", "error"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    if not labels:
        return table, {}
    return table, metrics(torch.stack(probabilities), torch.tensor(labels))


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder of photos.")],
    model: Model = str(PUBLISHED),
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("predictions.csv"),
) -> None:
    """Score a folder of photos with a published model and write the table."""
    with sentences():
        table, scores = score(folder, Predictor.from_pretrained(model))
    with write_beside(out) as beside:
        table.to_csv(beside, index=False)
    print(f"{len(table)} photos, {table['error'].notna().sum()} of them unreadable: {out}")
    if scores:
        print(f"{table['class_name'].notna().sum()} labelled:")
        for name, value in scores.items():
            print(f"  {name:20} {value:.4f}")


if __name__ == "__main__":
    typer.run(main)
