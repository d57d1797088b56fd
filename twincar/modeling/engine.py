"""Runs a network's trunk on the fastest thing the machine has: images -> features, the same within a tolerance.

    engine = choose(network, size=208)       # CUDA or MPS in torch, half precision; on a CPU OpenVINO, else torch
    features = engine.features(images)       # (N, 3, 208, 208) normalised -> (N, C, h, w) float32
    choose(network, 208, engine="openvino:f32"); choose(network, 208, engine="torch")
    choose(network, 208, engine="openvino:car-int8.xml")     # a file of `quantise.py`
    TWINCAR_ENGINE=torch python app.py       # the same choice, for whatever is run

Only the trunk is here. The head stays in torch and in single precision: it costs a hundredth, and Grad-CAM++ and the
logits then come from the same layers.

Answers do not depend on the engine but for rounding: `benchmarks/agreement.py` measures by how much. An engine that
OpenVINO gives is held against torch before it is first used (`DRIFT`), and is kept compiled in the user's cache folder,
or in TWINCAR_CACHE, under the hash of the weights, the versions and the processor.
"""

import copy
import hashlib
import json
import logging
import os
import statistics
import time
import warnings
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from twincar import __version__
from twincar.config import TwinCarError
from twincar.files import write_beside

if TYPE_CHECKING:
    import openvino

VARIABLE = "TWINCAR_ENGINE"
TORCH_PRECISIONS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
DRIFT = {"f32": 1e-3, "bf16": 5e-2}  # most that features may differ from torch's, as a share of their length
GAIN = 0.9  # bf16 is taken where it takes less than this share of f32's time: with vector units alone it may not
TURNS = 5  # of that measurement
MOST = 16  # pictures that are run at once
KEPT = 8  # compiled networks in the cache; the one that has not been used for longest goes first


class EngineError(TwinCarError):
    """An engine that was asked for and cannot be had, in one sentence."""


