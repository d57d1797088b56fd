"""The protocol of an engine, its error, and batching of calls from several threads."""

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
    """

    def __init__(self, engine: Engine):
        self._engine, self.name, self.device = engine, engine.name, engine.device
        self._lock, self._busy = Condition(), False
        self._waiting: deque[tuple[Tensor, Future]] = deque()

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
            calls = [pictures for pictures, _ in jobs]
            output = self._engine.run(calls[0] if len(jobs) == 1 else torch.cat(calls))
            parts = output.split([len(pictures) for pictures in calls])
        except BaseException as error:
            for _, job in jobs:
                job.set_exception(error)
            return
        for (_, job), part in zip(jobs, parts, strict=True):
            job.set_result(part)
