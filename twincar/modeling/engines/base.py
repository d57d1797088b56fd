"""The protocol of an engine, its error, and batching of calls from several threads, also in forked processes."""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from twincar.config import TwinCarError
from twincar.modeling.engines.backbone import BackboneOutput

MAX_BATCH = 16  # pictures in one run


def never_release(thing: object) -> None:
    """Keep an object until the process ends, also while the interpreter shuts down."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class EngineError(TwinCarError):
    """The requested engine is not available; the message is one sentence for the user."""


class Engine(Protocol):
    """Runs the backbone of a network.

    Attributes:
        name: Library and precision, such as "openvino:bf16".
        device: Device of the output.
    """

    name: str
    device: torch.device

    def run(self, pictures: Tensor) -> BackboneOutput:
        """Run the backbone on (N, size, size, 3) uint8 pictures in CPU memory."""
        ...


class BatchingEngine:
    """Makes an engine safe to call from several threads, and joins their calls into batches.

    Calls that arrive while the engine is busy wait; the first of them then runs all of them as one batch of up to
    MAX_BATCH pictures. No call waits for others to arrive, so a single caller is served as fast as without batching.

    Args:
        engine: The engine.
        reload: Creates the engine again, in a forked process that cannot use its parent's, or raises an EngineError;
            None where it can.
    """

    def __init__(self, engine: Engine, reload: Callable[[], Engine] | None = None):
        self._engine, self.name, self.device = engine, engine.name, engine.device
        self._reload = reload
        self._lock, self._busy, self._stale = Condition(), False, False
        self._waiting: deque[tuple[Tensor, Future]] = deque()
        _ENGINES.add(self)

    def run(self, pictures: Tensor) -> BackboneOutput:
        """Run the backbone on (N, size, size, 3) uint8 pictures, in a batch with those of other threads."""
        mine: Future = Future()
        with self._lock:
            self._waiting.append((pictures, mine))
        while True:
            with self._lock:
                self._lock.wait_for(lambda: mine.done() or not self._busy)
                if mine.done():
                    return mine.result()
                self._busy, jobs = True, self._next_jobs()
            try:
                self._run_jobs(jobs)
            finally:
                with self._lock:
                    self._busy = False
                    self._lock.notify_all()

    def _next_jobs(self) -> list[tuple[Tensor, Future]]:
        """Take the oldest waiting call, and those after it that fit into the same batch."""
        jobs = [self._waiting.popleft()]
        count = len(jobs[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= MAX_BATCH:
            jobs.append(self._waiting.popleft())
            count += len(jobs[-1][0])
        return jobs

    def _run_jobs(self, jobs: list[tuple[Tensor, Future]]) -> None:
        """Run several calls as one batch and set their results."""
        try:
            if self._stale and self._reload:
                self._engine, self._stale = self._reload(), False
            calls = [pictures for pictures, _ in jobs]
            output = self._engine.run(calls[0] if len(jobs) == 1 else torch.cat(calls))
            parts = output.split([len(pictures) for pictures in calls])
        except BaseException as error:
            for _, job in jobs:
                job.set_exception(error)
            return
        for (_, job), part in zip(jobs, parts, strict=True):
            job.set_result(part)

    def restart(self) -> None:
        """Start anew in a forked process: the parent's locks may be locked, and its calls are not this process's."""
        self._lock, self._busy, self._stale = Condition(), False, True
        self._waiting.clear()
        if self._reload:
            never_release(self._engine)  # OpenVINO would wait for the parent's threads


_ENGINES: WeakSet[BatchingEngine] = WeakSet()


def _restart_all() -> None:
    """In a forked process, let every engine start anew, and let torch and OpenCV do without their thread pools.

    Only the thread that forked exists in the child; libraries would wait for the others forever. One thread is also
    what a process of several on one machine should use.
    """
    engines = list(_ENGINES)
    if engines:
        torch.set_num_threads(1)
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(0)
    for engine in engines:
        engine.restart()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_restart_all)
