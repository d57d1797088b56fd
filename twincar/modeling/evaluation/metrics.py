"""Classification metrics, computed with torchmetrics and scikit-learn, and their bootstrap intervals."""

from typing import Any

import torch
from sklearn.metrics import matthews_corrcoef
from torch import Tensor
from torchmetrics import functional as M


def metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute all classification metrics.

    Macro averages are over the classes that occur among labels or predictions, as in torchmetrics; balanced accuracy is
    the mean recall of the classes among the labels, as in scikit-learn. The Hamming loss of a single-label problem is
    1 - top1; it is included because the original TwinCar reports it.

    Args:
        logits: (N, K) logits or probabilities; only their order matters.
        labels: (N,) class indices, 0 to K-1.

    Returns:
        Metric name -> value: in 0-1, except Cohen's kappa and Matthews correlation coefficient (-1 to 1).
    """
    k = logits.shape[1]
    guess = logits.argmax(1)
    ranks = logits.topk(min(5, k), dim=1).indices.eq(labels[:, None])
    kind: dict[str, Any] = {"task": "multiclass", "num_classes": k}
    recall = M.recall(guess, labels, average="none", **kind)
    values = {
        "top1": ranks[:, :1].any(1).float().mean(),
        "top3": ranks[:, :3].any(1).float().mean(),
        "top5": ranks[:, :5].any(1).float().mean(),
        "balanced_accuracy": recall[labels.unique()].mean(),
        "hamming_loss": guess.ne(labels).float().mean(),
        "kappa": M.cohen_kappa(guess, labels, **kind),
        # scikit-learn's is 0 where one of two classes is never predicted; torchmetrics returns -1 to 1 there.
        "mcc": matthews_corrcoef(labels.cpu(), guess.cpu()),
        "jaccard_macro": M.jaccard_index(guess, labels, average="macro", **kind),
    }
    for average in ("macro", "weighted"):
        values[f"precision_{average}"] = M.precision(guess, labels, average=average, **kind)
        values[f"recall_{average}"] = M.recall(guess, labels, average=average, **kind)
        values[f"f1_{average}"] = M.f1_score(guess, labels, average=average, **kind)
    return {name: float(value) for name, value in values.items()}


def bootstrap_intervals(
    logits: Tensor, labels: Tensor, draws: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Compute 95 % bootstrap percentile intervals (Efron 1979) of top-1, top-3, top-5, macro F1 and balanced accuracy.

    A resample is represented by how often each picture was drawn, so all resamples take a few matrix products.

    Args:
        logits: (N, K) logits or probabilities; only their order matters.
        labels: (N,) class indices, 0 to K-1.
        draws: Number of resamples.
        seed: Random seed.

    Returns:
        Metric name -> (low, high).
    """
    count, k = logits.shape
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(count, (draws, count), generator=generator)
    counts = torch.zeros(draws, count).scatter_add_(1, indices, torch.ones(draws, count))  # (draws, N)
    guess = logits.argmax(1)
    truth, predicted = (torch.nn.functional.one_hot(classes, k).float() for classes in (labels, guess))
    support, called, correct = counts @ truth, counts @ predicted, counts @ (truth * predicted)  # (draws, K) each
    ranks = logits.topk(min(5, k), dim=1).indices.eq(labels[:, None])
    values = {f"top{n}": counts @ ranks[:, :n].any(1).float() / count for n in (1, 3, 5)}
    present = support + called > 0
    values["f1_macro"] = (2 * correct / (support + called).clamp(min=1)).sum(1) / present.sum(1)
    values["balanced_accuracy"] = (correct / support.clamp(min=1)).sum(1) / (support > 0).sum(1)
    bounds = torch.tensor([0.025, 0.975])
    intervals = {name: value.quantile(bounds).tolist() for name, value in values.items()}
    return {name: (low, high) for name, (low, high) in intervals.items()}
