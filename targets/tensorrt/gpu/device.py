"""The NVIDIA GPU of this machine, asked through the driver alone: no CUDA wheel is needed for it."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import dataclass
from typing import Any

from edgeq.errors import TargetError

# Of CUdevice_attribute in cuda.h.
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76
_SUCCESS = 0
_NAME_BYTES = 256


@dataclass(frozen=True)
class Device:
    """The first GPU. ``sm``: its compute capability times ten; ``memory_mb``: all that it has, in MiB."""

    name: str
    sm: int
    memory_mb: float


@functools.cache
def device() -> Device | None:
    """The first GPU that the driver shows (``CUDA_VISIBLE_DEVICES`` counts); None without one."""
    driver = _driver()
    return None if driver is None else _describe(driver)


def present() -> bool:
    """Whether this machine has an NVIDIA GPU and a driver that runs."""
    return device() is not None


def compute_capability() -> int | None:
    """Compute capability of the GPU times ten (8.6 is 86); None without one."""
    found = device()
    return None if found is None else found.sm


def require(what: str = "An engine") -> Device:
    """The GPU of this machine.

    Raises:
        TargetError: it has none.
    """
    found = device()
    if found is None:
        raise TargetError(
            f"{what} runs on an NVIDIA GPU, and this machine has none (or no NVIDIA driver that works).",
            fix="Run this on a machine with a GPU; in a container, start it with: docker run --gpus all.",
        )
    return found


def _driver() -> Any | None:
    """The driver's library, initialised, when it shows at least one GPU."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
        count = ctypes.c_int(0)
        started = driver.cuInit(0) == _SUCCESS and driver.cuDeviceGetCount(ctypes.byref(count)) == _SUCCESS
    except (OSError, AttributeError):  # no driver, or a library of that name that is none
        return None
    return driver if started and count.value > 0 else None


def _describe(driver: Any) -> Device | None:
    handle, memory, text = ctypes.c_int(0), ctypes.c_size_t(0), ctypes.create_string_buffer(_NAME_BYTES)
    answers = (
        driver.cuDeviceGet(ctypes.byref(handle), 0),
        driver.cuDeviceGetName(text, _NAME_BYTES, handle),
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle),
    )
    if any(answers):
        return None
    major, minor = (_attribute(driver, which, handle) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
    return Device(text.value.decode(errors="replace"), 10 * major + minor, memory.value / 2**20)


def _attribute(driver: Any, which: int, handle: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
    return value.value
