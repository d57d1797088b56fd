"""Makes a probability mean what it says: temperature scaling, one number a model.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599), section 4.2. Label smoothing and
mixing leave a network less sure than it is right; dividing its logits by a temperature below 1 mends that, and leaves
every ranking as it was.
"""

import torch
from scipy.optimize import minimize_scalar
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
