"""A published model and a table -> its scores, its predictions, its figures class by class.

twincar evaluate --model models/twincar --data data/ --split val
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torchmetrics import functional as M

from twincar.config import TwinCarError
from twincar.features import crop_box
from twincar.files import write_csv, write_json
from twincar.modeling.metrics import bootstrap_intervals, metrics
from twincar.modeling.predict import Predictor
from twincar.photo import PhotoError, load_photo


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    scores : the figures of `metrics`, `<figure>_interval` for those with one, `pictures` and `split`.
    predictions : a row a picture: path, class_name, predicted, probability, correct, rank of the right class from 1.
    per_class : a row a class: class_name, precision, recall, f1, support.
    probabilities, labels : (N, K) floats and (N,) right labels, in the order of `predictions`.
    unreadable : (path, reason) of pictures that could not be read; they are in no figure.
    """

    scores: dict
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    probabilities: np.ndarray
    labels: Tensor
    unreadable: list[tuple[str, str]]

    def save(self, folder: str | Path) -> None:
        """Write scores.json, predictions.csv and per_class.csv."""
        folder = Path(folder)
        write_json(self.scores, folder / "scores.json")
        write_csv(
            self.predictions.assign(path=[Path(path).name for path in self.predictions["path"]]),
            folder / "predictions.csv",
        )
        write_csv(self.per_class, folder / "per_class.csv")


def evaluate(predictor: Predictor, table: pd.DataFrame, split: str, *, progress=True) -> Evaluation:
    """Ask `predictor` about every picture of a split, cut to its box where the table has one, and count.

    Raises TwinCarError when the split is empty, or holds a class that the model does not know.
    """
    rows = table[table["split"] == split]
    if rows.empty:
        raise TwinCarError(f"The table has no {split} pictures: it has {sorted(table['split'].unique())}.")
    label_of = {name: label for label, name in enumerate(predictor.class_names)}
    if strange := sorted(set(rows["class_name"]) - label_of.keys()):
        raise TwinCarError(f"The model does not know {len(strange)} classes of this data, such as {strange[0]!r}.")

    answers = predictor.stream(_boxed(rows))
    kept, probabilities, unreadable = [], [], []
    for row, answer in zip(
        rows.itertuples(), track(answers, "Evaluating", total=len(rows), disable=not progress), strict=True
    ):
        if isinstance(answer, PhotoError):
            unreadable.append((row.path, str(answer)))
        else:
            kept.append(row)
            probabilities.append(answer.probabilities)
    if not kept:
        raise TwinCarError(f"None of the {len(rows)} {split} pictures can be read; the first: {unreadable[0][1]}")
    p = torch.from_numpy(np.stack(probabilities))
    labels = torch.tensor([label_of[row.class_name] for row in kept])

    scores: dict = {"split": split, "pictures": len(kept), **metrics(p, labels)}
    for name, interval in bootstrap_intervals(p, labels).items():
        scores[f"{name}_interval"] = list(interval)

    guess = p.argmax(1)
    kind = {"task": "multiclass", "num_classes": p.shape[1], "average": "none"}
    per_class = pd.DataFrame(
        {
            "class_name": predictor.class_names,
            "precision": M.precision(guess, labels, **kind).numpy(),
            "recall": M.recall(guess, labels, **kind).numpy(),
            "f1": M.f1_score(guess, labels, **kind).numpy(),
            "support": torch.bincount(labels, minlength=p.shape[1]).numpy(),
        }
    )
    right = p.gather(1, labels[:, None])
    predictions = pd.DataFrame(
        {
            "path": [row.path for row in kept],
            "class_name": [row.class_name for row in kept],
            "predicted": [predictor.class_names[label] for label in guess],
            "probability": p.max(1).values.numpy(),
            "correct": guess.eq(labels).numpy(),
            "rank": (p.gt(right).sum(1) + 1).numpy(),
        }
    )
    return Evaluation(scores, predictions, per_class, p.numpy(), labels, unreadable)


def _boxed(rows: pd.DataFrame):
    """The rows' pictures, cut to their boxes; what cannot be read passes through, for the predictor to say why."""
    for row in rows.itertuples():
        try:
            photo: Image.Image | str = crop_box(load_photo(row.path), (row.x1, row.y1, row.x2, row.y2))
        except PhotoError:
            photo = row.path
        yield photo
