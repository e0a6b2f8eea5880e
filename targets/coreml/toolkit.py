"""The one place that imports coremltools: it warns about torch and about macOS libraries on every import."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

from edgeq.errors import MissingExtraError
from edgeq.quiet import quiet


@cache
def coremltools() -> Any:
    """The module ``coremltools``, imported without its chatter.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        # torchao, where it is installed, is imported too and reports what it has for GPUs.
        with quiet(), interrupts_held():
            import coremltools as ct
    except ImportError as error:
        raise MissingExtraError("Target 'coreml'", "coreml") from error
    return ct


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C takes effect at the end: coremltools swallows it while it imports what it finds installed."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


@cache
def builder() -> Any:
    """The MIL builder (``mb``)."""
    coremltools()
    from coremltools.converters.mil import Builder

    return Builder


@cache
def mil_types() -> Any:
    """The MIL types module (``types.fp32``, …)."""
    coremltools()
    from coremltools.converters.mil.mil import types

    return types
