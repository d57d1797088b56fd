"""Fit the open-set data of a published model: thresholds for "a car" and "a known car", class means, confusions.

    twincar fit-open-set --model models/twincar --data data/ --not-cars photos/

The network itself is not trained. Class means are computed from its features of the training pictures; the log-odds of
"a car" are fitted on copy-paste scenes against photos without cars. The thresholds and the confusions come from the
validation pictures, which nothing else is fitted on.
"""

from collections.abc import Iterator
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

from twincar.features.backgrounds import load_backgrounds
from twincar.features.photo import PhotoError
from twincar.modeling.detection.boxes import area
from twincar.modeling.evaluation.evaluate import load_crops
from twincar.modeling.inference.prediction import Prediction
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.open_set import scores
from twincar.modeling.open_set.open_set import OpenSet, Threshold, energy
from twincar.modeling.publishing.scenes import make_scenes, read_pictures, train_and_val

FALSE_ALARMS = 0.05  # fraction of known cars that each threshold may reject
MIN_AREA = 0.15  # fraction of a scene that a car covers before the scene counts as a photo of a car
FOLDS = 4


def fit_open_set(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    scenes: int = 2400,
    seed: int = 0,
    progress: bool = True,
) -> tuple[OpenSet, dict]:
    """Fit the open-set data of the predictor's network, and evaluate it.

    Args:
        predictor: A published model.
        table: A prepared table with train and val pictures of its classes.
        not_cars: A folder of photos without cars.
        scenes: Number of training scenes.
        seed: Random seed.
        progress: Whether to show progress bars.

    Returns:
        The open-set data, and its scores: for `not_a_car` and `left_out_class` one row per OOD score of `scores.py`,
        the best first, with the AUROC and the false positive rate at 95 % true positives against the validation
        pictures. Photos without cars are scored by 4-fold cross-validation.

    Raises:
        TwinCarError: There are too few photos without cars, or no train or val pictures.
    """
    backgrounds = load_backgrounds(not_cars)
    labels = {name: label for label, name in enumerate(predictor.class_names)}
    train, val = train_and_val(table)

    means = _class_means(predictor, train, labels, progress)
    made = make_scenes(predictor, train, backgrounds, scenes, seed, progress)
    large = np.array([area(tuple(box)) for box in made.boxes]) > MIN_AREA
    peaks, chosen = made.features.float().amax((2, 3)).numpy()[large], made.backgrounds[large]
    squashed = [cv2.resize(photo, (predictor.size,) * 2, interpolation=cv2.INTER_AREA) for photo in backgrounds]
    empty, empty_logits = read_pictures(predictor, squashed)
    empty_peaks = empty.float().amax((2, 3)).numpy()
    weight, bias = _fit_car_score(peaks, empty_peaks)

    val_peaks, val_pooled, val_logits, val_labels = _validation(predictor, val, labels, progress)
    temperature = predictor.calibration.temperature
    open_set = OpenSet(
        torch.from_numpy(weight),
        bias,
        means,
        multiclass_confusion_matrix(val_logits, val_labels, len(labels)),
        _threshold(val_peaks @ weight + bias),
        _threshold(energy(val_logits, temperature).numpy()),
    )
    rows = [{"score": "maxima of the features", **_cross_validated(peaks, chosen, empty_peaks, val_peaks)}]
    sides = ((val_logits / temperature, val_pooled), (empty_logits / temperature, empty.float().mean((2, 3))))
    for name, score in scores.SCORES.items():
        cars, others = (score(logits, pooled, means).numpy() for logits, pooled in sides)
        rows.append({"score": name, **scores.separation(cars, others)})
    return open_set, {
        "not_cars": len(backgrounds),
        "scenes": scenes,
        "val_pictures": len(val_labels),
        "false_alarms": FALSE_ALARMS,
        "not_a_car": sorted(rows, key=lambda row: -row["auroc"]),
        "left_out_class": scores.left_out_classes(val_logits / temperature, val_pooled, means, val_labels),
    }


def _answers(
    predictor: Predictor, rows: pd.DataFrame, labels: dict, text: str, progress: bool
) -> Iterator[tuple[int, Prediction]]:
    """Yield (label, prediction) of every readable picture of the rows, from one pass each."""
    answers = track(predictor.stream(load_crops(rows), refine=False), text, total=len(rows), disable=not progress)
    for name, answer in zip(rows["class_name"], answers, strict=True):
        if not isinstance(answer, PhotoError):
            yield labels[name], answer


def _class_means(predictor: Predictor, rows: pd.DataFrame, labels: dict, progress: bool) -> Tensor:
    total, count = torch.zeros(len(labels), predictor.network.width), torch.zeros(len(labels))
    for label, answer in _answers(predictor, rows, labels, "Reading training pictures", progress):
        total[label] += answer.features.float().mean((1, 2)).cpu()
        count[label] += 1
    return total / count.clamp(min=1)[:, None]


def _validation(
    predictor: Predictor, rows: pd.DataFrame, labels: dict, progress: bool
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """Return (N, C) maxima and means of the features, (N, K) logits and (N,) labels of the rows' pictures."""
    peaks, pooled, logits, found = [], [], [], []
    for label, answer in _answers(predictor, rows, labels, "Reading validation pictures", progress):
        features = answer.features.float().cpu()
        peaks.append(features.amax((1, 2)))
        pooled.append(features.mean((1, 2)))
        logits.append(torch.from_numpy(answer.logits))
        found.append(label)
    return torch.stack(peaks).numpy(), torch.stack(pooled), torch.stack(logits), torch.tensor(found)


def _fit_car_score(cars: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the (C,) weights and the bias of the log-odds of "a car" on (N, C) feature maxima of both kinds of pictures.

    This is a logistic regression with balanced class weights. It uses maxima instead of means, because a small car
    hardly changes the mean over a large photo.
    """
    x, y = np.concatenate([cars, others]), np.repeat([1, 0], [len(cars), len(others)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=500)).fit(x, y)
    scaler, line = model[0], model[1]
    weight = (line.coef_[0] / scaler.scale_).astype(np.float32)
    return weight, float(line.intercept_[0] - scaler.mean_ @ weight)


def _cross_validated(cars: np.ndarray, chosen: np.ndarray, others: np.ndarray, val: np.ndarray) -> dict[str, float]:
    """Evaluate "a car" on validation pictures and photos without cars, by cross-validation over these photos.

    Each photo without cars is scored by a model that was fitted without it and without the scenes made from it.
    """
    other_scores, val_scores = np.zeros(len(others)), np.zeros(len(val))
    fold = np.arange(len(others)) % FOLDS
    for k in range(FOLDS):
        weight, bias = _fit_car_score(cars[fold[chosen] != k], others[fold != k])
        other_scores[fold == k] = others[fold == k] @ weight + bias
        val_scores += (val @ weight + bias) / FOLDS
    return scores.separation(val_scores, other_scores)


def _threshold(values: np.ndarray) -> Threshold:
    return Threshold(round(float(np.quantile(values, FALSE_ALARMS)), 4), FALSE_ALARMS)
