"""A published model -> one file for another engine: ONNX, OpenVINO or TorchScript, held against the Predictor.

twincar export --model models/twincar --to onnx --out car.onnx      # docs/onnx_example.py answers with it, torch-free

The graph takes what an image library gives, so that nobody has to get it right a second time:

    images    (N, size, size, 3) uint8, upright RGB, squashed to the square with antialiased bicubic resampling
    features  (N, C, h, w) float32
    logits    (N, K) float32, calibrated: their softmax is the model's probability

N is free. Normalising, and reading the mirror image where the model was published so, happen inside. The file's
metadata tell the rest as JSON: class names, size, resampling, licence.
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
TOLERANCE = 1e-3  # of a probability; single precision on other kernels differs by some 1e-6
PICTURES = 3

Engine = Callable[[np.ndarray], list[np.ndarray]]  # images -> features, logits


class ExportError(TwinCarError):
    """A model that cannot be exported, in one sentence."""


@dataclass(frozen=True)
class Parity:
    """How the file's answers compare with the Predictor's on `pictures` pictures: the largest difference between two
    probabilities, and whether the best class of each picture is the same."""

    pictures: int
    largest_difference: float
    same_best: bool


class Graph(nn.Module):
    """What is exported: the network with its preprocessing in front and its calibration behind."""

    def __init__(self, model: CarModel):
        super().__init__()
        statistics = (model.config["input"].get(name, default) for name, default in STATISTICS)
        self.backbone = Backbone(model.network, *statistics)
        self.flip: bool = model.config["input"].get("flip", False)
        self.calibration = Calibration.of(model.config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        head = self.backbone.network.forward_head
        (features,) = self.backbone(images)
        logits = head(features)
        if self.flip:  # as `Predictor.run`
            logits = (logits + head(*self.backbone(images.flip(2)))) / 2
        return features, self.calibration(logits)


def export(model: CarModel, to: str, out: str | Path) -> Parity:
    """Write `model` to the file `out` for the engine `to`, one of `SUFFIXES`, and measure it there.

    OpenVINO's weights go into a second file beside it, `.bin`. Raises ExportError when the engine is not installed, the
    suffix is not its own, or its answers differ from the Predictor's by more than TOLERANCE; an older file then stays.
    """
    out = Path(out)
    if to not in SUFFIXES:
        raise ExportError(f"There is no export to {to}: choose from {', '.join(SUFFIXES)}.")
    if out.suffix != SUFFIXES[to]:
        raise ExportError(f"{out} does not end in {SUFFIXES[to]}, as a file for {to} does.")
    graph = Graph(model.cpu()).eval().requires_grad_(False)
    size = model.config["input"]["size"]
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    about = {key: json.dumps(value, ensure_ascii=False) for key, value in metadata(model.config).items()}
    try:
        return WRITERS[to](graph, example, about, out, lambda engine: measure(engine, model))
    except ImportError as error:
        raise ExportError(f"Exporting to {to} needs {error.name}: pip install 'twincar[export]'.") from error


def metadata(config: dict) -> dict[str, Any]:
    """What a program needs to know that has the file alone."""
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
            "calibration": Calibration.of(config).as_dict(),
        },
        "probabilities": "softmax(logits)",
        "weights_sha256": config.get("weights_sha256"),
        "notice": config.get("notice", ""),
    }


def measure(engine: Engine, model: CarModel) -> Parity:
    """Ask the engine and the Predictor about the same pictures: soft random shapes, drawn from a fixed seed."""
    predictor = Predictor(model, "cpu", REFERENCE)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (PICTURES, 12, 12, 3), dtype=np.uint8)
    pictures = [squash(Image.fromarray(picture), predictor.size) for picture in coarse]
    truth = predictor.run(pictures)[1]
    truth = predictor.calibration(truth).softmax(1).numpy()
    _, logits = engine(np.stack(pictures))
    answers = torch.from_numpy(np.array(logits)).softmax(1).numpy()
    parity = Parity(PICTURES, float(abs(answers - truth).max()), bool((answers.argmax(1) == truth.argmax(1)).all()))
    if not parity.largest_difference <= TOLERANCE:  # also where it is not a number
        raise ExportError(
            f"The exported model differs from this one by {parity.largest_difference:.2g} in a probability, more than "
            f"{TOLERANCE:g}: it was not kept."
        )
    return parity


def _onnx(graph: Graph, example: Tensor, about: dict[str, str], out: Path, check) -> Parity:
    import onnxruntime

    program = _program(graph, example)
    program.model.metadata_props.update(about)
    with atomic_write(out) as beside:
        program.save(beside, external_data=False)
        session = onnxruntime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        return check(lambda images: session.run(OUTPUTS, {"images": images}))


def _program(graph: Graph, example: Tensor) -> torch.onnx.ONNXProgram:
    import onnxscript  # noqa: F401  torch's exporter writes with it, and says less clearly when it is missing

    return torch.onnx.export(
        graph,
        (example,),
        input_names=["images"],
        output_names=OUTPUTS,
        dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
        dynamo=True,
        verbose=False,
    )


def _openvino(graph: Graph, example: Tensor, about: dict[str, str], out: Path, check) -> Parity:
    """By way of ONNX: `openvino.convert_model` would trace with the deprecated torch.jit, and send telemetry."""
    import openvino

    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as beside:
        file = Path(beside) / out.name
        _program(graph, example).save(file.with_suffix(".onnx"), external_data=False)
        converted = shared_core().read_model(file.with_suffix(".onnx"))
        for key, value in about.items():
            converted.set_rt_info(value, ["twincar", key])
        openvino.save_model(converted, file, compress_to_fp16=False)
        # In single precision, also on processors where OpenVINO would choose bfloat16 by itself.
        engine = shared_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        parity = check(lambda images: [engine(images)[name] for name in OUTPUTS])
        for written in (file.with_suffix(".bin"), file):
            written.replace(out.with_name(written.name))
    return parity


def _torchscript(graph: Graph, example: Tensor, about: dict[str, str], out: Path, check) -> Parity:
    with warnings.catch_warnings(), atomic_write(out) as beside:
        warnings.simplefilter("ignore", FutureWarning)  # that TorchScript has had its day, which who asks for it knows
        torch.jit.save(torch.jit.trace(graph, example), beside, _extra_files=about)
        again = torch.jit.load(beside)
        return check(lambda images: [value.numpy() for value in again(torch.from_numpy(images))])


WRITERS = {"onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript}
