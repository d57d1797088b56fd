"""Fit the open-set data of a published model: thresholds for "a car" and "a known car", class means, confusions.

    twincar fit-open-set --model models/twincar --data data/ --not-cars photos/

The network itself is not trained. Class means are computed from its features of the training pictures; the log-odds of
"a car" are fitted on the same pictures against photos without cars, the boxes that the detector finds in these and
random parts of them, because `decision.decide` judges every box of the detector by a pass over this part of the photo.
The threshold of "a known car" and the confusions come from the validation pictures, which nothing else is fitted on;
that of "a car" from photos without cars that are left out of the fit in turn.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from twincar.features.backgrounds import load_backgrounds
from twincar.features.copy_paste import ASPECT, ASPECT_SPREAD
from twincar.features.transforms import squash
from twincar.modeling.detection.boxes import Box, to_pixels, with_margin
from twincar.modeling.evaluation.evaluate import labelled_answers
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.open_set import scores
from twincar.modeling.open_set.open_set import OpenSet, Threshold, car_features, energy
from twincar.modeling.publishing.scenes import train_and_val

FALSE_ALARMS = 0.05  # fraction of known cars that each threshold may reject
ACCEPTED = 0.03  # fraction of photos without cars that may count as photos of a car, where FALSE_ALARMS allows it
PARTS = 12  # random parts of each photo without cars
MIN_PART, MAX_PART = 0.06, 0.8  # area of such a part, as a fraction of the photo
FOLDS = 4
REGULARIZATION = 0.1  # of the log-odds of "a car", scikit-learn's C


def fit_open_set(
    predictor: Predictor,
    table: pd.DataFrame,
    not_cars: str | Path,
    *,
    seed: int = 0,
    progress: bool = True,
) -> tuple[OpenSet, dict]:
    """Fit the open-set data of the predictor's network, and evaluate it.

    Args:
        predictor: A published model.
        table: A prepared table with train and val pictures of its classes.
        not_cars: A folder of photos without cars.
        seed: Random seed.
        progress: Whether to show progress bars.

    Returns:
        The open-set data, and its scores: for `not_a_car` and `left_out_class` one row per OOD score of `scores.py`,
        the best first, with the AUROC and the false positive rate at 95 % true positives against the validation
        pictures. The log-odds of "a car" are scored as `decide` uses them: for each photo without cars the highest
        score of the photo and of the boxes that the detector finds in it, by 4-fold cross-validation.
        `cars_rejected` is the fraction of the validation pictures, `not_cars_accepted` that of those photos, which the
        threshold of "a car" gets wrong.

    Raises:
        TwinCarError: There are too few photos without cars, or no train or val pictures.
    """
    backgrounds = load_backgrounds(not_cars)
    train, val = train_and_val(table)

    means, cars = _training(predictor, train, progress)
    empty, logits, pooled = _read_empty(predictor, backgrounds, seed, progress)
    weight, bias = _fit_car_score(cars, empty.cars)

    val_cars, val_pooled, val_logits, val_labels = _validation(predictor, val, progress)
    temperature = predictor.calibration.temperature
    photo_scores, val_scores = _cross_validated(cars, empty, val_cars)
    is_car = min(np.quantile(photo_scores, 1 - ACCEPTED), np.quantile(val_scores, FALSE_ALARMS))
    is_known = energy(val_logits, temperature).numpy()
    open_set = OpenSet(
        torch.from_numpy(weight),
        bias,
        means,
        multiclass_confusion_matrix(val_logits, val_labels, len(predictor.class_names)),
        _threshold(float(is_car), val_cars @ weight + bias),
        _threshold(float(np.quantile(is_known, FALSE_ALARMS)), is_known),
    )
    rows = [{"score": "log-odds of a car", **scores.separation(val_scores, photo_scores)}]
    sides = ((val_logits / temperature, val_pooled), (logits / temperature, pooled))
    for name, score in scores.SCORES.items():
        known, others = (score(logits, pooled, means).numpy() for logits, pooled in sides)
        rows.append({"score": name, **scores.separation(known, others)})
    return open_set, {
        "not_cars": len(backgrounds),
        "val_pictures": len(val_labels),
        "false_alarms": FALSE_ALARMS,
        "cars_rejected": open_set.is_car.false_alarms,
        "not_cars_accepted": round(float((photo_scores >= open_set.is_car.value).mean()), 4),
        "not_a_car": sorted(rows, key=lambda row: -row["auroc"]),
        "left_out_class": scores.left_out_classes(val_logits / temperature, val_pooled, means, val_labels),
    }


def _training(predictor: Predictor, rows: pd.DataFrame, progress: bool) -> tuple[Tensor, np.ndarray]:
    """Return the (K, C) mean features of the classes, and the (N, C) `car_features` of the rows' pictures."""
    classes = len(predictor.class_names)
    total, count, cars = torch.zeros(classes, predictor.network.width), torch.zeros(classes), []
    for label, answer in labelled_answers(predictor, rows, "Reading training pictures", progress):
        total[label] += answer.features.float().cpu().mean((1, 2))
        count[label] += 1
        cars.append(car_features(answer.features))
    return total / count.clamp(min=1)[:, None], torch.stack(cars).numpy()


