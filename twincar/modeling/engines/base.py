"""What an engine is: the protocol, its error, and the batching of calls from several threads."""

from collections import deque
from concurrent.futures import Future
from threading import Condition
from typing import Protocol

import torch
from torch import Tensor

from twincar.config import TwinCarError
from twincar.modeling.engines.backbone import BackboneOutput

MAX_BATCH = 16  # pictures in one run


class EngineError(TwinCarError):
    """An engine that was asked for and cannot be had, in one sentence."""


class Engine(Protocol):
    """What `choose` gives. `name` says what runs, such as "openvino:bf16"; `device` is where it comes out."""

    name: str
    device: torch.device

    def run(self, pictures: Tensor) -> BackboneOutput:
        """What the trunk tells of (N, size, size, 3) uint8 pictures, which lie in the memory of the CPU."""
        ...


class BatchingEngine:
    """An engine that is safe to call from several threads. Calls at the same time become one: whoever finds the
    engine free runs all that wait.

    Nobody waits for others to come, so one caller alone is answered as fast as without this; under load pictures pass
    through the network in as few runs as can be, MAX_BATCH at a time.
    """

    def __init__(self, engine: Engine):
        self._engine, self.name, self.device = engine, engine.name, engine.device
        self._lock, self._busy = Condition(), False
        self._waiting: deque[tuple[Tensor, Future]] = deque()

    def run(self, pictures: Tensor) -> BackboneOutput:
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
        """The calls that have waited longest: one, and those after it that fit into the same run."""
        jobs = [self._waiting.popleft()]
        count = len(jobs[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= MAX_BATCH:
            jobs.append(self._waiting.popleft())
            count += len(jobs[-1][0])
        return jobs

    def _run_jobs(self, jobs: list[tuple[Tensor, Future]]) -> None:
        try:
            calls = [pictures for pictures, _ in jobs]
            output = self._engine.run(calls[0] if len(jobs) == 1 else torch.cat(calls))
            parts = output.split([len(pictures) for pictures in calls])
        except BaseException as error:
            for _, job in jobs:
                job.set_exception(error)
            return
        for (_, job), part in zip(jobs, parts, strict=True):
            job.set_result(part)
