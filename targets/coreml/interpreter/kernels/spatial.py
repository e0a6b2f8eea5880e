"""Kernels of MIL's space and depth operations."""

from __future__ import annotations

from edgeq.targets.coreml.interpreter.call import Kernel

KERNELS: dict[str, Kernel] = {}
