"""A published model + its data + photos without cars -> what it knows beside its classes (`knowledge.py`).

    twincar learn --model models/twincar --data data/ --not-cars photos/

The network is not trained any further: everything is learnt from its features. Pictures of the training split show what
cars look like; the photos without cars what else there is, and serve as surroundings to find a car in. The thresholds
are set on the validation pictures, none of which was learnt from.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from twincar.compose import ASPECT, ASPECT_SPREAD, INSET, Car, compose
from twincar.config import PICTURES, TwinCarError
from twincar.features import squash, to_batch
from twincar.modeling import locate
from twincar.modeling.knowledge import Knowledge, Threshold, confusion
from twincar.modeling.predict import Predictor
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

    Returns the Knowledge and its figures: AUROC of car or not, on photos without cars that the fold had not learnt
    from, and false positives at 95 % true positives, each for the validation pictures.

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
    features = _features(predictor, [picture for picture, _ in pairs], progress)
    locator = locate.fit(features, boxes, seed=seed)

    peaks = features.float().amax((2, 3)).numpy()
    shown = np.array([locate.area(tuple(box)) for box in boxes]) > SHOWN
    empty = _features(predictor, [cv2.resize(g, (predictor.size,) * 2, interpolation=cv2.INTER_AREA) for g in grounds])
    empty_peaks = empty.float().amax((2, 3)).numpy()
    weight, bias = _separate(peaks[shown], empty_peaks)

    val_peaks, val_logits, known = _peaks_and_logits(predictor, val, labels, progress)
    temperature = predictor.calibration.temperature
    energies = (temperature * torch.logsumexp(val_logits / temperature, 1)).numpy()
    knowledge = Knowledge(
        torch.from_numpy(weight),
        bias,
        means,
        confusion(val_logits.softmax(1).numpy(), known),
        locator,
        _threshold(val_peaks @ weight + bias),
        _threshold(energies),
        predictor.config.get("weights_sha256", ""),
    )
    apart = _cross_validated(peaks[shown], ground[shown], empty_peaks, val_peaks)
    return knowledge, apart | {"not_cars": len(grounds), "composed": composed, "false_alarms": FALSE_ALARMS}


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


def _features(predictor: Predictor, pictures: Sequence[np.ndarray], progress: bool = False, step: int = 16) -> Tensor:
    """(N, C, h, w) features in half precision of pictures of the network's size."""
    found = []
    for start in track(range(0, len(pictures), step), "Reading what was composed", disable=not progress):
        batch = to_batch(list(pictures[start : start + step]), predictor.mean, predictor.std)
        found.append(predictor.run(batch.to(predictor.device))[0].half().cpu())
    return torch.cat(found)


def _batches(predictor: Predictor, rows: pd.DataFrame, labels: dict, words: str, progress: bool, step: int = 16):
    """(features, logits, labels) of the rows' pictures, a batch at a time; what cannot be read is left out."""
    rest = track(rows.itertuples(), words, total=len(rows), disable=not progress)
    while batch := list(islice(rest, step)):
        pictures, known = [], []
        for row in batch:
            try:
                pictures.append(squash(load_photo(row.path, (row.x1, row.y1, row.x2, row.y2)), predictor.size))
            except PhotoError:
                continue
            known.append(labels[row.class_name])
        if pictures:
            images = to_batch(pictures, predictor.mean, predictor.std).to(predictor.device)
            features, logits = predictor.run(images)
            yield features.cpu(), logits.cpu(), torch.tensor(known)


def _class_means(predictor: Predictor, rows: pd.DataFrame, labels: dict, progress: bool) -> Tensor:
    total, count = 0, torch.zeros(len(labels))
    for features, _, known in _batches(predictor, rows, labels, "Reading training pictures", progress):
        chosen = torch.nn.functional.one_hot(known, len(labels)).float()
        total = total + chosen.T @ features.mean((2, 3))
        count += chosen.sum(0)
    return total / count.clamp(min=1)[:, None]


def _peaks_and_logits(predictor: Predictor, rows: pd.DataFrame, labels: dict, progress: bool):
    parts = list(_batches(predictor, rows, labels, "Reading validation pictures", progress))
    peaks = torch.cat([features.amax((2, 3)) for features, _, _ in parts]).numpy()
    return peaks, torch.cat([logits for _, logits, _ in parts]), torch.cat([known for _, _, known in parts])


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
    truth = np.repeat([1, 0], [len(val), len(others)])
    return {
        "not_car_auroc": round(float(roc_auc_score(truth, np.concatenate([val_scores, other_scores]))), 4),
        "not_car_fpr95": round(float((other_scores >= np.quantile(val_scores, 0.05)).mean()), 4),
    }


def _threshold(scores: np.ndarray) -> Threshold:
    return Threshold(round(float(np.quantile(scores, FALSE_ALARMS)), 4), FALSE_ALARMS)
