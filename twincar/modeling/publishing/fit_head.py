"""Replace a published model's trained head by one in closed form, and keep the statistics that new classes need.

    twincar fit-head --model models/twincar --data data/

See `networks/closed_form_head.py`. The backbone is not trained. The head is computed from the features of all training
pictures; how far the covariance is shrunk is chosen by the likelihood of the validation pictures.
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
MAX_TOP1_LOSS = 0.005


def fit_head(
    model: CarModel, table: pd.DataFrame, *, command: str = "twincar evaluate", progress: bool = True
) -> tuple[Evaluation, dict]:
    """Replace the head of a model, in place, and calibrate and evaluate the model anew.

    Open-set data and 8-bit ranges were measured with the old head, and are removed: run `fit_open_set` and `quantize`
    afterwards.

    Args:
        model: A published model.
        table: A prepared table with train and val pictures of its classes.
        command: What evaluates the model, for its card.
        progress: Whether to show progress bars.

    Returns:
        The evaluation on the val pictures, and `config["class_statistics"]`: the number of train `pictures`, the chosen
        `shrinkage`, `top1_before` and `top1` on the val pictures.

    Raises:
        TwinCarError: The head's input is too wide, the table lacks pictures, or top-1 falls by more than MAX_TOP1_LOSS.
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
    statistics = _best(ClassStatistics.fit(x, y, len(predictor.class_names)), val_x, val_y)
    weight, bias = statistics.head()
    top1_before, top1 = (_top1(logits, val_y) for logits in (before, val_x @ weight.T + bias))
    if top1_before - top1 > MAX_TOP1_LOSS:
        raise TwinCarError(
            f"With a head in closed form, top-1 on {len(val_y)} val pictures would fall from {top1_before:.2%} to "
            f"{top1:.2%}: the model stays as it is."
        )
    head = nn.Linear(*weight.T.shape)
    head.weight.data, head.bias.data = weight, bias
    model.network.fc = head
    weights.to_half(model.network)  # the file holds half precision, so measure that
    model.class_statistics, model.open_set = statistics, None
    for stale in ("int8", "open_set"):
        model.config.pop(stale, None)
    model.config["architecture"] |= {"head": "linear", "dropout": 0.0, "input_dropout": 0.0}
    model.config["class_statistics"] = {
        "pictures": len(y),
        "shrinkage": statistics.shrinkage,
        "top1_before": round(top1_before, 4),
        "top1": round(top1, 4),
    }
    result = evaluate(Predictor(model, engine=REFERENCE), table, "val", progress=progress)
    set_scores(model.config, result, command)
    return result, model.config["class_statistics"]


@torch.no_grad()
def _pooled(predictor: Predictor, rows: pd.DataFrame, text: str, progress: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) inputs of the head, (N,) labels and (N, K) logits of the readable pictures of the rows, one pass each."""
    pooled, found, logits = [], [], []
    for label, answer in labelled_answers(predictor, rows, text, progress):
        pooled.append(predictor.network.forward_head(answer.features[None].float(), pre_logits=True)[0].cpu())
        found.append(label)
        logits.append(answer.logits)
    return torch.stack(pooled), torch.tensor(found), torch.from_numpy(np.stack(logits))


def _best(statistics: ClassStatistics, x: Tensor, y: Tensor) -> ClassStatistics:
    """The statistics with the shrinkage of the highest likelihood on (N, D) features, and its scale."""
    candidates = []
    for shrinkage in SHRINKAGES:
        tried = replace(statistics, shrinkage=shrinkage)
        weight, bias = tried.head()
        logits = x @ weight.T + bias
        # Classes that training has moved far apart have logits in the hundreds, beyond the bounds of a temperature.
        unit = max(float(logits.std()), 1e-9)
        temperature = unit * fit_temperature(logits / unit, y)
        loss = float(nn.functional.cross_entropy(logits / temperature, y))
        candidates.append((loss, replace(tried, scale=1 / temperature)))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _top1(logits: Tensor, labels: Tensor) -> float:
    return float(logits.argmax(1).eq(labels).float().mean())
