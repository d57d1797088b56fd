"""An engine that runs the backbone in OpenVINO on the CPU: converted, compared with torch, and cached on disk.

    engine = load(backbone, size=208)                     # in the precision that is fastest on this processor
    engine = load(backbone, 208, "int8", ranges=ranges)   # with the activation ranges of `int8.py`

Compiled networks are cached in the user's cache folder, or in TWINCAR_CACHE. The file name is a hash of the weights,
the versions and the processor, so an outdated file is never read. A damaged file is compiled again, by one process at a
time.
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
from twincar.modeling.engines.base import EngineError, never_release
from twincar.modeling.engines.int8 import Ranges, quantize_graph

if TYPE_CHECKING:
    import openvino

# Largest accepted `_deviation`. The random shapes exceed int8 ranges more often than photos do; a processor whose int8
# sums overflow, or the ranges of another network, deviate far more.
TOLERANCE = {"f32": 1e-3, "bf16": 5e-2, "int8": 0.2}
CAPABILITIES = {"bf16": "BF16", "int8": "INT8"}  # OpenVINO's names of what the processor must support
MAX_TIME = 0.9  # a less exact precision is chosen if it takes less than this fraction of the time
TIMING_RUNS = 5
MAX_CACHED = 8  # compiled networks in the cache; the least recently used is deleted first


class OpenVINOEngine:
    """A backbone compiled by OpenVINO for the CPU. Not safe to call from several threads."""

    device = torch.device("cpu")

    def __init__(self, compiled: "openvino.CompiledModel", precision: str):
        self.name = f"openvino:{precision}"
        self._request = compiled.create_infer_request()

    def run(self, pictures: Tensor) -> BackboneOutput:
        """Run the backbone on (N, size, size, 3) uint8 pictures."""
        self._request.infer([np.ascontiguousarray(pictures.numpy())], share_inputs=True)
        outputs = (tensor.data.copy() for tensor in self._request.output_tensors)  # the next call reuses their memory
        return BackboneOutput(*map(torch.from_numpy, outputs))


def load(
    backbone: Backbone, size: int, precision: str = "", ranges: Ranges | None = None, threads: int = 0
) -> OpenVINOEngine:
    """Load a compiled backbone from the cache, or compile, check and cache it. Several processes compile it once.

    Args:
        backbone: The backbone.
        size: Side of its pictures in pixels.
        precision: "f32", "bf16", "int8", or "" for the fastest.
        ranges: Activation ranges of the network's convolutions, see `int8.py`; required for "int8".
        threads: Number of threads; 0 for the number of cores. A forked process must use 1: its copy of OpenVINO's pool
            has no threads.

    Raises:
        EngineError: The precision is unknown, or the output differs from torch's.
        ImportError: OpenVINO is not installed.
    """
    if precision not in ("", *TOLERANCE):
        raise EngineError(f"The OpenVINO engine has no precision {precision!r}: choose from {', '.join(TOLERANCE)}.")
    if precision == "int8" and not ranges:
        raise EngineError("This model has no activation ranges for int8: run `twincar quantize` to measure them.")
    core = shared_core()
    file = _cache() / f"{_fingerprint(backbone, size, ranges, core)}-{precision or 'auto'}.openvino"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(file.with_suffix(".lock")))
        except OSError as error:  # without a cache every start compiles the network
            logging.getLogger(__name__).warning("Compiled networks cannot be cached in %s: %s", file.parent, error)
        if (found := _read_cache(file, core, threads)) is None:
            found = _compile(backbone, size, precision, ranges, core, threads)
            _write_cache(file, *found)
    return OpenVINOEngine(*found)


def shared_core() -> "openvino.Core":
    """The one OpenVINO Core of this process, which is never released.

    OpenVINO's CPU plugin sets an alternate signal stack for the thread that loads it and frees that stack with the last
    Core. The next signal on that stack, such as SIGCHLD, would then crash the process.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    return _core_of(os.getpid())


@cache
def _core_of(process: int) -> "openvino.Core":
    import openvino

    core = openvino.Core()
    never_release(core)
    return core


def _cache() -> Path:
    """Folder of the compiled networks."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TWINCAR_CACHE") or Path(user) / "twincar") / "engines"


def _fingerprint(backbone: Backbone, size: int, ranges: Ranges | None, core: "openvino.Core") -> str:
    """File name of a compiled network: a hash of what it computes, the versions and the processor."""
    import openvino

    about = [_hash(backbone, size), ranges, __version__, torch.__version__, openvino.__version__, os.cpu_count()]
    about += [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def _hash(backbone: Backbone, size: int) -> str:
    """SHA-256, in hexadecimal, of a backbone's weights and layers and the size of its pictures."""
    found = hashlib.sha256(f"{size}{backbone}".encode())
    for name, value in backbone.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.numpy()).data)
    return found.hexdigest()