class _Empty(NamedTuple):
    """Parts of photos without cars.

    Attributes:
        cars: (N, C) their `car_features`.
        photo: (N,) index of the photo.
        judged: (N,) whether a Predictor judges the part: the whole photo, and the boxes of the detector.
    """

    cars: np.ndarray
    photo: np.ndarray
    judged: np.ndarray


def _read_empty(
    predictor: Predictor, backgrounds: list[np.ndarray], seed: int, progress: bool
) -> tuple[_Empty, Tensor, Tensor]:
    """Read photos without cars; also returns the (P, K) logits and (P, C) mean features of the whole photos."""
    rng = np.random.default_rng(seed)
    rows, cars, logits, pooled = [], [], [], []
    for place, background in enumerate(track(backgrounds, "Reading photos without cars", disable=not progress)):
        photo = Image.fromarray(background)
        output, whole_logits = predictor.run([squash(photo, predictor.size)])
        boxes = [with_margin(box) for box in predictor.detect(output)[0]]
        parts = [_random_part(photo.size, rng) for _ in range(PARTS)]
        again, _ = predictor.run(
            [squash(photo.crop(to_pixels(part, photo.size)), predictor.size) for part in boxes + parts]
        )
        cars.append(car_features(torch.cat([output.features, again.features])))
        rows += [(place, True)] * (1 + len(boxes)) + [(place, False)] * PARTS
        logits.append(whole_logits.cpu())
        pooled.append(output.features.float().cpu().mean((2, 3)))
    photos, judged = (np.array(column) for column in zip(*rows, strict=True))
    return _Empty(torch.cat(cars).numpy(), photos, judged), torch.cat(logits), torch.cat(pooled)


def _random_part(size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A part of a photo of this size, with the proportions of a car's box."""
    aspect = ASPECT * np.exp(rng.normal(0, ASPECT_SPREAD)) * size[1] / size[0]
    height = min(np.sqrt(rng.uniform(MIN_PART, MAX_PART) / aspect), 1)
    width = min(height * aspect, 1)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return float(x), float(y), float(x + width), float(y + height)


def _validation(predictor: Predictor, rows: pd.DataFrame, progress: bool) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """Return (N, C) `car_features` and means of the features, (N, K) logits and (N,) labels of the rows' pictures."""
    cars, pooled, logits, found = [], [], [], []
    for label, answer in labelled_answers(predictor, rows, "Reading validation pictures", progress):
        cars.append(car_features(answer.features))
        pooled.append(answer.features.float().cpu().mean((1, 2)))
        logits.append(torch.from_numpy(answer.logits))
        found.append(label)
    return torch.stack(cars).numpy(), torch.stack(pooled), torch.stack(logits), torch.tensor(found)


def _fit_car_score(cars: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the (C,) weights and the bias of the log-odds of "a car" on (N, C) `car_features` of both kinds of pictures.

    This is a logistic regression with balanced class weights.
    """
    x, y = np.concatenate([cars, others]), np.repeat([1, 0], [len(cars), len(others)])
    regression = LogisticRegression(C=REGULARIZATION, class_weight="balanced", max_iter=500)
    scaler, line = make_pipeline(StandardScaler(), regression).fit(x, y)
    weight = (line.coef_[0] / scaler.scale_).astype(np.float32)
    return weight, float(line.intercept_[0] - scaler.mean_ @ weight)


def _cross_validated(cars: np.ndarray, empty: _Empty, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score photos without cars and validation pictures with weights that were fitted without these photos.

    Returns:
        For each photo the highest score of the parts that a Predictor judges, and the mean score of each picture.
    """
    photo_scores, val_scores = np.full(empty.photo.max() + 1, -np.inf), np.zeros(len(val))
    for k in range(FOLDS):
        out = empty.photo % FOLDS == k
        weight, bias = _fit_car_score(cars, empty.cars[~out])
        judged = out & empty.judged
        np.maximum.at(photo_scores, empty.photo[judged], empty.cars[judged] @ weight + bias)
        val_scores += (val @ weight + bias) / FOLDS
    return photo_scores, val_scores


def _threshold(value: float, val: np.ndarray) -> Threshold:
    return Threshold(round(value, 4), round(float((val < value).mean()), 4))
