"""Kernels of MIL's generator operations."""

from __future__ import annotations

from edgeq.targets.coreml.interpreter.call import Kernel

KERNELS: dict[str, Kernel] = {}
