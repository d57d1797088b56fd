"""Makes a probability mean what it says: temperature scaling, one number a model; and measures how well it does.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599), section 4.2. Label smoothing and
mixing leave a network less sure than it is right; dividing its logits by a temperature below 1 mends that, and leaves
every ranking as it was.
"""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """The temperature in 0.05-20 that makes the negative log-likelihood smallest.

    log_probabilities : (N, K) logits, or log-probabilities, which differ from them by a constant a row.
    labels : (N,) ints in 0 to K-1.
    """

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(log_probabilities.double() / temperature, labels))

    return float(minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded", options={"xatol": 1e-4}).x)


def cross_fitted(probabilities: Tensor, labels: Tensor, folds: int = 5, seed: int = 0) -> Tensor:
    """(N, K) probabilities, each picture's under a temperature that was fitted on the pictures of the other folds.

    What temperature scaling does to pictures it was not fitted on, where there are no others to ask. Arguments as of
    `fit_temperature`; a temperature that the probabilities already went through changes nothing. N must be 2 or more.
    """
    log_probabilities = probabilities.double().clamp(min=1e-12).log()
    fold = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)) % min(folds, len(labels))
    scaled = torch.empty_like(log_probabilities)
    for this in fold.unique():
        mine = fold == this
        temperature = fit_temperature(log_probabilities[~mine], labels[~mine])
        scaled[mine] = (log_probabilities[mine] / temperature).softmax(1)
    return scaled


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> pd.DataFrame:
    """How often the first guess is right, by how sure it is: a row a bin, the least sure first.

    Bins hold equally many pictures, so that no bar stands on two of them. Columns: `confidence` and `accuracy` (means
    of the bin, 0-1), `count`, `low` and `high` (Wilson's 95 % interval of the accuracy).
    """
    confidence, guess = probabilities.max(1)
    order = confidence.argsort(stable=True)
    confidence, correct = confidence[order].double().numpy(), guess.eq(labels)[order].numpy()
    rows = []
    for part in np.array_split(np.arange(len(order)), min(bins, len(order))):
        right = int(correct[part].sum())
        low, high = binomtest(right, len(part)).proportion_ci(0.95, method="wilson")
        rows.append((confidence[part].mean(), right / len(part), len(part), low, high))
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "count", "low", "high"])


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """`ece`, the expected calibration error over the bins of `reliability` (0-1); `brier`, the squared distance to the
    truth summed over all classes (0-2; Brier 1950); `nll`, the mean negative log-likelihood in nats. All 0 at best."""
    table = reliability(probabilities, labels, bins)
    share = table["count"] / table["count"].sum()
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    right = probabilities.double().gather(1, labels[:, None]).clamp(min=1e-12)
    return {
        "ece": float((share * (table["accuracy"] - table["confidence"]).abs()).sum()),
        "brier": float((probabilities.double() - truth).square().sum(1).mean()),
        "nll": float(-right.log().mean()),
    }
