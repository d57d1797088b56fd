"""Export of a published model to ONNX, OpenVINO or TorchScript, verified against the Predictor.

    twincar export --model models/twincar --to onnx --out car.onnx      # docs/onnx_example.py runs it without torch

The exported graph takes pictures as an image library returns them:

    images    (N, size, size, 3) uint8, upright RGB, resized to a square with antialiased bicubic resampling
    features  (N, C, h, w) float32
    logits    (N, K) float32, calibrated: their softmax gives the model's probabilities

N is variable. Normalization, and averaging with the mirror image if the model uses that, are part of the graph. The
file's metadata hold class names, size, resampling and licence as JSON.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from twincar import __version__
from twincar.config import TwinCarError
from twincar.features.transforms import squash
from twincar.files import atomic_write
from twincar.modeling.engines.backbone import Backbone
from twincar.modeling.engines.openvino_engine import shared_core
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.calibration import Calibration
from twincar.modeling.inference.predictor import REFERENCE, STATISTICS, Predictor

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
OUTPUTS = ["features", "logits"]
TOLERANCE = 1e-3  # largest difference of a probability; float32 on other kernels differs by about 1e-6
PICTURES = 3

Engine = Callable[[np.ndarray], list[np.ndarray]]  # images -> features, logits


class ExportError(TwinCarError):
    """A model that cannot be exported. The message is one sentence."""


@dataclass(frozen=True)
class Parity:
    """Comparison of an exported model with the Predictor.

    Attributes:
        pictures: Number of pictures compared.
        largest_difference: Largest absolute difference between two probabilities.
        same_best: Whether the predicted class is the same for all pictures.
    """

    pictures: int
    largest_difference: float
    same_best: bool


class Graph(nn.Module):
    """The exported module: normalization, network and calibration."""

    def __init__(self, model: CarModel):
        super().__init__()
        statistics = (model.config["input"].get(name, default) for name, default in STATISTICS)
        self.backbone = Backbone(model.network, *statistics)
        self.flip: bool = model.config["input"].get("flip", False)
        self.calibration = Calibration.from_config(model.config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and calibrated logits of (N, size, size, 3) uint8 pictures."""
        head = self.backbone.network.forward_head
        (features,) = self.backbone(images)
        logits = head(features)
        if self.flip:  # as `Predictor.run`
            logits = (logits + head(*self.backbone(images.flip(2)))) / 2
        return features, self.calibration(logits)


def export(model: CarModel, to: str, out: str | Path) -> Parity:
    """Export a model to a file, and compare it with the Predictor.

    Args:
        model: A published model.
        to: One of `SUFFIXES`.
        out: The file, with the suffix of the engine. OpenVINO's weights go into a second file, `.bin`.

    Raises:
        ExportError: The engine is not installed, the suffix is wrong, or a probability differs by more than TOLERANCE.
            An existing file is then left unchanged.
    """
    out = Path(out)
    if to not in SUFFIXES:
        raise ExportError(f"Unknown export format {to}: choose from {', '.join(SUFFIXES)}.")
    if out.suffix != SUFFIXES[to]:
        raise ExportError(f"{out} does not end in {SUFFIXES[to]}, the suffix of {to} files.")
    graph = Graph(model.cpu()).eval().requires_grad_(False)
    size = model.config["input"]["size"]
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    info = {key: json.dumps(value, ensure_ascii=False) for key, value in metadata(model.config).items()}
    try:
        return WRITERS[to](graph, example, info, out, lambda engine: measure(engine, model))
    except ImportError as error:
        raise ExportError(f"Exporting to {to} needs {error.name}: pip install 'twincar[export]'.") from error


def metadata(config: dict) -> dict[str, Any]:
    """Return what a program needs to use the exported file on its own."""
    return {
        "name": config.get("name", "twincar"),
        "twincar": __version__,
        "architecture": config["architecture"]["name"],
        "class_names": config["class_names"],
        "size": config["input"]["size"],
        "images": "uint8 (N, size, size, 3), upright RGB, 0 to 255",
        "resize": config["input"].get("resize", "squash, bicubic with antialiasing"),
        "in_the_graph": {
            **{name: config["input"].get(name, default) for name, default in STATISTICS},
            "flip": config["input"].get("flip", False),
            "calibration": Calibration.from_config(config).as_dict(),
        },
        "probabilities": "softmax(logits)",
        "weights_sha256": config.get("weights_sha256"),
        "notice": config.get("notice", ""),
    }


def measure(engine: Engine, model: CarModel) -> Parity:
    """Compare an exported model with the Predictor on low-frequency random pictures from a fixed seed.

    Raises:
        ExportError: A probability differs by more than TOLERANCE.
    """
    predictor = Predictor(model, "cpu", REFERENCE)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (PICTURES, 12, 12, 3), dtype=np.uint8)
    pictures = [squash(Image.fromarray(picture), predictor.size) for picture in coarse]
    expected = predictor.calibration(predictor.run(pictures)[1]).softmax(1).numpy()
    _, logits = engine(np.stack(pictures))
    actual = torch.from_numpy(np.array(logits)).softmax(1).numpy()
    parity = Parity(PICTURES, float(abs(actual - expected).max()), bool((actual.argmax(1) == expected.argmax(1)).all()))
    if not parity.largest_difference <= TOLERANCE:  # also for NaN
        raise ExportError(
            f"A probability of the exported model differs by {parity.largest_difference:.2g}, more than {TOLERANCE:g}: "
            "the file was not kept."
        )
    return parity


def _onnx(graph: Graph, example: Tensor, info: dict[str, str], out: Path, check) -> Parity:
    import onnxruntime

    program = _program(graph, example)
    program.model.metadata_props.update(info)
    with atomic_write(out) as temporary:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        return check(lambda images: session.run(OUTPUTS, {"images": images}))


def _program(graph: Graph, example: Tensor) -> torch.onnx.ONNXProgram:
    import onnxscript  # noqa: F401  torch's exporter needs it; its own error is less clear

    return torch.onnx.export(  # type: ignore[return-value]  # it is None only for dynamo=False
        graph,
        (example,),
        input_names=["images"],
        output_names=OUTPUTS,
        dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
        dynamo=True,
        verbose=False,
    )


def _openvino(graph: Graph, example: Tensor, info: dict[str, str], out: Path, check) -> Parity:
    """Convert from ONNX, because `openvino.convert_model` uses the deprecated torch.jit and sends telemetry."""
    import openvino

    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as temporary:
        file = Path(temporary) / out.name
        _program(graph, example).save(file.with_suffix(".onnx"), external_data=False)
        converted = shared_core().read_model(file.with_suffix(".onnx"))
        for key, value in info.items():
            converted.set_rt_info(value, ["twincar", key])
        openvino.save_model(converted, file, compress_to_fp16=False)
        # Single precision, also on processors where OpenVINO would choose bfloat16.
        engine = shared_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        parity = check(lambda images: [engine(images)[name] for name in OUTPUTS])
        for written in (file.with_suffix(".bin"), file):
            written.replace(out.with_name(written.name))
    return parity


def _torchscript(graph: Graph, example: Tensor, info: dict[str, str], out: Path, check) -> Parity:
    with warnings.catch_warnings(), atomic_write(out) as temporary:
        warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is deprecated
        torch.jit.save(torch.jit.trace(graph, example), temporary, _extra_files=info)
        exported = torch.jit.load(temporary)
        return check(lambda images: [value.numpy() for value in exported(torch.from_numpy(images))])


WRITERS = {"onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript}
