"""Runs a network's trunk on the fastest thing the machine has: pictures -> features, the same within a tolerance.

    engine = choose(trunk, size=208)         # CUDA or MPS in torch, half precision; on a CPU OpenVINO, else torch
    seen = engine.look(pictures)             # (N, 208, 208, 3) uint8 -> seen.features, seen.coverage; see `trunk.py`
    choose(trunk, 208, engine="openvino:f32"); choose(trunk, 208, engine="torch")
    choose(trunk, 208, engine="openvino:int8", ranges=ranges)    # ranges as of `int8.py`
    TWINCAR_ENGINE=torch python app.py       # the same choice, for whatever is run

Only the trunk is here. The head stays in torch and in single precision: it costs a hundredth, and Grad-CAM++ and the
logits then come from the same layers.

Answers do not depend on the engine but for rounding: `benchmarks/agreement.py` measures by how much. What OpenVINO runs
is held against torch before it is first used, and kept (`compiled.py`).
"""

import copy
import logging
import os
from collections import deque
from concurrent.futures import Future
from threading import Condition
from typing import Protocol

import torch
from torch import Tensor, nn

from twincar.config import TwinCarError
from twincar.modeling.int8 import Ranges
from twincar.modeling.trunk import Seen, Trunk

VARIABLE = "TWINCAR_ENGINE"
TORCH_PRECISIONS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MOST = 16  # pictures that are run at once


class EngineError(TwinCarError):
    """An engine that was asked for and cannot be had, in one sentence."""


class Engine(Protocol):
    """What `choose` gives. `name` says what runs, such as "openvino:bf16"; `device` is where it comes out."""

    name: str
    device: torch.device

    def look(self, pictures: Tensor) -> Seen:
        """What the trunk tells of (N, size, size, 3) uint8 pictures, which lie in the memory of the CPU."""
        ...


class TorchEngine:
    """The trunk in torch. In half precision it runs as a copy: the head needs the network as it is."""

    def __init__(self, trunk: Trunk, device: torch.device, precision: str):
        self.name, self.device = f"torch:{precision}", device
        self._trunk = trunk.to(device, memory_format=torch.channels_last)
        if precision != "f32":
            self._trunk = copy.deepcopy(trunk)
            self._trunk.network.to(TORCH_PRECISIONS[precision])

    @torch.no_grad()  # not inference_mode: explaining differentiates through the head, from these features
    def look(self, pictures: Tensor) -> Seen:
        return Seen(*self._trunk(pictures.to(self.device)))


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

    def look(self, pictures: Tensor) -> Seen:
        mine: Future = Future()
        with self._turn:
            self._waiting.append((pictures, mine))
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
            calls = [pictures for pictures, _ in jobs]
            seen = self._engine.look(calls[0] if len(jobs) == 1 else torch.cat(calls))
            parts = seen.split([len(pictures) for pictures in calls])
        except BaseException as error:
            for _, job in jobs:
                job.set_exception(error)
            return
        for (_, job), part in zip(jobs, parts, strict=True):
            job.set_result(part)


def choose(
    trunk: Trunk,
    size: int,
    device: str | torch.device | None = None,
    engine: str | None = None,
    ranges: Ranges | None = None,
) -> Engine:
    """The engine for `trunk`, which reads `size` pixels. Its network itself, head and all, is moved to the engine's
    device.

    device : a torch device; by default CUDA, else Apple's MPS, else the CPU.
    engine : "torch" or "openvino", with a precision if need be ("torch:bf16", "openvino:f32", "openvino:int8"); by
        default what TWINCAR_ENGINE names, else torch on a GPU, and on a CPU OpenVINO where it is installed.
    ranges : of the network's convolutions, for computing them in 8 bits; without them nothing is.

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
            from twincar.modeling import compiled

            return Together(compiled.openvino_engine(trunk.to(device), size, precision, ranges))
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
    return Together(TorchEngine(trunk, device, precision))


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


@torch.no_grad()
def leave_trunk_to(engine: Engine, network: nn.Module) -> None:
    """For a process that answers and does nothing else: where the engine has the weights in a form of its own, torch's
    are given up, but for those of the head. `network` cannot run from pictures any more, nor be saved."""
    if not engine.name.startswith("openvino"):
        return
    of_head: set[nn.Module] = set()
    hooks = [part.register_forward_pre_hook(lambda part, _: of_head.add(part)) for part in network.modules()]
    network.forward_head(torch.zeros(1, network.width, 7, 7))
    for hook in hooks:
        hook.remove()
    for part in network.modules():
        if part not in of_head and not list(part.children()):
            part.to("meta")
