"""The process that compiles: ``python -m edgeq.targets.tensorrt.backend.worker BACKEND SAID``.

Each line of standard input is a :class:`BuildRequest`; each line of standard output an event: ``phase`` and
``step`` while it builds, then ``report`` or ``failed``. The end of the input ends the process, also in the
midst of a build: then nobody waits for it any more. ``SAID`` is the file of :class:`LastSaid`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO, cast

from edgeq.targets.tensorrt.backend.addresses import fix_addresses
from edgeq.targets.tensorrt.backend.compiler import Compiler
from edgeq.targets.tensorrt.backend.messages import BuildRefusedError
from edgeq.targets.tensorrt.backend.parts import remove_parts
from edgeq.targets.tensorrt.backend.request import BackendName, BuildRequest
from edgeq.targets.tensorrt.backend.said import LastSaid


def main(arguments: list[str]) -> None:
    """Build until nobody asks any more."""
    # Ctrl-C reaches the whole process group; the parent decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = _Answer(_own_output())
    compiler = Compiler(cast(BackendName, arguments[0]), LastSaid(Path(arguments[1])), answer)
    requests: SimpleQueue[BuildRequest] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, requests), daemon=True).start()
    while True:
        # A thread of its own has a heap of its own (glibc): what Python took before the build, which depends
        # on the environment and on every folder of sys.path, moves no address of the compiler's.
        with ThreadPoolExecutor(max_workers=1) as build:
            outcome = build.submit(_outcome, compiler, requests.get()).result()
        answer(outcome)


def _outcome(compiler: Compiler, request: BuildRequest) -> dict[str, Any]:
    try:
        return {"event": "report", "report": compiler.build(request).model_dump(mode="json")}
    except BuildRefusedError as failed:
        return {"event": "failed", "messages": [message.model_dump() for message in failed.messages]}


def _listen(source: TextIO, requests: SimpleQueue[BuildRequest]) -> None:
    latest = None
    for line in source:
        latest = BuildRequest.model_validate_json(line)
        requests.put(latest)
    if latest is not None:
        remove_parts(latest, os.getpid())
    os._exit(0)


class _Answer:
    """Writes events as lines; the compiler's threads report progress at the same time."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._output.write(json.dumps(event) + "\n")
            self._output.flush()


def _own_output() -> TextIO:
    """Standard output for this protocol alone; what libraries print there goes to standard error instead."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    fix_addresses()
    main(sys.argv[1:])
