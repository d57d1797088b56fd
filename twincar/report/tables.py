"""Tables of a report, computed from predictions and class names. Pure functions; `report.py` writes the files."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report as sklearn_report

from twincar.config import parse_class_name


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Count the pairs of true and predicted class: a sparse confusion matrix.

    Args:
        predictions: The columns class_name (the true class) and predicted, one row per picture.

    Returns:
        The columns true, predicted and count, one row per pair that occurs, the most frequent first.
    """
    counted = predictions.groupby(["class_name", "predicted"]).size().reset_index(name="count")
    counted.columns = ["true", "predicted", "count"]
    return counted.sort_values(["count", "true", "predicted"], ascending=[False, True, True], ignore_index=True)


def confused_pairs(predictions: pd.DataFrame, most: int = 20) -> pd.DataFrame:
    """Count the most frequently confused pairs of classes, in both directions together.

    Args:
        predictions: The columns class_name (the true class), predicted and probability, one row per picture.
        most: How many pairs to return at most.

    Returns:
        One row per pair: `count` of the `support` pictures of class `true` were predicted as `predicted`, and `reverse`
        of the `reverse_support` pictures of class `predicted` as `true`. The more frequent direction is `count`. Sorted
        by count + reverse; ties by the summed probability of the wrong predictions.
    """
    support = predictions["class_name"].value_counts()
    wrong = predictions[predictions["class_name"] != predictions["predicted"]]
    ways = wrong.groupby(["class_name", "predicted"])["probability"].agg(["size", "sum"])
    rows, done = [], set()
    for (true, predicted), (count, sure) in ways.sort_values(["size", "sum"], ascending=False).iterrows():
        if frozenset((true, predicted)) in done:
            continue
        done.add(frozenset((true, predicted)))
        back, sure_back = ways.loc[(predicted, true)] if (predicted, true) in ways.index else (0, 0.0)
        rows.append((true, predicted, count, support[true], back, support.get(predicted, 0), sure + sure_back))
    columns = ["true", "predicted", "count", "support", "reverse", "reverse_support", "sure"]
    pairs = pd.DataFrame(rows, columns=columns).assign(total=lambda rows: rows["count"] + rows["reverse"])
    pairs = pairs.sort_values(["total", "sure", "true"], ascending=[False, False, True], ignore_index=True)
    counts = ["count", "support", "reverse", "reverse_support"]
    return pairs.drop(columns=["total", "sure"]).astype(dict.fromkeys(counts, int)).head(most)


def classification_report(predictions: pd.DataFrame, names: Sequence[str]) -> dict:
    """Compute scikit-learn's classification report as a dict: precision, recall, f1-score and support by class.

    Classes without a picture count as 0 in its macro average; the macro averages of scores.json leave them out.
    """
    return sklearn_report(
        predictions["class_name"], predictions["predicted"], labels=list(names), output_dict=True, zero_division=0
    )


def class_mappings(names: Sequence[str]) -> dict:
    """Return `classes` (label, class_name, make, model, body, year; in label order) and `label_of` (name -> label)."""
    classes = [{"label": label, **parse_class_name(name).as_dict()} for label, name in enumerate(names)]
    return {"classes": classes, "label_of": {name: label for label, name in enumerate(names)}}


def examples(predictions: pd.DataFrame, right: int = 6, wrong: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose predictions to show.

    Args:
        predictions: The columns path, probability and correct, one row per picture.
        right: How many correct predictions, sampled evenly from the lowest to the highest probability.
        wrong: How many wrong predictions, those with the highest probability.

    Returns:
        The rows of the correct and of the wrong predictions.
    """
    ordered = predictions.assign(sure=predictions["probability"].round(4)).sort_values(["sure", "path"], kind="stable")
    correct = ordered["correct"].astype(bool)
    good, bad = ordered[correct], ordered[~correct]
    rows = np.unique(np.linspace(0, len(good) - 1, right + 2).round().astype(int)[1:-1]) if len(good) else np.arange(0)
    return good.iloc[rows], bad[::-1].head(wrong)
