"""Probability calibration: temperature and top-label Platt scaling, and measures of calibration.

Three numbers per model, in two steps. A temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML
2017, arXiv:1706.04599, section 4.2) corrects the underconfidence that label smoothing and MixUp cause. Then the
log-odds of the top class alone are moved by Platt's two parameters (Platt, "Probabilistic outputs for support vector
machines", 1999; top-label calibration: Gupta & Ramdas, ICLR 2022, arXiv:2107.08353), since a temperature that suits
all 196 probabilities need not suit the highest one, which people read. Rankings do not change.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0  # bounds of the temperature, in standard deviations of the logits
PRIOR_STD = 1.0  # of the normal prior on slope and intercept, so that a few pictures change them little
MAX_LOSS = 0.99  # fraction of its lead that the top class may lose: it stays first, in single precision as well
MAX_PROBABILITY = 1 - 1e-6  # probabilities are clipped to this before their log-odds are taken


@dataclass(frozen=True)
class Calibration:
    """Maps logits to logits whose softmax is calibrated. The defaults change nothing.

    Attributes:
        temperature: Divides all logits.
        slope: The log-odds o of the top class become slope * o + intercept, but the class stays first.
        intercept: See `slope`.
    """

    temperature: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def from_config(cls, config: dict) -> "Calibration":
        """The calibration of a published model; older models have only a temperature."""
        return cls(**(config.get("calibration") or {"temperature": config.get("temperature", 1.0)}))

    as_dict = asdict

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, K) logits -> (N, K) calibrated logits. Plain tensor operations, since it is exported with the network."""
        logits = logits / self.temperature
        if logits.shape[1] < 2 or (self.slope, self.intercept) == (1.0, 0.0):
            return logits
        two = logits.topk(2, 1).values
        odds = _log_odds(logits)
        # Adding to one logit changes that probability alone, and keeps the proportions of the others.
        move = torch.maximum((self.slope - 1) * odds + self.intercept, MAX_LOSS * (two[:, 1] - two[:, 0]))
        return logits + (logits == two[:, :1]) * move[:, None]


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit a Calibration.

    The temperature minimizes the negative log-likelihood of all classes; slope and intercept minimize that of "the top
    class is right", under a normal prior around 1 and 0.

    Args:
        logits: (N, K) logits or log-probabilities.
        labels: (N,) true classes, 0 to K-1.
    """
    from scipy.optimize import minimize  # here and below: the page applies a calibration, and fits none

    temperature = fit_temperature(logits, labels)
    odds = _log_odds(logits.double() / temperature).numpy()
    right = logits.argmax(1).eq(labels).numpy()

    def loss(parameters: np.ndarray) -> float:
        moved = parameters[0] * odds + parameters[1]
        prior = ((parameters - (1.0, 0.0)) ** 2).sum() / (2 * PRIOR_STD**2)
        return float(np.logaddexp(0, np.where(right, -moved, moved)).sum() + prior)

    slope, intercept = minimize(loss, (1.0, 0.0), method="Nelder-Mead").x
    return Calibration(temperature, max(float(slope), 0.0), float(intercept))


def _log_odds(logits: Tensor) -> Tensor:
    """(N,) log-odds of the top class against all others."""
    best = logits.softmax(1).amax(1).clamp(max=MAX_PROBABILITY)
    return best.log() - torch.log1p(-best)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimizes the negative log-likelihood, for logits of any scale.

    Args:
        logits: (N, K) finite logits, or log-probabilities, which differ from them by a constant per row.
        labels: (N,) true classes, 0 to K-1.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.double()
    logits = logits - logits.mean(1, keepdim=True)
    # A head in closed form has logits in the hundreds where training has moved the classes far apart.
    spread = float(logits.std(correction=0))
    scale = spread if spread > 1e-9 else 1.0  # equal logits have no scale, and any temperature is as good

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / (scale * temperature), labels))

    return scale * float(minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded", options={"xatol": 1e-5}).x)


def cross_fitted(logits: Tensor, labels: Tensor, folds: int = 10, repeats: int = 5, seed: int = 0) -> Tensor:
    """Calibrate each picture with a Calibration that was fitted on the pictures of the other folds.

    Estimates the effect of calibration on new pictures where there are no others to measure it on.

    Args:
        logits: (N, K) logits or log-probabilities; N is 2 or more.
        labels: (N,) true classes, 0 to K-1.
        folds: Number of folds.
        repeats: Number of random splits into folds; the result is their mean.
        seed: Random seed of the splits.

    Returns:
        (N, K) probabilities.
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
    """Reliability diagram: accuracy of the top class in bins of its probability.

    Args:
        probabilities: (N, K) probabilities.
        labels: (N,) true classes, 0 to K-1.
        bins: Number of bins. They hold equally many pictures, so that none is based on a few.

    Returns:
        One row per bin, lowest probability first: `confidence` and `accuracy` (means of the bin, 0-1), `count`, `low`
        and `high` (95 % Wilson interval of the accuracy).
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
    """Expected calibration error (0-1), over bins that hold equally many pictures.

    Args:
        confidence: (N,) probabilities of the predicted class.
        right: (N,) bools, whether that class is the true one.
        bins: Number of bins.
    """
    table = _bins(confidence, right, bins)
    return float(((table["accuracy"] - table["confidence"]).abs() * table["count"]).sum() / len(right))


def selective(probabilities: Tensor, labels: Tensor) -> pd.DataFrame:
    """Risk-coverage curve: accuracy when only the pictures of highest probability are answered.

    El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.

    Args:
        probabilities: (N, K) probabilities.
        labels: (N,) true classes, 0 to K-1.

    Returns:
        One row per hundredth: `answered` (fraction of the pictures, 0-1), `accuracy` on them (0-1), and `least`, the
        lowest probability among them.
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
    """Calibration error, Brier score and log-likelihood; 0 is best for all three.

    Args:
        probabilities: (N, K) probabilities.
        labels: (N,) true classes, 0 to K-1.
        bins: As for `ece`.

    Returns:
        `ece` as of `ece` (0-1), `brier` (Brier 1950; squared error summed over the classes, 0-2), and `nll` (mean
        negative log-likelihood in nats).
    """
    confidence, guess = probabilities.max(1)
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    right = probabilities.double().gather(1, labels[:, None]).clamp(min=1e-12)
    return {
        "ece": ece(confidence.double().numpy(), guess.eq(labels).numpy(), bins),
        "brier": float((probabilities.double() - truth).square().sum(1).mean()),
        "nll": float(-right.log().mean()),
    }
