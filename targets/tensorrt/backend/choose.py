"""Which compiler builds, and for which GPUs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from edgeq.errors import TargetError
from edgeq.targets.base import Availability
from edgeq.targets.tensorrt.backend.request import BackendName
from edgeq.targets.tensorrt.options import DEFAULT_SM, TensorRTOptions

_EXTRA = "pip install 'edgeq[tensorrt-rtx]'"
_PACKAGES: dict[BackendName, tuple[str, str]] = {
    "tensorrt": ("tensorrt", "TensorRT"),
    "tensorrt-rtx": ("tensorrt_rtx", "TensorRT for RTX"),
}


def availability() -> Availability:
    """Which compilers can be imported here, and what they build for; nothing is imported for it."""
    found = [_described(name) for name in _PACKAGES if importable(name)]
    if not found:
        return Availability(False, "neither TensorRT nor TensorRT for RTX is installed", _EXTRA)
    return Availability(True, "; ".join(found))


def choose(options: TensorRTOptions) -> tuple[BackendName, tuple[int, ...]]:
    """The backend, and the compute capabilities that it builds for (none: the GPU of this machine).

    Raises:
        TargetError: no compiler can be imported, the chosen one needs a GPU, or it takes no ``sm``.
    """
    if prefers_classic(options):
        return "tensorrt", _classic(options)
    if not importable("tensorrt-rtx"):
        raise TargetError(
            "TensorRT for RTX, which builds engines, is not installed.", fix=f"Install it with: {_EXTRA}"
        )
    return "tensorrt-rtx", compute_capabilities(options)


def prefers_classic(options: TensorRTOptions) -> bool:
    """Whether the backend is ``tensorrt``, by the options or because it can build on this machine."""
    return options.backend == "tensorrt" or (
        options.backend == "auto" and _classic_works() and not options.sm
    )


def compute_capabilities(options: TensorRTOptions) -> tuple[int, ...]:
    """Those of ``options``, else that of the GPU of this machine, else the default ones."""
    if options.sm:
        return options.sm
    from edgeq.targets.tensorrt.gpu.device import device

    gpu = device()
    return (gpu.sm,) if gpu is not None else DEFAULT_SM


def importable(backend: BackendName) -> bool:
    """Whether the module of ``backend`` is there."""
    return find_spec(_PACKAGES[backend][0]) is not None


def _classic_works() -> bool:
    from edgeq.targets.tensorrt.gpu.device import present

    return importable("tensorrt") and present()


def _classic(options: TensorRTOptions) -> tuple[int, ...]:
    from edgeq.targets.tensorrt.gpu.device import present

    if not importable("tensorrt"):
        raise TargetError(
            "The backend 'tensorrt' is not installed.",
            fix="Use NVIDIA's container (docs/tensorrt.md), or choose -O backend=tensorrt-rtx.",
        )
    if not present():
        raise TargetError(
            "The backend 'tensorrt' builds on the GPU that it builds for, and this machine has none.",
            fix="Choose -O backend=tensorrt-rtx, which builds ahead of time on a CPU.",
        )
    if options.sm:
        raise TargetError(
            "The backend 'tensorrt' builds for the GPU that it runs on and takes no 'sm'.",
            fix="Leave 'sm' out, or choose -O backend=tensorrt-rtx.",
        )
    return ()


def _described(backend: BackendName) -> str:
    package, title = _PACKAGES[backend]
    try:
        return f"{title} {version(package)}"
    except PackageNotFoundError:
        return title
