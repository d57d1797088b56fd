"""A published model -> its trunk in 8-bit integers, for processors that compute faster in them than in bfloat16.

    pip install 'twincar[int8]'
    twincar export --to int8 --model models/twincar --data data --out car-int8.xml
    twincar predict photos/ --engine openvino:car-int8.xml

Post-training quantisation by NNCF (the ways are those of Nagel et al., "A White Paper on Neural Network Quantization",
arXiv:2106.08295): ranges from training photos, weights and activations in 8 bits, the head as it was. What it costs is
measured on the val pictures, and a file that costs too much is not kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from twincar.config import TwinCarError
from twincar.features import squash, to_batch
from twincar.modeling import compiled
from twincar.modeling.evaluate import boxed, evaluate
from twincar.modeling.hub import CarModel
from twincar.modeling.predict import REFERENCE, Predictor
from twincar.photo import PhotoError

CALIBRATION = 300  # training pictures, of all classes alike as far as they go; NNCF's own default
MOST_LOST = 0.003  # of top-1


@dataclass(frozen=True)
class Quantised:
    """What the file was measured to be: its top-1 and the network's own, as shares of `pictures` val pictures."""

    pictures: int
    top1: float
    top1_before: float


def quantise(model: CarModel, table: pd.DataFrame, out: str | Path, progress: bool = True) -> Quantised:
    """Write the trunk of `model` to `out`, calibrated on the table's train rows, and measure it on its val rows.

    The weights go into a second file beside it, `.bin`. Raises TwinCarError where NNCF is not installed, `out` does not
    end in .xml, the table has no train or no val pictures, or top-1 falls by more than MOST_LOST; then nothing is kept.
    """
    out = Path(out)
    if out.suffix != ".xml":
        raise TwinCarError(f"{out} does not end in .xml, as a file for OpenVINO does.")
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise TwinCarError(f"Quantising needs {error.name}: pip install 'twincar[int8]'.") from error
    before = Predictor(model, "cpu", REFERENCE)
    pictures = list(_calibration(before, table))
    if not pictures:
        raise TwinCarError("The table has no train pictures to calibrate with: prepare it with a split that has some.")
    network = before.network.cpu()
    converted = compiled.convert(network, before.size)
    quantised = nncf.quantize(converted, nncf.Dataset(pictures), subset_size=len(pictures))
    quantised.set_rt_info(compiled.trunk_hash(network, before.size), ["twincar", "trunk"])
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as folder:
        beside = Path(folder) / out.name
        openvino.save_model(quantised, beside, compress_to_fp16=False)
        top1_before = evaluate(before, table, "val", progress=progress).scores["top1"]
        result = evaluate(Predictor(model, "cpu", f"openvino:{beside}"), table, "val", progress=progress)
        lost = top1_before - result.scores["top1"]
        if lost > MOST_LOST:
            raise TwinCarError(
                f"In 8 bits top-1 falls from {top1_before:.2%} to {result.scores['top1']:.2%}, by more than "
                f"{MOST_LOST:.1%}: it was not kept."
            )
        for written in (beside.with_suffix(".bin"), beside):
            written.replace(out.with_name(written.name))
    return Quantised(result.scores["pictures"], result.scores["top1"], top1_before)


def _calibration(predictor: Predictor, table: pd.DataFrame) -> Iterator[np.ndarray]:
    """Normalised training pictures, (1, 3, size, size) each, drawn from the classes in turn."""
    rows = table[table["split"] == "train"].sample(frac=1, random_state=0)
    rows = rows.iloc[np.argsort(rows.groupby("label").cumcount(), kind="stable")]
    for photo in boxed(rows.head(CALIBRATION)):
        if not isinstance(photo, PhotoError):
            yield to_batch([squash(photo, predictor.size)], predictor.mean, predictor.std).contiguous().numpy()
