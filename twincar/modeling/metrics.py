"""Every metric that the project reports, by torchmetrics, and their bootstrap intervals."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import functional as M


def metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Every figure of a classification, each in 0-1 but kappa and MCC, which lie in -1 to 1.

    Parameters
    ----------
    logits : (N, K) floats, or probabilities; only their order counts.
    labels : (N,) ints in 0 to K-1.

    Macro averages are over the classes that occur among labels or predictions, as torchmetrics takes them; balanced
    accuracy is the mean recall of the classes among the labels, as scikit-learn takes it. The Hamming loss of a
    single-label problem is 1 - top1; it is listed because the original TwinCar lists it.
    """
    k = logits.shape[1]
    guess = logits.argmax(1)
    ranks = logits.topk(min(5, k), dim=1).indices.eq(labels[:, None])
    kind = {"task": "multiclass", "num_classes": k}
    recall = M.recall(guess, labels, average="none", **kind)
    values = {
        "top1": ranks[:, :1].any(1).float().mean(),
        "top3": ranks[:, :3].any(1).float().mean(),
        "top5": ranks[:, :5].any(1).float().mean(),
        "balanced_accuracy": recall[labels.unique()].mean(),
        "hamming_loss": guess.ne(labels).float().mean(),
        "kappa": M.cohen_kappa(guess, labels, **kind),
        "mcc": M.matthews_corrcoef(guess, labels, **kind),
        "jaccard_macro": M.jaccard_index(guess, labels, average="macro", **kind),
    }
    for average in ("macro", "weighted"):
        values[f"precision_{average}"] = M.precision(guess, labels, average=average, **kind)
        values[f"recall_{average}"] = M.recall(guess, labels, average=average, **kind)
        values[f"f1_{average}"] = M.f1_score(guess, labels, average=average, **kind)
    return {name: float(value) for name, value in values.items()}


def bootstrap_intervals(
    measure: Callable[[Tensor], dict[str, float]], count: int, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals (Efron 1979) of the figures that `measure(rows)` gives on resampled rows 0..count-1."""
    generator = torch.Generator().manual_seed(seed)
    values = pd.DataFrame([measure(torch.randint(count, (count,), generator=generator)) for _ in range(draws)])
    return {name: tuple(np.percentile(values[name], [2.5, 97.5]).tolist()) for name in values}
