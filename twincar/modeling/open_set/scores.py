"""OOD scores of a pass, and how well each of them separates known cars from everything else.

`fit_open_set.py` compares them on the same photos. Every score takes the (N, K) logits, divided by the model's
temperature, the (N, C) pooled features and the (K, C) mean pooled features of the classes, and returns (N,) values,
higher for known cars.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import normalize

LEFT_OUT = 0.2  # fraction of the classes that a draw leaves out
DRAWS = 10
GEN_EXPONENT, GEN_TOP = 0.1, 20  # of generalized entropy: gamma, and the number of largest probabilities used


def max_probability(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """Maximum softmax probability: Hendrycks & Gimpel, ICLR 2017 (arXiv:1610.02136)."""
    return logits.softmax(1).amax(1)


def max_logit(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """Maximum logit: Hendrycks et al., "Scaling Out-of-Distribution Detection", ICML 2022 (arXiv:1911.11132)."""
    return logits.amax(1)


def energy(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """Negative free energy, log(sum(exp(logits))): Liu et al., NeurIPS 2020 (arXiv:2010.03759), equation 4."""
    return torch.logsumexp(logits, 1)


def entropy(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """Negative Shannon entropy, sum(p * log(p))."""
    return (logits.softmax(1) * logits.log_softmax(1)).sum(1)


def generalized_entropy(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """Negative generalized entropy (GEN), -sum(p^g * (1 - p)^g) of the largest probabilities: Liu et al., CVPR 2023."""
    p = logits.softmax(1)
    p = p.topk(min(GEN_TOP, p.shape[1]), 1).values
    return -(p**GEN_EXPONENT * (1 - p) ** GEN_EXPONENT).sum(1)


def class_mean(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """Cosine of the features and the closest class mean, -1 to 1: after Lee et al., NeurIPS 2018 (arXiv:1807.03888)."""
    return (normalize(pooled, dim=1) @ normalize(means, dim=1).T).amax(1)


SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "maximum softmax probability": max_probability,
    "maximum logit": max_logit,
    "energy": energy,
    "entropy": entropy,
    "generalized entropy": generalized_entropy,
    "cosine to the nearest class mean": class_mean,
}


def separation(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """How well a score separates known pictures (inside) from others (outside).

    Args:
        inside: (N,) scores of known pictures.
        outside: (M,) scores of others.

    Returns:
        `auroc`, the area under the ROC curve, and `fpr95`, the fraction (0-1) of the others that is accepted where 95 %
        of the known pictures are.
    """
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    return {
        "auroc": round(float(roc_auc_score(truth, np.concatenate([inside, outside]))), 4),
        "fpr95": round(float((outside >= np.quantile(inside, 0.05)).mean()), 4),
    }


def left_out_classes(logits: Tensor, pooled: Tensor, means: Tensor, labels: Tensor, seed: int = 0) -> list[dict]:
    """How well each of `SCORES` separates known classes from classes that are left out.

    In each of ten draws the logits and means of a fifth of the classes are removed. The network was still trained on
    those classes, so cars of classes it was not trained on may be harder.

    Args:
        logits: (N, K) logits, divided by the model's temperature.
        pooled: (N, C) pooled features.
        means: (K, C) class means.
        labels: (N,) classes.
        seed: Random seed of the draws.

    Returns:
        A row for each score with its name and the means of `auroc` and `fpr95`, the best first.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[dict]] = {name: [] for name in SCORES}
    for _ in range(DRAWS):
        out = torch.from_numpy(rng.permutation(len(means))[: max(round(LEFT_OUT * len(means)), 1)])
        kept = torch.ones(len(means), dtype=torch.bool)
        kept[out] = False
        known = kept[labels]
        if known.all() or not known.any():
            continue
        for name, score in SCORES.items():
            values = score(logits[:, kept], pooled, means[kept])
            found[name].append(separation(values[known].numpy(), values[~known].numpy()))
    rows = [
        {"score": name, **{key: round(float(np.mean([draw[key] for draw in draws])), 4) for key in ("auroc", "fpr95")}}
        for name, draws in found.items()
        if draws
    ]
    return sorted(rows, key=lambda row: -row["auroc"])
