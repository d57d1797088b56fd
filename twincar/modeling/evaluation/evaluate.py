"""Evaluate a published model on a split of a dataset: scores, predictions and per-class metrics.

On the command line: `twincar evaluate --model models/twincar --data data/ --split val`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torchmetrics import functional as M

from twincar.config import TwinCarError
from twincar.features.photo import Photo, PhotoError, load_photo
from twincar.files import write_csv, write_json
from twincar.modeling.evaluation.metrics import bootstrap_intervals, metrics
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.inference.predictor import Predictor


@dataclass(frozen=True)
class Evaluation:
    """Results of `evaluate` and `score`. Only labelled pictures count, except in `predictions` and `unreadable`.

    Attributes:
        scores: The values of `metrics`, `<metric>_interval` for some, `pictures` and `split`; empty without labels.
        per_class: One row per class: class_name, precision, recall, f1, support.
        probabilities: (N, K) calibrated probabilities, in the order of `predictions`.
        logits: (N, K) logits before calibration.
        labels: (N,) true labels.
        predictions: One row per picture: path, class_name, predicted, probability, correct, and the rank of the true
            class, from 1. Without a label, class_name, correct and rank are None.
        unreadable: (path, reason) of pictures that could not be read. They do not count in any score.
    """

    scores: dict
    per_class: pd.DataFrame
    probabilities: np.ndarray
    logits: np.ndarray
    labels: Tensor
    predictions: pd.DataFrame
    unreadable: list[tuple[str, str]]

    def save(self, folder: str | Path) -> None:
        """Write scores.json, predictions.csv and per_class.csv into a folder."""
        folder = Path(folder)
        write_json(self.scores, folder / "scores.json")
        write_csv(
            self.predictions.assign(path=[Path(path).name for path in self.predictions["path"]]),
            folder / "predictions.csv",
        )
        write_csv(self.per_class, folder / "per_class.csv")


def evaluate(predictor: Predictor, table: pd.DataFrame, split: str, *, progress: bool = True) -> Evaluation:
    """Evaluate a predictor on all pictures of a split, cropped to their boxes where the table has them.

    Args:
        predictor: A published model.
        table: A prepared table.
        split: "train", "val", "test" or "holdout".
        progress: Whether to show a progress bar.

    Raises:
        TwinCarError: The split is empty, none of its pictures can be read, or it has a class that the model lacks.
    """
    rows = table[table["split"] == split]
    if rows.empty:
        raise TwinCarError(f"The table has no {split} pictures: it has {sorted(table['split'].unique())}.")
    result = score(predictor, rows["path"], rows["class_name"], load_crops(rows), refine=False, progress=progress)
    if result.predictions.empty:
        raise TwinCarError(
            f"None of the {len(rows)} {split} pictures can be read. The first one: {result.unreadable[0][1]}"
        )
    return replace(result, scores={"split": split, **result.scores})


def score(
    predictor: Predictor,
    paths: Sequence[str | Path],
    classes: Sequence[str | None],
    photos: Iterable[Photo | PhotoError] | None = None,
    *,
    refine: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a predictor on photos; those with a class count in the scores.

    Args:
        predictor: A published model.
        paths: Path or name of each photo.
        classes: Class name of each photo, or None.
        photos: The photos themselves, or why one cannot be read; by default they are read from `paths`.
        refine: Whether to find the car and make a second pass on it; False for photos cropped to the car.
        progress: Whether to show a progress bar.

    Raises:
        TwinCarError: One of `classes` is not a class of the model.
    """
    label_of = {name: label for label, name in enumerate(predictor.class_names)}
    if unknown := sorted({name for name in classes if name is not None} - label_of.keys()):
        count = f"{len(unknown)} classes" if len(unknown) > 1 else "1 class"
        raise TwinCarError(f"The model lacks {count} of this data, such as {unknown[0]!r}.")
    rows, probabilities, logits, labels, unreadable = [], [], [], [], []
    stream = predictor.stream(paths if photos is None else photos, refine=refine)
    answers = track(stream, "Evaluating", total=len(paths), disable=not progress)
    for path, name, answer in zip(paths, classes, answers, strict=True):
        if isinstance(answer, PhotoError):
            unreadable.append((str(path), str(answer)))
            continue
        p = torch.from_numpy(answer.probabilities)
        row: dict[str, Any] = {"path": str(path), "class_name": name, "predicted": predictor.class_names[p.argmax()]}
        row |= {"probability": float(p.max()), "correct": None, "rank": None}
        if name is not None:
            label = label_of[name]
            row |= {"correct": row["predicted"] == name, "rank": int(p.gt(p[label]).sum()) + 1}
            probabilities.append(p)
            logits.append(answer.logits)
            labels.append(label)
        rows.append(row)
    columns = ["path", "class_name", "predicted", "probability", "correct", "rank"]
    p = torch.stack(probabilities) if labels else torch.zeros(0, len(label_of))
    z = np.stack(logits) if labels else np.zeros((0, len(label_of)), np.float32)
    truth = torch.tensor(labels, dtype=torch.long)
    scores: dict = {}
    if labels:
        scores = {"pictures": len(labels), **metrics(p, truth)}
        scores |= {f"{name}_interval": list(interval) for name, interval in bootstrap_intervals(p, truth).items()}
    predictions = pd.DataFrame(rows, columns=columns).astype({"rank": "Int64"})
    return Evaluation(scores, _per_class(predictor.class_names, p, truth), p.numpy(), z, truth, predictions, unreadable)


def _per_class(names: Sequence[str], p: Tensor, labels: Tensor) -> pd.DataFrame:
    guess = p.argmax(1)
    kind: dict[str, Any] = {"task": "multiclass", "num_classes": p.shape[1], "average": "none"}
    scores = {"precision": M.precision, "recall": M.recall, "f1": M.f1_score}
    none = torch.zeros(p.shape[1])  # torchmetrics fails on empty tensors
    values = {name: (metric(guess, labels, **kind) if len(labels) else none) for name, metric in scores.items()}
    table = {"class_name": names} | {name: value.numpy() for name, value in values.items()}
    return pd.DataFrame(table | {"support": torch.bincount(labels, minlength=p.shape[1]).numpy()})


def labelled_answers(
    predictor: Predictor, rows: pd.DataFrame, text: str, progress: bool = True
) -> Iterator[tuple[int, Prediction]]:
    """Yield (label, prediction) of every readable picture of the rows, cropped to its box, from one pass each.

    Args:
        predictor: A model that has the classes of the rows.
        rows: Rows of a prepared table.
        text: What the progress bar says.
        progress: Whether to show it.
    """
    label_of = {name: label for label, name in enumerate(predictor.class_names)}
    answers = track(predictor.stream(load_crops(rows), refine=False), text, total=len(rows), disable=not progress)
    for name, answer in zip(rows["class_name"], answers, strict=True):
        if not isinstance(answer, PhotoError):
            yield label_of[name], answer


def load_crops(rows: pd.DataFrame) -> Iterator[Image.Image | PhotoError]:
    """Yield the pictures of the rows, cropped to their boxes, or the PhotoError of one that cannot be read."""
    for row in rows.itertuples():
        try:
            yield load_photo(row.path, (row.x1, row.y1, row.x2, row.y2))
        except PhotoError as error:
            yield error
