"""Whether an engine can run on a GPU."""

from __future__ import annotations

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.architectures import ARCHITECTURES, written
from edgeq.targets.tensorrt.gpu.device import Device
from edgeq.targets.tensorrt.settings import Settings


def check_built_for(settings: Settings, device: Device) -> None:
    """Refuse an engine that was built for other compute capabilities than that of ``device``.

    An engine of TensorRT for RTX runs on the compute capabilities that it names; one of TensorRT on the kind
    of GPU that it was built on, which only loading it can tell.

    Raises:
        TargetError: naming the compute capabilities it was built for.
    """
    if not settings.sm or device.sm in settings.sm:
        return
    built = ", ".join(_title(sm) for sm in settings.sm)
    raise TargetError(
        f"The engine was built for the compute capabilities {built}, and this GPU ({device.name}) has "
        f"{written(device.sm)}.",
        fix=_fix(device.sm),
    )


def _fix(sm: int) -> str:
    if sm in ARCHITECTURES:
        return f"Compile for it: --sm {sm}."
    return "Compile with -O backend=tensorrt on this machine: TensorRT for RTX does not build for this GPU."


def _title(sm: int) -> str:
    return f"{written(sm)} ({ARCHITECTURES[sm]})" if sm in ARCHITECTURES else written(sm)
