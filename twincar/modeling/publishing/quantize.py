"""Activation ranges for 8-bit inference: calibrated on training pictures, accepted only if accuracy is kept.

    twincar quantize --model models/twincar --data data

The ranges (see `int8.py`) are written into the model's config.json; the weights do not change. OpenVINO then computes
in 8 bits where that is faster: on processors with VNNI and without AMX. The loss of accuracy is measured on the
validation pictures, and ranges that lose too much are discarded.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch import Tensor

from twincar.config import TwinCarError
from twincar.features.photo import PhotoError
from twincar.features.transforms import squash, to_batch
from twincar.modeling.engines.int8 import observe
from twincar.modeling.evaluation.evaluate import Evaluation, evaluate, load_crops
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.predictor import REFERENCE, Predictor

CALIBRATION_PICTURES = 300  # training pictures, evenly from all classes
BATCH_SIZE = 16
MAX_TOP1_LOSS = 0.003
MIN_AGREEMENT = 0.995  # least fraction of pictures whose predicted class stays the same


def quantize(model: CarModel, table: pd.DataFrame, reference: Evaluation | None = None, progress: bool = True) -> dict:
    """Calibrate a model for 8-bit inference on the train rows of a table, and measure it on the val rows.

    Args:
        model: Its `config["int8"]` is set.
        table: A prepared table with train and val pictures.
        reference: Result of `evaluate` with the engine `REFERENCE` on the val rows, if already computed.
        progress: Whether to show progress bars.

    Returns:
        `config["int8"]`: `ranges`, the number of val `pictures`, `top1` in 8 bits, `top1_before`, and `same`, the
        fraction of pictures whose predicted class is unchanged.

    Raises:
        TwinCarError: The table has no train or val pictures, the network has no convolutions that OpenVINO can
            quantize, top-1 falls by more than MAX_TOP1_LOSS, or `same` is below MIN_AGREEMENT.
    """
    model.config.pop("int8", None)
    exact = Predictor(model, "cpu", REFERENCE)
    ranges = observe(exact.network, _calibration(exact, table))
    if not ranges:
        raise TwinCarError(
            "There is nothing to quantize: the table has no train pictures, or the network has no convolutions."
        )
    before = reference or evaluate(exact, table, "val", progress=progress)
    model.config["int8"] = {"ranges": ranges}
    try:
        result = evaluate(Predictor(model, "cpu", "openvino:int8"), table, "val", progress=progress)
        same = float((result.logits.argmax(1) == before.logits.argmax(1)).mean())
        top1, top1_before = result.scores["top1"], before.scores["top1"]
        if top1_before - top1 > MAX_TOP1_LOSS or same < MIN_AGREEMENT:
            raise TwinCarError(
                f"In 8 bits top-1 changes from {top1_before:.2%} to {top1:.2%}, and {same:.2%} of the predicted "
                f"classes stay the same. The ranges were discarded: at most {MAX_TOP1_LOSS:.1%} may be lost, and at "
                f"least {MIN_AGREEMENT:.1%} must stay."
            )
    except TwinCarError:
        del model.config["int8"]
        raise
    model.config["int8"] |= {
        "pictures": result.scores["pictures"], "top1": top1, "top1_before": top1_before, "same": round(same, 6)
    }  # fmt: skip
    return model.config["int8"]


def _calibration(predictor: Predictor, table: pd.DataFrame) -> Iterator[Tensor]:
    """Yield batches of normalized training pictures, taken from each class in turn."""
    rows = table[table["split"] == "train"].sample(frac=1, random_state=0)
    rows = rows.iloc[np.argsort(rows.groupby("label").cumcount(), kind="stable")]
    pictures = [
        squash(photo, predictor.size)
        for photo in load_crops(rows.head(CALIBRATION_PICTURES))
        if not isinstance(photo, PhotoError)
    ]
    for start in range(0, len(pictures), BATCH_SIZE):
        yield to_batch(pictures[start : start + BATCH_SIZE], predictor.mean, predictor.std)
