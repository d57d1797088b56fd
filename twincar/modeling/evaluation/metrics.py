"""Every metric that the project reports, by torchmetrics and scikit-learn, and their bootstrap intervals."""

import torch
from sklearn.metrics import matthews_corrcoef
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
        # torchmetrics gives -1 to 1, not 0, where one of two classes is never predicted: nothing correlates there.
        "mcc": matthews_corrcoef(labels.cpu(), guess.cpu()),
        "jaccard_macro": M.jaccard_index(guess, labels, average="macro", **kind),
    }
    for average in ("macro", "weighted"):
        values[f"precision_{average}"] = M.precision(guess, labels, average=average, **kind)
        values[f"recall_{average}"] = M.recall(guess, labels, average=average, **kind)
        values[f"f1_{average}"] = M.f1_score(guess, labels, average=average, **kind)
    return {name: float(value) for name, value in values.items()}


HEADLINES = ("top1", "top3", "top5", "f1_macro", "balanced_accuracy")


def bootstrap_intervals(
    logits: Tensor, labels: Tensor, draws: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals (Efron 1979) of the HEADLINES over resampled pictures; arguments as of `metrics`.

    A resample is how often each picture was drawn, so all draws are a few products of matrices.
    """
    count, k = logits.shape
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (draws, count), generator=generator)
    times = torch.zeros(draws, count).scatter_add_(1, drawn, torch.ones(draws, count))  # (draws, N)
    guess = logits.argmax(1)
    truth, predicted = (torch.nn.functional.one_hot(some, k).float() for some in (labels, guess))
    support, called, right = times @ truth, times @ predicted, times @ (truth * predicted)  # (draws, K) each
    ranks = logits.topk(min(5, k), dim=1).indices.eq(labels[:, None])
    values = {f"top{n}": times @ ranks[:, :n].any(1).float() / count for n in (1, 3, 5)}
    seen = support + called > 0
    values["f1_macro"] = (2 * right / (support + called).clamp(min=1)).sum(1) / seen.sum(1)
    values["balanced_accuracy"] = (right / support.clamp(min=1)).sum(1) / (support > 0).sum(1)
    bounds = torch.tensor([0.025, 0.975])
    return {name: tuple(value.quantile(bounds).tolist()) for name, value in values.items()}
