"""The same addresses in every run: the compiler orders what it writes by where it lies in memory.

Measured with TensorRT for RTX 1.7: the same graph gives engines that differ in the numbers of inner tensors,
unless the system places memory at the same addresses each time. The heap is as it was at the first build too
because that runs in a thread of its own (worker.py).
"""

from __future__ import annotations

import ctypes
import os
import sys

# <linux/personality.h>; an argument of all ones asks without setting.
_ADDR_NO_RANDOMIZE = 0x0040000
_QUERY = 0xFFFFFFFF


def fix_addresses() -> None:
    """Start this process over without address space randomization; nothing where the system forbids it.

    Only Linux has it per process, and containers may refuse it: engines then work as well, but two builds
    of one model differ in a few bytes.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    current = libc.personality(_QUERY)
    if current < 0 or current & _ADDR_NO_RANDOMIZE:
        return
    if libc.personality(current | _ADDR_NO_RANDOMIZE) >= 0:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