class Engine(Protocol):
    """What `choose` gives. `name` says what runs, such as "openvino:bf16"; `device` is where features come out."""

    name: str
    device: torch.device

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) float32 normalised images -> (N, C, h, w) float32 features."""
        ...


class TorchEngine:
    """The trunk in torch. In half precision it runs as a copy: the head needs the network as it is."""

    def __init__(self, network: nn.Module, device: torch.device, precision: str):
        self.name = f"torch:{precision}"
        self.device, self._type = device, TORCH_PRECISIONS[precision]
        network.to(device, memory_format=torch.channels_last)
        self._network = network if precision == "f32" else copy.deepcopy(network).to(self._type)

    @torch.no_grad()  # not inference_mode: explaining differentiates through the head, from these features
    def features(self, images: Tensor) -> Tensor:
        images = images.to(self.device, self._type, memory_format=torch.channels_last)
        return self._network.forward_features(images).float()


class OpenVINOEngine:
    """The trunk compiled by OpenVINO, for the CPU. For one thread at a time."""

    device = torch.device("cpu")

    def __init__(self, compiled: "openvino.CompiledModel", precision: str):
        self.name = f"openvino:{precision}"
        self._request = compiled.create_infer_request()

    def features(self, images: Tensor) -> Tensor:
        self._request.infer([np.ascontiguousarray(images.numpy())], share_inputs=True)
        return torch.from_numpy(self._request.get_output_tensor().data.copy())  # the next call writes there again


class Together:
    """An engine that is safe to call from several threads. Calls at the same time become one: whoever finds the
    engine free runs all that wait.

    Nobody waits for others to come, so one caller alone is answered as fast as without this; under load pictures pass
    through the network in as few runs as can be, MOST at a time.
    """

    def __init__(self, engine: Engine):
        self._engine, self.name, self.device = engine, engine.name, engine.device
        self._turn, self._busy = Condition(), False
        self._waiting: deque[tuple[Tensor, Future]] = deque()

    def features(self, images: Tensor) -> Tensor:
        mine: Future = Future()
        with self._turn:
            self._waiting.append((images, mine))
        while True:
            with self._turn:
                self._turn.wait_for(lambda: mine.done() or not self._busy)
                if mine.done():
                    return mine.result()
                self._busy, jobs = True, self._next()
            try:
                self._run(jobs)
            finally:
                with self._turn:
                    self._busy = False
                    self._turn.notify_all()

    def _next(self) -> list[tuple[Tensor, Future]]:
        """The calls that have waited longest: one, and those after it that fit into the same run."""
        jobs = [self._waiting.popleft()]
        count = len(jobs[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= MOST:
            jobs.append(self._waiting.popleft())
            count += len(jobs[-1][0])
        return jobs

    def _run(self, jobs: list[tuple[Tensor, Future]]) -> None:
        try:
            images = [images for images, _ in jobs]
            features = self._engine.features(images[0] if len(jobs) == 1 else torch.cat(images))
            parts = features.split([len(part) for part in images])
        except BaseException as error:
            for _, job in jobs:
                job.set_exception(error)
            return
        for (_, job), part in zip(jobs, parts, strict=True):
            job.set_result(part)


def choose(
    network: nn.Module, size: int, device: str | torch.device | None = None, engine: str | None = None
) -> Engine:
    """The engine for `network`, which reads `size` pixels. `network` itself is moved to the engine's device.

    device : a torch device; by default CUDA, else Apple's MPS, else the CPU.
    engine : "torch" or "openvino", with a precision if need be ("torch:bf16", "openvino:f32"), or with the file of a
        quantised network ("openvino:car-int8.xml"); by default what TWINCAR_ENGINE names, else torch on a GPU, and on
        a CPU OpenVINO where it is installed.

    Raises EngineError where an engine was asked for that there is not. One that was not asked for and does not work is
    passed over with a warning.
    """
    device = torch.device(device or best_device())
    wanted = engine or os.environ.get(VARIABLE) or ""
    name, _, precision = wanted.partition(":")
    if name not in ("", "torch", "openvino"):
        raise EngineError(f"There is no engine {wanted!r}: choose torch or openvino, or leave it open.")
    if name == "openvino" and device.type != "cpu":
        raise EngineError(f"OpenVINO runs on the CPU here, not on {device.type}: leave the device open or say cpu.")
    if name != "torch" and device.type == "cpu":
        try:
            return Together(_openvino(network.to(device), size, precision))
        except ImportError as error:
            if name:
                raise EngineError("The engine openvino is not installed: pip install openvino.") from error
        except Exception as error:  # a network that it cannot convert, a processor that it does not know
            if name:
                raise error if isinstance(error, TwinCarError) else EngineError(f"OpenVINO failed: {error}") from error
            logging.getLogger(__name__).warning("OpenVINO cannot run this network, so torch does: %s", error)
    precision = precision or ("f32" if device.type == "cpu" else "f16")
    if precision not in TORCH_PRECISIONS:
        raise EngineError(f"torch has no precision {precision!r} here: choose from {', '.join(TORCH_PRECISIONS)}.")
    return Together(TorchEngine(network, device, precision))


def best_device() -> str:
    """torch's name of the fastest device: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def leave_cores_to(engine: Engine) -> None:
    """For a process that answers and does not train: torch and OpenCV work in their caller's thread alone, where the
    network has threads of its own. What is left for them is small, and pools that spin would take its cores."""
    if engine.name.startswith("openvino"):
        import cv2

        torch.set_num_threads(1)
        cv2.setNumThreads(1)


# OpenVINO


def _openvino(network: nn.Module, size: int, precision: str) -> OpenVINOEngine:
    """Out of the cache, or compiled, checked and put there: once, however many processes ask."""
    import openvino

    if precision.endswith(".xml"):
        return OpenVINOEngine(_quantised(network, size, Path(precision), openvino.Core()), precision)
    if precision not in ("", *DRIFT):
        raise EngineError(f"OpenVINO has no precision {precision!r} here: choose from {', '.join(DRIFT)}.")
    core = openvino.Core()
    file = _cache() / f"{_fingerprint(network, size, core)}-{precision or 'auto'}.openvino"
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(file.with_suffix(".lock")))
        except OSError as error:  # a cache that cannot be written only costs time
            logging.getLogger(__name__).warning("Compiled networks cannot be kept in %s: %s", file.parent, error)
        if (cached := _cached(file, core)) is None:
            cached = _compiled(network, size, precision, core)
            _keep(file, *cached)
    return OpenVINOEngine(*cached)


