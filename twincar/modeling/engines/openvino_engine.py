"""The trunk of a network, compiled by OpenVINO for the CPU: converted, held against torch, and kept for the next start.

    engine = load(backbone, size=208)                     # in what this processor runs fastest
    engine = load(backbone, 208, "int8", ranges=ranges)   # the ranges of `int8.py`

A compiled network lies in the user's cache folder, or in TWINCAR_CACHE, under the hash of the weights, the versions and
the processor: what is stale has another name. A file that is damaged is made again, by one process at a time.
"""

import hashlib
import json
import logging
import os
import statistics
import time
import warnings
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from twincar import __version__
from twincar.files import atomic_write, locked
from twincar.modeling.engines.backbone import Backbone, BackboneOutput
from twincar.modeling.engines.base import EngineError
from twincar.modeling.engines.int8 import Ranges, round_graph

if TYPE_CHECKING:
    import openvino

# Most that `_drift` may find: of features as a share of their length, of coverage in its own 0-1. Drawn shapes leave
# the ranges of 8 bits more than photos do; a processor whose sums of bytes overflow, or ranges of another network, are
# far beyond that.
TOLERANCE = {"f32": 1e-3, "bf16": 5e-2, "int8": 0.2}
NEEDS = {"bf16": "BF16", "int8": "INT8"}  # of OpenVINO's names of what a processor can do
GAIN = 0.9  # what is less exact is taken where it takes less than this share of the time
TURNS = 5  # of that measurement
KEPT = 8  # compiled networks in the cache; the one that has not been used for longest goes first


class OpenVINOEngine:
    """A trunk compiled by OpenVINO, for the CPU. For one thread at a time."""

    device = torch.device("cpu")

    def __init__(self, compiled: "openvino.CompiledModel", precision: str):
        self.name = f"openvino:{precision}"
        self._request = compiled.create_infer_request()

    def run(self, pictures: Tensor) -> BackboneOutput:
        self._request.infer([np.ascontiguousarray(pictures.numpy())], share_inputs=True)
        told = (tensor.data.copy() for tensor in self._request.output_tensors)  # the next call writes there again
        return BackboneOutput(*map(torch.from_numpy, told))


def load(backbone: Backbone, size: int, precision: str = "", ranges: Ranges | None = None) -> OpenVINOEngine:
    """Out of the cache, or compiled, checked and put there: once, however many processes ask.

    precision : "f32", "bf16", "int8", or "" for the fastest.
    ranges : of the network's convolutions, as of `int8.py`; without them there is no "int8".

    Raises EngineError for another precision, or a trunk whose features are not torch's, and ImportError where
    OpenVINO is not installed.
    """
    if precision not in ("", *TOLERANCE):
        raise EngineError(f"OpenVINO has no precision {precision!r} here: choose from {', '.join(TOLERANCE)}.")
    if precision == "int8" and not ranges:
        raise EngineError("This model has no ranges for 8 bits: `twincar quantise` measures them.")
    core = shared_core()
    file = _cache() / f"{_fingerprint(backbone, size, ranges, core)}-{precision or 'auto'}.openvino"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(file.with_suffix(".lock")))
        except OSError as error:  # a cache that cannot be written only costs time
            logging.getLogger(__name__).warning("Compiled networks cannot be kept in %s: %s", file.parent, error)
        if (cached := _cached(file, core)) is None:
            cached = _compiled(backbone, size, precision, ranges, core)
            _keep(file, *cached)
    return OpenVINOEngine(*cached)


@cache
def shared_core() -> "openvino.Core":
    """OpenVINO's Core: one a process, and never let go. Its CPU plugin gives the thread that loads it another stack for
    signals, and takes that away with the last Core: the next signal that wants such a stack, such as a child's end,
    would then end the process. Raises ImportError where OpenVINO is not installed."""
    import openvino

    return openvino.Core()


def _cache() -> Path:
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TWINCAR_CACHE") or Path(user) / "twincar") / "engines"


def _fingerprint(backbone: Backbone, size: int, ranges: Ranges | None, core: "openvino.Core") -> str:
    """The name of a compiled network: what it computes, versions, processor."""
    import openvino

    about = [_hash(backbone, size), ranges, __version__, torch.__version__, openvino.__version__, os.cpu_count()]
    about += [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def _hash(backbone: Backbone, size: int) -> str:
    """SHA-256, in hexadecimal, of a trunk's weights and layers, and the size that it reads."""
    found = hashlib.sha256(f"{size}{backbone}".encode())
    for name, value in backbone.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.numpy()).data)
    return found.hexdigest()


