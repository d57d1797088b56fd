"""A published model and a table -> its scores, its predictions, its figures class by class.

twincar evaluate --model models/twincar --data data/ --split val
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor
from torchmetrics import functional as M

from twincar.config import TwinCarError
from twincar.features.photo import Photo, PhotoError, load_photo
from twincar.files import write_csv, write_json
from twincar.modeling.evaluation.metrics import bootstrap_intervals, metrics
from twincar.modeling.inference.predictor import Predictor


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` and `score` found. The first four are about labelled pictures alone.

    scores : the figures of `metrics`, `<figure>_interval` for some, `pictures` and `split`; {} without labels.
    per_class : a row a class: class_name, precision, recall, f1, support.
    probabilities, logits, labels : (N, K) floats, the same before calibration, and (N,) right labels, in the order of
        `predictions`.
    predictions : a row a picture: path, class_name, predicted, probability, correct, rank of the right class from 1;
        where no class is known, class_name, correct and rank are None.
    unreadable : (path, reason) of pictures that could not be read; they are in no figure.
    """

    scores: dict
    per_class: pd.DataFrame
    probabilities: np.ndarray
    logits: np.ndarray
    labels: Tensor
    predictions: pd.DataFrame
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


def evaluate(predictor: Predictor, table: pd.DataFrame, split: str, *, progress: bool = True) -> Evaluation:
    """Ask `predictor` about every picture of a split, cut to its box where the table has one, and count.

    Raises TwinCarError when the split is empty, holds a class that the model does not know, or cannot be read at all.
    """
    rows = table[table["split"] == split]
    if rows.empty:
        raise TwinCarError(f"The table has no {split} pictures: it has {sorted(table['split'].unique())}.")
    result = score(predictor, rows["path"], rows["class_name"], boxed(rows), refine=False, progress=progress)
    if result.predictions.empty:
        raise TwinCarError(
            f"None of the {len(rows)} {split} pictures can be read; the first: {result.unreadable[0][1]}"
        )
    return replace(result, scores={"split": split, **result.scores})


def score(
    predictor: Predictor,
    paths: Sequence[str | Path],
    classes: Sequence[str | None],
    photos: Iterable[Photo] | None = None,
    *,
    refine: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Ask `predictor` about photos, and count those whose class is known.

    paths, classes : what each photo is called, and the name of its class, or None.
    photos : the photos themselves; by default what lies at `paths`.
    closer : whether the predictor looks for the car in them; not, where they are cut to it.
    Raises TwinCarError for a class that the model does not know.
    """
    label_of = {name: label for label, name in enumerate(predictor.class_names)}
    if strange := sorted(set(classes) - label_of.keys() - {None}):
        words = f"{len(strange)} classes" if len(strange) > 1 else "1 class"
        raise TwinCarError(f"The model does not know {words} of this data, such as {strange[0]!r}.")
    rows, probabilities, logits, labels, unreadable = [], [], [], [], []
    answers = predictor.stream(paths if photos is None else photos, refine=refine)
    answers = track(answers, "Evaluating", total=len(paths), disable=not progress)
    for path, name, answer in zip(paths, classes, answers, strict=True):
        if isinstance(answer, PhotoError):
            unreadable.append((str(path), str(answer)))
            continue
        p = torch.from_numpy(answer.probabilities)
        row = {"path": str(path), "class_name": name, "predicted": predictor.class_names[p.argmax()]}
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
    kind = {"task": "multiclass", "num_classes": p.shape[1], "average": "none"}
    scores = {"precision": M.precision, "recall": M.recall, "f1": M.f1_score}
    none = torch.zeros(p.shape[1])  # torchmetrics cannot count over nothing
    counted = {name: (metric(guess, labels, **kind) if len(labels) else none) for name, metric in scores.items()}
    table = {"class_name": names} | {name: values.numpy() for name, values in counted.items()}
    return pd.DataFrame(table | {"support": torch.bincount(labels, minlength=p.shape[1]).numpy()})


def boxed(rows: pd.DataFrame):
    """The rows' pictures, cut to their boxes, or why one cannot be read."""
    for row in rows.itertuples():
        try:
            yield load_photo(row.path, (row.x1, row.y1, row.x2, row.y2))
        except PhotoError as error:
            yield error
