"""Kernels of MIL's gather operations."""

from __future__ import annotations

from edgeq.targets.coreml.interpreter.call import Kernel

KERNELS: dict[str, Kernel] = {}