def _cached(file: Path, core: "openvino.Core") -> tuple["openvino.CompiledModel", str] | None:
    """What `_keep` wrote; None where there is nothing, or it is damaged."""
    try:
        content = file.read_bytes()
        head, _, blob = content.partition(b"\n")
        about = json.loads(head)
        if hashlib.sha256(blob).hexdigest() != about["sha256"]:
            return None
        file.touch()
        return core.import_model(blob, "CPU", _options(about["precision"])), about["precision"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _keep(file: Path, compiled: "openvino.CompiledModel", precision: str) -> None:
    """One line of JSON, then the compiled network; and room for it."""
    blob = compiled.export_model().getvalue()
    about = {"precision": precision, "sha256": hashlib.sha256(blob).hexdigest()}
    try:
        with atomic_write(file) as beside:
            beside.write_bytes(json.dumps(about).encode() + b"\n" + blob)
        for old in sorted(file.parent.glob("*.openvino"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
    except OSError:
        pass  # the lock has said so, or the disk is full: it is compiled again next time


def _options(precision: str) -> dict:
    rest = "f32" if precision == "int8" else precision  # around integers bfloat16 is slower, and no better
    return {"INFERENCE_PRECISION_HINT": rest, "PERFORMANCE_HINT": "LATENCY"}


def _compiled(backbone: Backbone, size: int, precision: str, ranges: Ranges | None, core: "openvino.Core") -> tuple:
    """(compiled network, precision): as asked, else what this processor is clearly faster with."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    able = [name for name in TOLERANCE if NEEDS.get(name, "FP32") in capabilities and (name != "int8" or ranges)]
    converted = convert(backbone, size)
    engines = {}
    for name in [precision] if precision else able:
        try:
            if name == "int8":  # the last of them: the graph is changed by it
                round_graph(converted, ranges)
            compiled = core.compile_model(converted, "CPU", _options(name))
            drift = _deviation(backbone, size, OpenVINOEngine(compiled, name))
            if drift > TOLERANCE[name]:
                raise EngineError(f"in {name} its features, or its coverage, differ from torch's by {drift:.2g}.")
        except Exception:  # such as ranges of another network
            if precision or name == "f32":
                raise
        else:
            engines[name] = compiled
    return (compiled := engines[name := _fastest(engines, size)]), name


def _fastest(engines: dict, size: int) -> str:
    """The name of the one to take, measured in turns. They come with the most exact first."""
    if len(engines) == 1:
        return next(iter(engines))
    picture = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    runs = {name: OpenVINOEngine(compiled, name) for name, compiled in engines.items()}
    for _ in range(TURNS):
        for name, run in runs.items():
            start = time.perf_counter()
            run.look(picture)
            seconds[name].append(time.perf_counter() - start)
    best, *others = seconds
    for name in others:
        if statistics.median(seconds[name]) < GAIN * statistics.median(seconds[best]):
            best = name
    return best


def convert(backbone: Backbone, size: int) -> "openvino.Model":
    """The trunk as OpenVINO's graph, of (N, size, size, 3) uint8 pictures; N is free.

    By the frontend itself: `openvino.convert_model` would send telemetry. Traced and not exported (torch.export),
    which takes eight times as long at a first start; what a trace might get wrong, `_drift` sees.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript has had its day, and that shapes become constants
        trace = torch.jit.trace(backbone.eval(), example, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace, example_input=example)  # has to outlive the conversion
    converted = frontend.convert(frontend.load(decoder))
    converted.reshape([-1, size, size, 3])
    return converted


@torch.no_grad()
def _deviation(backbone: Backbone, size: int, engine: OpenVINOEngine) -> float:
    """The largest distance between an engine's features and torch's, as a share of their length, over batches of one
    and of three pictures, soft random shapes; or between its coverage and that which torch tells from its features."""
    rng = torch.Generator().manual_seed(0)
    worst = 0.0
    for count in (1, 3):
        coarse = 255 * torch.rand(count, 3, 12, 12, generator=rng)
        pictures = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255).byte().permute(0, 2, 3, 1)
        truth, seen = backbone(pictures)[0], engine.run(pictures)
        worst = max(worst, float((seen.features - truth).norm() / truth.norm()))
        if seen.coverage is not None:
            worst = max(worst, float((seen.coverage - backbone.detector(seen.features).sigmoid()).abs().max()))
    return worst
