"""The tables of a report, each counted from what lies before it: predictions, class names, the prepared table.

Pure functions, a table in and a table out; `report.py` writes what they give.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report as sklearn_report

from twincar.config import parse_class_name


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """How often each class was called each class: true, predicted (class names), count; pairs that occur, the most
    frequent first. `predictions` has class_name and predicted."""
    counted = predictions.groupby(["class_name", "predicted"]).size().reset_index(name="count")
    counted.columns = ["true", "predicted", "count"]
    return counted.sort_values(["count", "true", "predicted"], ascending=[False, True, True], ignore_index=True)


def confused_pairs(predictions: pd.DataFrame, most: int = 20) -> pd.DataFrame:
    """The pairs of classes that are most often taken for one another, whichever way: a row a pair, at most `most`.

    Columns: `true` was called `predicted` in `count` of its `support` pictures, and the other way round in `reverse` of
    the other's `reverse_support`; of the two ways the more frequent is told first. Pairs stand in the order of count +
    reverse; where that is equal, the one whose wrong answers were surer comes first.
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
    """scikit-learn's own: precision, recall, f1-score and support of each class, then accuracy and averages.

    Classes without a picture are in it and count as 0 in its macro average; that of scores.json leaves them out.
    """
    return sklearn_report(
        predictions["class_name"], predictions["predicted"], labels=list(names), output_dict=True, zero_division=0
    )


def class_mappings(names: Sequence[str]) -> dict:
    """`classes`: label, class_name, make, model, body and year of each, in label order; `label_of`: name -> label."""
    classes = [{"label": label, **parse_class_name(name).as_dict()} for label, name in enumerate(names)]
    return {"classes": classes, "label_of": {name: label for label, name in enumerate(names)}}


def examples(predictions: pd.DataFrame, right: int = 6, wrong: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to show: right answers evenly from the least sure to the surest, and the surest of the wrong ones."""
    ordered = predictions.assign(sure=predictions["probability"].round(4)).sort_values(["sure", "path"], kind="stable")
    correct = ordered["correct"].astype(bool)
    good, bad = ordered[correct], ordered[~correct]
    places = np.unique(np.linspace(0, len(good) - 1, right + 2).round().astype(int)[1:-1]) if len(good) else []
    return good.iloc[places], bad[::-1].head(wrong)