def _read_cache(file: Path, core: "openvino.Core", threads: int) -> tuple["openvino.CompiledModel", str] | None:
    """(compiled network, precision) of a file of `_write_cache`; None if it is missing or damaged."""
    try:
        content = file.read_bytes()
        head, _, blob = content.partition(b"\n")
        about = json.loads(head)
        if hashlib.sha256(blob).hexdigest() != about["sha256"]:
            return None
        file.touch()
        return core.import_model(blob, "CPU", _options(about["precision"], threads)), about["precision"]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _write_cache(file: Path, compiled: "openvino.CompiledModel", precision: str) -> None:
    """Write one line of JSON, then the compiled network; delete the least recently used ones beyond MAX_CACHED."""
    blob = compiled.export_model().getvalue()
    about = {"precision": precision, "sha256": hashlib.sha256(blob).hexdigest()}
    try:
        with atomic_write(file) as temporary:
            temporary.write_bytes(json.dumps(about).encode() + b"\n" + blob)
        for old in sorted(file.parent.glob("*.openvino"), key=lambda path: path.stat().st_mtime)[:-MAX_CACHED]:
            old.unlink()
    except OSError:
        pass  # `load` warned about it, or the disk is full: the next start compiles it again


def _options(precision: str, threads: int) -> dict:
    rest = "f32" if precision == "int8" else precision  # between int8 layers bfloat16 is slower, and no more exact
    options = {"INFERENCE_PRECISION_HINT": rest, "PERFORMANCE_HINT": "LATENCY"}
    return options | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


def _compile(
    backbone: Backbone, size: int, precision: str, ranges: Ranges | None, core: "openvino.Core", threads: int
) -> tuple["openvino.CompiledModel", str]:
    """(compiled network, precision): the requested precision, else the one that is clearly faster on this processor."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    supported = [
        name for name in TOLERANCE if CAPABILITIES.get(name, "FP32") in capabilities and (name != "int8" or ranges)
    ]
    graph = convert(backbone, size)
    engines = {}
    for name in [precision] if precision else supported:
        try:
            if name == "int8" and ranges:  # the last precision, since this changes the graph
                quantize_graph(graph, ranges)
            compiled = core.compile_model(graph, "CPU", _options(name, threads))
            deviation = _deviation(backbone, size, OpenVINOEngine(compiled, name))
            if deviation > TOLERANCE[name]:
                raise EngineError(f"In {name}, OpenVINO's features or boxes differ from torch's by {deviation:.2g}.")
        except Exception:  # such as ranges of another network
            if precision or name == "f32":
                raise
        else:
            engines[name] = compiled
    name = _fastest(engines, size)
    return engines[name], name


def _fastest(engines: dict, size: int) -> str:
    """Name of the precision to use, by timing all of them in turns; `engines` is ordered from most to least exact."""
    if len(engines) == 1:
        return next(iter(engines))
    picture = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    candidates = {name: OpenVINOEngine(compiled, name) for name, compiled in engines.items()}
    for _ in range(TIMING_RUNS):
        for name, engine in candidates.items():
            start = time.perf_counter()
            engine.run(picture)
            seconds[name].append(time.perf_counter() - start)
    best, *others = seconds
    for name in others:
        if statistics.median(seconds[name]) < MAX_TIME * statistics.median(seconds[best]):
            best = name
    return best


def convert(backbone: Backbone, size: int) -> "openvino.Model":
    """Convert the backbone to an OpenVINO graph for (N, size, size, 3) uint8 pictures with dynamic N.

    Calls the frontend directly, because `openvino.convert_model` sends telemetry. Uses a trace instead of torch.export,
    which makes the first start eight times slower; errors of tracing show up in `_deviation`.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and shapes become constants
        trace = torch.jit.trace(backbone.eval(), example, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace, example_input=example)  # must outlive the conversion
    converted = frontend.convert(frontend.load(decoder))
    converted.reshape([-1, size, size, 3])
    return converted


@torch.no_grad()
def _deviation(backbone: Backbone, size: int, engine: OpenVINOEngine) -> float:
    """Largest deviation of an engine from torch, over a batch of one and a batch of three pictures of random shapes.

    Of the features and of the detections, the distance relative to their norm.
    """
    rng = torch.Generator().manual_seed(0)
    worst = 0.0
    for count in (1, 3):
        coarse = 255 * torch.rand(count, 3, 12, 12, generator=rng)
        pictures = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255).byte().permute(0, 2, 3, 1)
        output = (tensor for tensor in engine.run(pictures) if tensor is not None)
        for found, expected in zip(output, backbone(pictures), strict=True):
            worst = max(worst, float((found - expected).norm() / expected.norm()))
    return worst
