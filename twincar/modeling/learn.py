"""A published model + its data + photos without cars -> what it knows beside its classes (`knowledge.py`).

    twincar learn --model models/twincar --data data/ --not-cars photos/

The network is not trained any further: everything is learnt from its features. Pictures of the training split show what
cars look like; the photos without cars what else there is, and serve as surroundings to find a car in. The thresholds
are set on the validation pictures, none of which was learnt from.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from twincar.compose import ASPECT, ASPECT_SPREAD, INSET, Car, compose
from twincar.config import PICTURES, TwinCarError
from twincar.modeling import doubt, locate
from twincar.modeling.evaluate import boxed
from twincar.modeling.knowledge import Knowledge, Threshold, familiarity
from twincar.modeling.predict import Predictor
from twincar.modeling.prediction import Prediction
from twincar.photo import PhotoError, load_photo

FALSE_ALARMS = 0.05  # share of known cars that may be called unknown, or no car
FEWEST = 20  # photos without cars
SHOWN = 0.15  # share of a composed picture that a car takes before it counts as one of a car
FOLDS = 4
LARGE = 640  # pixels; photos without cars need be no larger


def learn(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    composed: int = 2400,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Knowledge, dict]:
    """Learn the Knowledge of `predictor`'s network, and measure it.

    table : what `load_table` gave, with train and val pictures of the predictor's classes.
    not_cars : a folder of photos with no car in them.
    composed : how many pictures to lay cars on them for.

    Returns the Knowledge and its figures: for "not a car" and "not a car I know" the scores of `doubt.py`, the best
    first, each with its AUROC and false positives at 95 % true positives, against the validation pictures. What was
    learnt from photos without cars is measured on others of them (four folds).

    Raises TwinCarError when there are too few photos without cars, or no train or val pictures.
    """
    chance = np.random.default_rng(seed)
    grounds = _photos(Path(not_cars))
    labels = {name: label for label, name in enumerate(predictor.class_names)}
    train, val = (table[table["split"] == split] for split in ("train", "val"))
    if train.empty or val.empty:
        raise TwinCarError("The table needs train and val pictures to learn from: `twincar prepare` makes them.")

    means = _class_means(predictor, train, labels, progress)
    ground = chance.integers(len(grounds), size=composed)
    drawn = train.sample(composed, replace=composed > len(train), random_state=seed)
    pairs = [
        compose(_car(row, chance), grounds[which], predictor.size, chance)
        for row, which in zip(drawn.itertuples(), track(ground, "Composing", disable=not progress), strict=True)
    ]
    boxes = np.stack([box for _, box in pairs])
    features, _ = _read(predictor, [picture for picture, _ in pairs], progress)
    locator = locate.fit(features, boxes, seed=seed)

    peaks = features.float().amax((2, 3)).numpy()
    shown = np.array([locate.area(tuple(box)) for box in boxes]) > SHOWN
    squashed = [cv2.resize(ground, (predictor.size,) * 2, interpolation=cv2.INTER_AREA) for ground in grounds]
    empty, empty_logits = _read(predictor, squashed)
    empty_peaks = empty.float().amax((2, 3)).numpy()
    weight, bias = _separate(peaks[shown], empty_peaks)

    val_peaks, val_pooled, val_logits, known = _validation(predictor, val, labels, progress)
    temperature = predictor.calibration.temperature
    knowledge = Knowledge(
        torch.from_numpy(weight),
        bias,
        means,
        multiclass_confusion_matrix(val_logits, known, len(labels)),
        locator,
        _threshold(val_peaks @ weight + bias),
        _threshold(familiarity(val_logits, temperature).numpy()),
    )
    rows = [{"score": "features' maxima", **_cross_validated(peaks[shown], ground[shown], empty_peaks, val_peaks)}]
    sides = ((val_logits / temperature, val_pooled), (empty_logits / temperature, empty.float().mean((2, 3))))
    for name, score in doubt.SCORES.items():
        cars, others = (score(logits, pooled, means).numpy() for logits, pooled in sides)
        rows.append({"score": name, **doubt.separation(cars, others)})
    return knowledge, {
        "not_cars": len(grounds),
        "composed": composed,
        "val_pictures": len(known),
        "false_alarms": FALSE_ALARMS,
        "not_a_car": sorted(rows, key=lambda row: -row["auroc"]),
        "left_out_class": doubt.left_out_classes(val_logits / temperature, val_pooled, means, known),
    }


def _photos(folder: Path) -> list[np.ndarray]:
    photos = []
    for file in sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES):
        try:
            photo = load_photo(file)
        except PhotoError:
            continue
        photo.thumbnail((LARGE, LARGE))
        photos.append(np.asarray(photo))
    if len(photos) < FEWEST:
        raise TwinCarError(f"{folder} holds {len(photos)} photos: give {FEWEST} or more in which there is no car.")
    return photos


def _car(row, chance: np.random.Generator) -> Car:
    """A row's car: with its box where the table has one, else cut to it long ago, and squashed by nobody knows what."""
    box = (row.x1, row.y1, row.x2, row.y2)
    if np.isnan(box[0]):
        aspect = ASPECT * np.exp(chance.normal(0, ASPECT_SPREAD))
        return Car(np.asarray(load_photo(row.path)), INSET * 2, float(aspect))
    x1, y1, x2, y2 = (int(value) for value in box)
    picture = np.asarray(load_photo(row.path, box))
    height, width = picture.shape[:2]
    x, y = max(width - (x2 - x1), 0) / 2 / width, max(height - (y2 - y1), 0) / 2 / height
    return Car(picture, (x, y, x, y), (x2 - x1) / (y2 - y1))


