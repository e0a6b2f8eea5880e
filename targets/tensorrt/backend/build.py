"""Engines built in another process, so that a crash of the compiler becomes an error message."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter
from typing import Any

from edgeq.errors import TargetError
from edgeq.progress import Advance, Progress, SilentProgress
from edgeq.targets.tensorrt.architectures import TURING
from edgeq.targets.tensorrt.backend.explain import crashed, explain
from edgeq.targets.tensorrt.backend.parts import remove_parts
from edgeq.targets.tensorrt.backend.process import Worker, WorkerDiedError
from edgeq.targets.tensorrt.backend.request import BuildReport, BuildRequest, Message


def build_engine(
    request: BuildRequest, *, progress: Progress | None = None, timeout: float | None = None
) -> BuildReport:
    """Build one engine in a fresh process, whose working folder is the model's: paths must not tell in bytes.

    Raises:
        TargetError: the compiler refuses the model, crashes, or takes more than ``timeout`` seconds.
    """
    with Worker(request.backend, request.model.parent) as worker:
        return _build(worker, request, progress or SilentProgress(), timeout)


def build_many(
    requests: Sequence[BuildRequest], *, timeout: float | None = None
) -> list[BuildReport | TargetError]:
    """Build all of ``requests``, in one process where possible; a crash costs only the request that crashed.

    ``timeout`` holds for each of them. The process is a fresh one for another backend, after each crash, and
    after a model that Turing cannot run: the compiler would take the next one for a model of Turing as well.
    """
    done: list[BuildReport | TargetError] = []
    for _, group in groupby(requests, attrgetter("backend")):
        left = list(group)
        while left:
            outcomes = _in_one_process(left, timeout)
            done += outcomes
            left = left[len(outcomes) :]
    return done


def _in_one_process(
    requests: Sequence[BuildRequest], timeout: float | None
) -> list[BuildReport | TargetError]:
    done: list[BuildReport | TargetError] = []
    with Worker(requests[0].backend) as worker:
        for request in requests:
            try:
                done.append(_build(worker, request, SilentProgress(), timeout))
            except TargetError as error:
                done.append(error)
                if isinstance(error.__cause__, WorkerDiedError) or TURING in request.sm:
                    break
    return done


def _build(worker: Worker, request: BuildRequest, progress: Progress, timeout: float | None) -> BuildReport:
    try:
        with _Shown(progress, request) as shown:
            for event in worker.events(request, timeout):
                shown.take(event)
    except WorkerDiedError as death:
        raise crashed(request, death.how, death.said) from death
    finally:
        remove_parts(request, worker.pid)
    if event["event"] == "failed":
        raise explain(request, tuple(Message.model_validate(message) for message in event["messages"]))
    return BuildReport.model_validate(event["report"])


class _Shown:
    """Events as progress: a task without an end while the model is read, then one per phase."""

    def __init__(self, progress: Progress, request: BuildRequest) -> None:
        self._progress = progress
        self._where = ", ".join(f"SM{sm}" for sm in request.sm) or "this GPU"
        self._task = ExitStack()
        self._advance: Advance = lambda _steps: None

    def __enter__(self) -> _Shown:
        self._open("TensorRT reads the model", None)
        return self

    def __exit__(self, *_: object) -> None:
        self._task.close()

    def take(self, event: dict[str, Any]) -> None:
        if event["event"] == "phase":
            self._open(f"TensorRT builds for {self._where}", event["steps"])
        elif event["event"] == "step":
            self._advance(1)

    def _open(self, description: str, steps: int | None) -> None:
        self._task.close()
        self._advance = self._task.enter_context(self._progress.task(description, steps))
