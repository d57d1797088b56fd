"""Compute the statistics that new classes need, and a head in closed form where it is better than the trained one.

    twincar fit-head --model models/twincar --data data/

See `networks/closed_form_head.py`. The backbone is not trained. The statistics are those of the features of all
training pictures; how far the covariance is shrunk, and which head is kept, is chosen by the likelihood of the
validation pictures.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from twincar.config import TwinCarError
from twincar.modeling.evaluation.evaluate import Evaluation, evaluate, labelled_answers
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.calibration import fit_temperature
from twincar.modeling.inference.predictor import REFERENCE, Predictor
from twincar.modeling.networks import weights
from twincar.modeling.networks.closed_form_head import ClassStatistics
from twincar.modeling.publishing.publish import set_scores
from twincar.modeling.publishing.scenes import train_and_val

SHRINKAGES = (0.1, 0.3, 0.5, 0.7, 0.9)
MAX_WIDTH = 8192  # numbers in the pooled features of a picture; their covariance has the square of it
MAX_TOP1_LOSS = 0.005  # that a new head may cost


def fit_head(
    model: CarModel, table: pd.DataFrame, *, command: str = "twincar evaluate", progress: bool = True
) -> tuple[Evaluation | None, dict]:
    """Give a model class statistics, in place, and a head in closed form if its trained one is worse or not linear.

    A new head is calibrated and evaluated. Open-set data and 8-bit ranges were measured with the old one, and are
    removed then: run `fit_open_set` and `quantize` afterwards.

    Args:
        model: A published model.
        table: A prepared table with train and val pictures of its classes.
        command: What evaluates the model, for its card.
        progress: Whether to show progress bars.

    Returns:
        The evaluation on the val pictures with a new head, None if the trained one was kept; and
        `config["class_statistics"]`: the number of train `pictures`, the chosen `shrinkage`, `top1_before` and `top1`
        of both heads on the val pictures, and whether the head was `replaced`.

    Raises:
        TwinCarError: The head's input is too wide, the table lacks pictures, or the trained head is not linear and
            top-1 would fall by more than MAX_TOP1_LOSS with a new one.
    """
    train, val = train_and_val(table)
    predictor = Predictor(model, engine=REFERENCE)
    width = predictor.network.forward_head(torch.zeros(1, predictor.network.width, 7, 7), pre_logits=True).shape[1]
    if width > MAX_WIDTH:
        raise TwinCarError(
            f"The head of this network has {width:,} inputs, for whose covariance there is not enough memory: at most "
            f"{MAX_WIDTH:,} are supported."
        )
    x, y, _ = _pooled(predictor, train, "Reading training pictures", progress)
    val_x, val_y, before = _pooled(predictor, val, "Reading validation pictures", progress)
    statistics, loss = _best(ClassStatistics.fit(x, y, len(predictor.class_names)), val_x, val_y)
    weight, bias = statistics.head()
    top1_before, top1 = (_top1(logits, val_y) for logits in (before, val_x @ weight.T + bias))
    temperature, loss_before = _calibrated_loss(before, val_y)
    linear, loses = type(model.network.fc) is nn.Linear, top1_before - top1 > MAX_TOP1_LOSS
    if loses and not linear:  # only a linear head can take new classes, so there is nothing to keep
        raise TwinCarError(
            f"With a head in closed form, top-1 on {len(val_y)} val pictures would fall from {top1_before:.2%} to "
            f"{top1:.2%}: the model stays as it is."
        )
    replaced = not linear or (loss < loss_before and not loses)
    figures = {
        "pictures": len(y),
        "shrinkage": statistics.shrinkage,
        "top1_before": round(top1_before, 4),
        "top1": round(top1, 4),
        "replaced": replaced,
    }
    if not replaced:
        # The logits of new classes are as large as those of the trained head, and calibrated with them.
        model.class_statistics = replace(statistics, scale=statistics.scale * temperature)
        model.config["class_statistics"] = figures
        return None, figures
    head = nn.Linear(*weight.T.shape)
    head.weight.data, head.bias.data = weight, bias
    model.network.fc = head
    weights.to_half(model.network)  # the file holds half precision, so measure that
    model.class_statistics, model.open_set = statistics, None
    for stale in ("int8", "open_set"):
        model.config.pop(stale, None)
    model.config["architecture"] |= {"head": "linear", "dropout": 0.0, "input_dropout": 0.0}
    result = evaluate(Predictor(model, engine=REFERENCE), table, "val", progress=progress)
    set_scores(model.config, result, command)
    model.config["class_statistics"] = figures
    return result, figures


@torch.no_grad()
def _pooled(predictor: Predictor, rows: pd.DataFrame, text: str, progress: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) inputs of the head, (N,) labels and (N, K) logits of the readable pictures of the rows, one pass each."""
    pooled, found, logits = [], [], []
    for label, answer in labelled_answers(predictor, rows, text, progress):
        pooled.append(predictor.network.forward_head(answer.features[None].float(), pre_logits=True)[0].cpu())
        found.append(label)
        logits.append(answer.logits)
    return torch.stack(pooled), torch.tensor(found), torch.from_numpy(np.stack(logits))


def _best(statistics: ClassStatistics, x: Tensor, y: Tensor) -> tuple[ClassStatistics, float]:
    """The statistics with the shrinkage of the highest likelihood on (N, D) features, their scale, and that loss."""
    candidates = []
    for shrinkage in SHRINKAGES:
        tried = replace(statistics, shrinkage=shrinkage)
        weight, bias = tried.head()
        temperature, loss = _calibrated_loss(x @ weight.T + bias, y)
        candidates.append((replace(tried, scale=1 / temperature), loss))
    return min(candidates, key=lambda candidate: candidate[1])


def _calibrated_loss(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The temperature of (N, K) logits, and the mean negative log-likelihood of the labels with it."""
    temperature = fit_temperature(logits, labels)
    return temperature, float(nn.functional.cross_entropy(logits / temperature, labels))


def _top1(logits: Tensor, labels: Tensor) -> float:
    return float(logits.argmax(1).eq(labels).float().mean())
