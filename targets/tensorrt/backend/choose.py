"""Which compiler builds, and for which GPUs."""

from __future__ import annotations

import sys

from edgeq.errors import TargetError
from edgeq.targets.base import Availability
from edgeq.targets.tensorrt.architectures import ARCHITECTURES, DEFAULT_SM
from edgeq.targets.tensorrt.backend.packages import PACKAGES, importable
from edgeq.targets.tensorrt.backend.request import BackendName
from edgeq.targets.tensorrt.options import TensorRTOptions

_INSTALL = "pip install 'edgeq[tensorrt-rtx]'"


def availability() -> Availability:
    """Which compilers can be imported here, and what they build for; nothing is imported for it."""
    found = [text for text in (_classic_found(), _rtx_found()) if text]
    if found:
        return Availability(True, "; ".join(found))
    if sys.platform == "darwin":
        return Availability(
            False, "NVIDIA has no TensorRT for macOS: use a Linux container (docs/tensorrt.md)"
        )
    return Availability(False, "neither TensorRT for RTX nor TensorRT with a GPU is here", _INSTALL)


def choose(options: TensorRTOptions) -> tuple[BackendName, tuple[int, ...]]:
    """The backend, and the compute capabilities that it builds for (none: the GPU of this machine).

    ``auto`` is TensorRT where it can build for what is asked, else TensorRT for RTX.

    Raises:
        TargetError: no compiler can be imported, or it cannot build for what is asked.
    """
    if prefers_classic(options):
        _refuse_classic(options, _own_sm())
        return "tensorrt", ()
    _refuse_rtx(options, _own_sm())
    return "tensorrt-rtx", compute_capabilities(options)


def prefers_classic(options: TensorRTOptions) -> bool:
    """Whether the backend is ``tensorrt``, by the options or because it can build on this machine."""
    if options.backend != "auto":
        return options.backend == "tensorrt"
    own = _own_sm()
    return importable("tensorrt") and own is not None and options.sm in ((), (own,))


def compute_capabilities(options: TensorRTOptions) -> tuple[int, ...]:
    """Those of ``options``, else that of the GPU of this machine, else the default ones."""
    own = _own_sm()
    return options.sm or (DEFAULT_SM if own is None else (own,))


def _own_sm() -> int | None:
    """The compute capability of the GPU of this machine, times ten; None without one."""
    from edgeq.targets.tensorrt.gpu.device import compute_capability

    return compute_capability()


def _refuse_classic(options: TensorRTOptions, own: int | None) -> None:
    if not importable("tensorrt"):
        raise TargetError(
            "The backend 'tensorrt' is not installed.",
            fix="Use NVIDIA's container (docs/tensorrt.md), or choose -O backend=tensorrt-rtx.",
        )
    if own is None:
        raise TargetError(
            "The backend 'tensorrt' builds on the GPU that it builds for, and this machine has none.",
            fix="Start the container with --gpus all, or choose -O backend=tensorrt-rtx, which builds ahead "
            "of time on a CPU.",
        )
    if options.sm not in ((), (own,)):
        raise TargetError(
            f"The backend 'tensorrt' builds for the GPU that it runs on alone, which is SM{own}, and not in "
            "its slower mode of hardware compatibility.",
            fix="Leave --sm out, or choose -O backend=tensorrt-rtx.",
        )


def _refuse_rtx(options: TensorRTOptions, own: int | None) -> None:
    if not importable("tensorrt-rtx"):
        if options.backend == "auto" and importable("tensorrt"):
            _refuse_classic(options, own)
        raise TargetError(
            "TensorRT for RTX, which builds engines ahead of time, is not installed.",
            fix=PACKAGES["tensorrt-rtx"].install,
        )
    if not options.sm and own is not None and own not in ARCHITECTURES:
        raise TargetError(
            f"TensorRT for RTX does not build for the GPU of this machine, which is SM{own}.",
            fix=f"Install TensorRT, or build for another GPU: --sm {','.join(map(str, DEFAULT_SM))}.",
        )
    if options.timing_cache is not None:
        raise TargetError(
            "The option 'timing_cache' has no effect with TensorRT for RTX, which would build here: it times "
            "nothing when it builds.",
            fix="Leave it out.",
        )


def _classic_found() -> str:
    own = _own_sm()
    if own is None or not importable("tensorrt"):
        return ""
    return f"{PACKAGES['tensorrt'].described} for the GPU of this machine (SM{own})"


def _rtx_found() -> str:
    if not importable("tensorrt-rtx"):
        return ""
    known = ", ".join(f"SM{sm}" for sm in ARCHITECTURES)
    return f"{PACKAGES['tensorrt-rtx'].described} for {known}, with or without a GPU"