def _cache() -> Path:
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TWINCAR_CACHE") or Path(user) / "twincar") / "engines"


def _fingerprint(network: nn.Module, size: int, core: "openvino.Core") -> str:
    """The name of a compiled network: what it computes, versions, processor."""
    import openvino

    about = [trunk_hash(network, size), __version__, torch.__version__, openvino.__version__, os.cpu_count()]
    about += [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def trunk_hash(network: nn.Module, size: int) -> str:
    """SHA-256, in hexadecimal, of a network's weights and layers, and the size that it reads."""
    found = hashlib.sha256(f"{size}{network}".encode())
    for name, value in network.state_dict().items():
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
        with write_beside(file) as beside:
            beside.write_bytes(json.dumps(about).encode() + b"\n" + blob)
        for old in sorted(file.parent.glob("*.openvino"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
    except OSError:
        pass  # the lock has said so, or the disk is full: it is compiled again next time


def _options(precision: str) -> dict:
    return {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}


def _compiled(network: nn.Module, size: int, precision: str, core: "openvino.Core") -> tuple:
    """(compiled network, precision): as asked, else bf16 where this processor has it and is faster with it."""
    converted = convert(network, size)
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    tried = [precision] if precision else ["f32", "bf16"] if "BF16" in capabilities else ["f32"]
    engines = {}
    for name in tried:
        compiled = core.compile_model(converted, "CPU", _options(name))
        drift = _drift(network, size, OpenVINOEngine(compiled, name))
        if drift <= DRIFT[name]:
            engines[name] = compiled
        elif name == tried[0]:
            raise EngineError(f"its features in {name} differ from torch's by {drift:.2g} of their length.")
    return (compiled := engines[name := _faster(engines, size)]), name


def _faster(engines: dict, size: int) -> str:
    """The name of the one to take, measured in turns."""
    if len(engines) == 1:
        return next(iter(engines))
    image = torch.zeros(1, 3, size, size)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    runs = {name: OpenVINOEngine(compiled, name) for name, compiled in engines.items()}
    for _ in range(TURNS):
        for name, run in runs.items():
            start = time.perf_counter()
            run.features(image)
            seconds[name].append(time.perf_counter() - start)
    typical = {name: statistics.median(values) for name, values in seconds.items()}
    return "bf16" if typical["bf16"] < GAIN * typical["f32"] else "f32"


def _quantised(network: nn.Module, size: int, file: Path, core: "openvino.Core") -> "openvino.CompiledModel":
    """A file of `quantise.py`, which has to be of this very network."""
    again = "write it with `twincar export --to int8`"
    try:
        read = core.read_model(file)
        told = read.get_rt_info(["twincar", "trunk"]).astype(str)
    except RuntimeError as error:
        raise EngineError(f"{file} is no quantised network of TwinCar's: {again}.") from error
    if told != trunk_hash(network, size):
        raise EngineError(f"{file} was quantised from other weights than the model's: {again} from this model.")
    return core.compile_model(read, "CPU", _options("f32"))


def convert(network: nn.Module, size: int) -> "openvino.Model":
    """The trunk as OpenVINO's graph: images (N, 3, size, size) float32 -> features (N, C, h, w); N is free.

    By the frontend itself: `openvino.convert_model` would send telemetry. Traced and not exported (torch.export),
    which takes eight times as long at a first start; what a trace might get wrong, `_drift` sees.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript has had its day, and that shapes become constants
        trace = torch.jit.trace(_Trunk(network).eval(), example, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace, example_input=example)  # has to outlive the conversion
    converted = frontend.convert(frontend.load(decoder))
    converted.reshape([-1, 3, size, size])
    return converted


class _Trunk(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_features(images)


@torch.no_grad()
def _drift(network: nn.Module, size: int, engine: OpenVINOEngine) -> float:
    """The largest distance between an engine's features and torch's, as a share of their length, over batches of one
    and of three pictures: soft random shapes, as wide in value as normalised photos are."""
    chance = torch.Generator().manual_seed(0)
    worst = 0.0
    for count in (1, 3):
        images = nn.functional.interpolate(torch.randn(count, 3, 12, 12, generator=chance), size, mode="bicubic")
        truth = network.forward_features(images)
        worst = max(worst, float((engine.features(images) - truth).norm() / truth.norm()))
    return worst
