"""The Python packages that hold a compiler and its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from edgeq.targets.tensorrt.backend.request import BackendName


@dataclass(frozen=True)
class Package:
    """``module`` is the name of the distribution too; ``install`` says how to get it."""

    module: str
    title: str
    install: str

    @property
    def described(self) -> str:
        """Title, and version where one is installed from a wheel."""
        try:
            return f"{self.title} {version(self.module)}"
        except PackageNotFoundError:
            return self.title


PACKAGES: Mapping[BackendName, Package] = {
    "tensorrt": Package(
        "tensorrt",
        "TensorRT",
        "Use NVIDIA's container (docs/tensorrt.md), or install NVIDIA's tensorrt package.",
    ),
    "tensorrt-rtx": Package(
        "tensorrt_rtx", "TensorRT for RTX", "Install it with: pip install 'edgeq[tensorrt-rtx]'"
    ),
}


def importable(backend: BackendName) -> bool:
    """Whether the module of ``backend`` is there."""
    return find_spec(PACKAGES[backend].module) is not None
