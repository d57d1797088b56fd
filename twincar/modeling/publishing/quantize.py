"""A published model + its data -> the ranges to compute its network in 8 bits with, measured before they are kept.

    twincar quantise --model models/twincar --data data

The ranges (`int8.py`) come from training photos and go into the model's config.json; its weights stay as they are. From
then on OpenVINO computes in 8 bits wherever that is faster, as it is on processors with VNNI and without AMX. What it
costs is measured on the val pictures, and ranges that cost too much are not kept.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch import Tensor

from twincar.config import TwinCarError
from twincar.features.photo import PhotoError
from twincar.features.transforms import squash, to_batch
from twincar.modeling.engines.int8 import observe
from twincar.modeling.evaluation.evaluate import Evaluation, boxed, evaluate
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.predictor import REFERENCE, Predictor

CALIBRATION = 300  # training pictures, of all classes alike as far as they go
BATCH = 16
MOST_LOST = 0.003  # of top-1
LEAST_SAME = 0.995  # of the best classes


def quantize(model: CarModel, table: pd.DataFrame, reference: Evaluation | None = None, progress: bool = True) -> dict:
    """Put `config["int8"]` into `model`, calibrated on the table's train rows and measured on its val rows, and return
    it: the ranges, `pictures` val pictures, `top1` in 8 bits and `top1_before`, and `same`, the share of the pictures
    whose best class is the same.

    reference : what `evaluate` found with `REFERENCE` on the val rows, where that is known already.

    Raises TwinCarError when the table has no train or no val pictures, when the network has no convolutions that
    OpenVINO can round, when top-1 falls by more than MOST_LOST, or when fewer than LEAST_SAME of the best classes are
    the same.
    """
    model.config.pop("int8", None)
    exact = Predictor(model, "cpu", REFERENCE)
    ranges = observe(exact.network, _calibration(exact, table))
    if not ranges:
        raise TwinCarError(
            "There is nothing to round to 8 bits: the table has no train pictures, or the network no convolutions."
        )
    before = reference or evaluate(exact, table, "val", progress=progress)
    model.config["int8"] = {"ranges": ranges}
    try:
        result = evaluate(Predictor(model, "cpu", "openvino:int8"), table, "val", progress=progress)
        same = float((result.logits.argmax(1) == before.logits.argmax(1)).mean())
        top1, top1_before = result.scores["top1"], before.scores["top1"]
        if top1_before - top1 > MOST_LOST or same < LEAST_SAME:
            raise TwinCarError(
                f"In 8 bits top-1 goes from {top1_before:.2%} to {top1:.2%}, and {same:.2%} of the best classes stay: "
                f"no more than {MOST_LOST:.1%} may be lost, and {LEAST_SAME:.1%} have to stay, so it was not kept."
            )
    except TwinCarError:
        del model.config["int8"]
        raise
    model.config["int8"] |= {
        "pictures": result.scores["pictures"], "top1": top1, "top1_before": top1_before, "same": round(same, 6)
    }  # fmt: skip
    return model.config["int8"]


def _calibration(predictor: Predictor, table: pd.DataFrame) -> Iterator[Tensor]:
    """Batches of normalised training pictures, drawn from the classes in turn."""
    rows = table[table["split"] == "train"].sample(frac=1, random_state=0)
    rows = rows.iloc[np.argsort(rows.groupby("label").cumcount(), kind="stable")]
    pictures = [
        squash(photo, predictor.size) for photo in boxed(rows.head(CALIBRATION)) if not isinstance(photo, PhotoError)
    ]
    for start in range(0, len(pictures), BATCH):
        yield to_batch(pictures[start : start + BATCH], predictor.mean, predictor.std)
