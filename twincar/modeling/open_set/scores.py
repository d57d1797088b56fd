"""Scores of "there is a car" and "it is one I know", and how well each tells the two sides apart.

The usual ones from the logits and the features of a pass, to be compared on the same photos; `learn.py` does, and
`knowledge.py` keeps the best. All are higher for what is known. References: maximum softmax probability, Hendrycks &
Gimpel (arXiv:1610.02136); maximum logit, Hendrycks et al. (arXiv:1911.11132); energy, Liu et al. (arXiv:2010.03759);
generalised entropy, Liu et al. (CVPR 2023); nearest class mean in cosine, after Lee et al. (arXiv:1807.03888).
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import normalize

LEFT_OUT = 0.2  # share of the classes that is kept from the model at a time
DRAWS = 10
GEN = (0.1, 20)  # exponent, and how many of the largest probabilities count


def max_probability(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    return logits.softmax(1).amax(1)


def max_logit(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    return logits.amax(1)


def energy(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    """The negative free energy; of logits over the model's temperature, as all of these get them."""
    return torch.logsumexp(logits, 1)


def entropy(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    return (logits.softmax(1) * logits.log_softmax(1)).sum(1)


def generalised_entropy(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    exponent, most = GEN
    p = logits.softmax(1)
    p = p.topk(min(most, p.shape[1]), 1).values
    return -(p**exponent * (1 - p) ** exponent).sum(1)


def class_mean(logits: Tensor, pooled: Tensor, means: Tensor) -> Tensor:
    return (normalize(pooled, dim=1) @ normalize(means, dim=1).T).amax(1)


SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "largest probability": max_probability,
    "largest logit": max_logit,
    "energy": energy,
    "entropy": entropy,
    "generalised entropy": generalised_entropy,
    "cosine to the nearest class mean": class_mean,
}


def separation(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """`auroc`, and `fpr95`: the share of the outside that passes where 95 % of the inside do."""
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    return {
        "auroc": round(float(roc_auc_score(truth, np.concatenate([inside, outside]))), 4),
        "fpr95": round(float((outside >= np.quantile(inside, 0.05)).mean()), 4),
    }


def left_out_classes(logits: Tensor, pooled: Tensor, means: Tensor, labels: Tensor, seed: int = 0) -> list[dict]:
    """How well each of `SCORES` tells pictures of known classes from those of unknown ones: a row a score, the best
    first, with the means over ten draws of a fifth of the classes, whose logits and class means are taken away.

    The network was trained on those classes all the same, so cars that it has never seen may be harder.

    logits : (N, K) over the model's temperature. pooled : (N, C). means : (K, C). labels : (N,).
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
