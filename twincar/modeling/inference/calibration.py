"""Makes a probability mean what it says, and measures how well it does.

Two steps, three numbers a model. A temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
arXiv:1706.04599, section 4.2) mends what label smoothing and mixing leave: a network less sure than it is right. Then
the first guess alone is moved on the logit scale by Platt's two parameters (Platt, "Probabilistic outputs for support
vector machines", 1999; "top-label calibration": Gupta & Ramdas, ICLR 2022, arXiv:2107.08353), since a temperature that
suits all 196 probabilities need not suit the one that people read. Every ranking stays as it was.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0
SPREAD = 1.0  # standard deviation of the prior on slope and intercept: a handful of pictures moves them little
AHEAD = 0.99  # of its lead over the second guess the first one may lose: it stays first, in single precision as well
ALMOST = 1 - 1e-6  # the most that a probability may be before its log-odds are taken


@dataclass(frozen=True)
class Calibration:
    """Logits -> logits whose softmax can be believed. The defaults change nothing.

    temperature : divides all logits.
    slope, intercept : the first guess's log-odds o become slope * o + intercept, but it never falls behind another.
    """

    temperature: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def of(cls, config: dict) -> "Calibration":
        """A published model's own; of an older model, which has a temperature alone, that."""
        return cls(**(config.get("calibration") or {"temperature": config.get("temperature", 1.0)}))

    as_dict = asdict

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, K) logits -> (N, K) calibrated ones. Plain tensor operations: it is exported with the network."""
        logits = logits / self.temperature
        if logits.shape[1] < 2 or (self.slope, self.intercept) == (1.0, 0.0):
            return logits
        two = logits.topk(2, 1).values
        odds = _log_odds(logits)
        # Adding to one logit moves that probability alone, and leaves the others' proportions as they were.
        move = torch.maximum((self.slope - 1) * odds + self.intercept, AHEAD * (two[:, 1] - two[:, 0]))
        return logits + (logits == two[:, :1]) * move[:, None]


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """The Calibration for (N, K) logits, or log-probabilities, of pictures with the (N,) right labels in 0 to K-1.

    The temperature makes the negative log-likelihood of all classes smallest, slope and intercept that of "the first
    guess is right", under a normal prior around 1 and 0.
    """
    from scipy.optimize import minimize  # here and below: the page applies a calibration, and fits none

    temperature = fit_temperature(logits, labels)
    odds = _log_odds(logits.double() / temperature).numpy()
    right = logits.argmax(1).eq(labels).numpy()

    def loss(parameters: np.ndarray) -> float:
        moved = parameters[0] * odds + parameters[1]
        prior = ((parameters - (1.0, 0.0)) ** 2).sum() / (2 * SPREAD**2)
        return float(np.logaddexp(0, np.where(right, -moved, moved)).sum() + prior)

    slope, intercept = minimize(loss, (1.0, 0.0), method="Nelder-Mead").x
    return Calibration(temperature, max(float(slope), 0.0), float(intercept))


def _log_odds(logits: Tensor) -> Tensor:
    """Of the first guess, (N,), against all others."""
    best = logits.softmax(1).amax(1).clamp(max=ALMOST)
    return best.log() - torch.log1p(-best)


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """The temperature in 0.05-20 that makes the negative log-likelihood smallest.

    log_probabilities : (N, K) logits, or log-probabilities, which differ from them by a constant a row.
    labels : (N,) ints in 0 to K-1.
    """
    from scipy.optimize import minimize_scalar

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(log_probabilities.double() / temperature, labels))

    return float(minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded", options={"xatol": 1e-4}).x)


def cross_fitted(logits: Tensor, labels: Tensor, folds: int = 10, repeats: int = 5, seed: int = 0) -> Tensor:
    """(N, K) probabilities, each picture's under Calibrations that were fitted on the pictures of the other folds.

    What calibrating does to pictures it was not fitted on, where there are no others to ask; the mean over `repeats`
    ways to cut the folds, since one way is a matter of luck. Arguments as of `fit`; N must be 2 or more.
    """
    logits, total = logits.double(), torch.zeros(logits.shape, dtype=torch.float64)
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(seed + repeat)
        fold = torch.randperm(len(labels), generator=generator) % min(folds, len(labels))
        for this in fold.unique():
            mine = fold == this
            total[mine] += fit(logits[~mine], labels[~mine])(logits[mine]).softmax(1)
    return total / repeats


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> pd.DataFrame:
    """How often the first guess is right, by how sure it is: a row a bin, the least sure first.

    Bins hold equally many pictures, so that no bar stands on two of them. Columns: `confidence` and `accuracy` (means
    of the bin, 0-1), `count`, `low` and `high` (Wilson's 95 % interval of the accuracy).
    """
    from scipy.stats import binomtest

    confidence, guess = probabilities.max(1)
    table = _bins(confidence.double().numpy(), guess.eq(labels).numpy(), bins)
    right = (table["accuracy"] * table["count"]).round().astype(int)
    intervals = [
        binomtest(k, n).proportion_ci(0.95, method="wilson") for k, n in zip(right, table["count"], strict=True)
    ]
    return table.assign(low=[low for low, _ in intervals], high=[high for _, high in intervals])


def _bins(confidence: np.ndarray, right: np.ndarray, bins: int) -> pd.DataFrame:
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(right)))
    rows = [(confidence[part].mean(), right[part].mean(), len(part)) for part in parts]
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "count"])


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error (0-1) of (N,) confidences in answers that were right or not, over equal bins."""
    table = _bins(confidence, right, bins)
    return float(((table["accuracy"] - table["confidence"]).abs() * table["count"]).sum() / len(right))


def selective(probabilities: Tensor, labels: Tensor) -> pd.DataFrame:
    """How often the first guess is right when only the surest are given: a row for each share of pictures answered, in
    hundredths; `answered` and `accuracy` in 0-1, `least` the probability from which on it answers.

    The risk-coverage curve of El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification", 2010.
    """
    confidence, guess = probabilities.max(1)
    order = confidence.argsort(descending=True, stable=True)
    right = guess.eq(labels)[order].double().cumsum(0).numpy()
    counts = np.unique(np.ceil(np.arange(1, 101) / 100 * len(labels)).astype(int))
    return pd.DataFrame(
        {
            "answered": counts / len(labels),
            "accuracy": right[counts - 1] / counts,
            "least": confidence[order].double().numpy()[counts - 1],
        }
    )


def calibration(probabilities: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """`ece`, the expected calibration error over the bins of `reliability` (0-1); `brier`, the squared distance to the
    truth summed over all classes (0-2; Brier 1950); `nll`, the mean negative log-likelihood in nats. All 0 at best."""
    confidence, guess = probabilities.max(1)
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    right = probabilities.double().gather(1, labels[:, None]).clamp(min=1e-12)
    return {
        "ece": ece(confidence.double().numpy(), guess.eq(labels).numpy(), bins),
        "brier": float((probabilities.double() - truth).square().sum(1).mean()),
        "nll": float(-right.log().mean()),
    }
