"""What the artefact was built and measured on: CPU, operating system, library versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# The instruction sets that decide how fast and how exact quantized kernels are.
RELEVANT_FLAGS = frozenset(
    {
        "sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni",
        "avx_vnni_int8", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
        "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
    }
)  # fmt: skip

LIBRARIES = ("numpy", "numba", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


class Machine(BaseModel):
    """CPU model, the flags that matter to quantized kernels, cores this process may use, and the system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    flags: tuple[str, ...]
    cores: int
    architecture: str
    system: str
    python: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    cpu, flags = _cpu()
    return Machine(
        cpu=cpu,
        flags=tuple(sorted(RELEVANT_FLAGS & flags)),
        cores=usable_cores(),
        architecture=platform.machine(),
        system=platform.system(),
        python=platform.python_version(),
    )


def usable_cores() -> int:
    """The CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_versions(extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of the installed libraries that have a part in an artefact's bytes, and of ``extra`` ones."""
    found = {}
    for name in (*LIBRARIES, *extra):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> tuple[str, set[str]]:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        return _linux_cpu(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    if platform.system() == "Darwin":
        return _macos_cpu()
    return platform.processor() or platform.machine(), set()


def _linux_cpu(cpuinfo: str) -> tuple[str, set[str]]:
    """Name and flags of the first core of ``/proc/cpuinfo`` (x86: ``flags``, Arm: ``Features``)."""
    fields = dict(re.findall(r"^([^\t:\n]+?)\s*: ?(.*)$", cpuinfo.partition("\n\n")[0], re.MULTILINE))
    name = fields.get("model name") or fields.get("Hardware") or platform.machine()
    return name.strip(), set((fields.get("flags") or fields.get("Features") or "").split())


def _macos_cpu() -> tuple[str, set[str]]:
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        name = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        name = platform.machine()
    return name, {"asimd", "asimddp"} if platform.machine() == "arm64" else set()