def _read(
    predictor: Predictor, pictures: Sequence[np.ndarray], progress: bool = False, step: int = 16
) -> tuple[Tensor, Tensor]:
    """(N, C, h, w) features in half precision, and (N, K) logits, of pictures of the network's size."""
    found = []
    for start in track(range(0, len(pictures), step), "Reading what was composed", disable=not progress):
        seen, logits = predictor.run(pictures[start : start + step])
        found.append((seen.features.half().cpu(), logits.cpu()))
    return torch.cat([features for features, _ in found]), torch.cat([logits for _, logits in found])


def _answers(
    predictor: Predictor, rows: pd.DataFrame, labels: dict, words: str, progress: bool
) -> Iterator[tuple[int, Prediction]]:
    """(label, answer) of every one of the rows' pictures that can be read, from one look each."""
    answers = track(predictor.stream(boxed(rows), closer=False), words, total=len(rows), disable=not progress)
    for name, answer in zip(rows["class_name"], answers, strict=True):
        if not isinstance(answer, PhotoError):
            yield labels[name], answer


def _class_means(predictor: Predictor, rows: pd.DataFrame, labels: dict, progress: bool) -> Tensor:
    total, count = torch.zeros(len(labels), predictor.network.width), torch.zeros(len(labels))
    for label, answer in _answers(predictor, rows, labels, "Reading training pictures", progress):
        total[label] += answer.features.float().mean((1, 2)).cpu()
        count[label] += 1
    return total / count.clamp(min=1)[:, None]


def _validation(predictor: Predictor, rows: pd.DataFrame, labels: dict, progress: bool):
    """(N, C) maxima and means of the features, (N, K) logits and (N,) labels of the rows' pictures."""
    peaks, pooled, logits, known = [], [], [], []
    for label, answer in _answers(predictor, rows, labels, "Reading validation pictures", progress):
        features = answer.features.float().cpu()
        peaks.append(features.amax((1, 2)))
        pooled.append(features.mean((1, 2)))
        logits.append(torch.from_numpy(answer.logits))
        known.append(label)
    return torch.stack(peaks).numpy(), torch.stack(pooled), torch.stack(logits), torch.tensor(known)


def _separate(cars: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (C,) and bias of the log-odds of "a car" in the features' maxima: logistic regression, in which both
    sides count alike, however many they are. A maximum keeps what is seen at one place; a mean would drown it."""
    x, y = np.concatenate([cars, others]), np.repeat([1, 0], [len(cars), len(others)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500)).fit(x, y)
    scaler, line = model[0], model[1]
    weight = (line.coef_[0] / scaler.scale_).astype(np.float32)
    return weight, float(line.intercept_[0] - scaler.mean_ @ weight)


def _cross_validated(cars: np.ndarray, ground: np.ndarray, others: np.ndarray, val: np.ndarray) -> dict[str, float]:
    """How well validation pictures and photos without cars are told apart, when neither these nor pictures composed on
    them were learnt from."""
    other_scores, val_scores = np.zeros(len(others)), np.zeros(len(val))
    fold = np.arange(len(others)) % FOLDS
    for this in range(FOLDS):
        weight, bias = _separate(cars[fold[ground] != this], others[fold != this])
        other_scores[fold == this] = others[fold == this] @ weight + bias
        val_scores += (val @ weight + bias) / FOLDS
    return doubt.separation(val_scores, other_scores)


def _threshold(scores: np.ndarray) -> Threshold:
    return Threshold(round(float(np.quantile(scores, FALSE_ALARMS)), 4), FALSE_ALARMS)
