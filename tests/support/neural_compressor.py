"""Small PyTorch models through the target ``neural-compressor``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import edgeq
from edgeq.calibration.types import Array
from edgeq.manifest import Manifest
from edgeq.result import CompileResult

SAMPLES = 16


@dataclass(frozen=True)
class Artefact:
    """What was compiled, and what it says about itself."""

    folder: Path
    manifest: Manifest

    @classmethod
    def read(cls, place: Path) -> Artefact:
        """What :func:`build` has written into ``place``."""
        folder = place / "net-neural-compressor"
        return cls(folder, Manifest.read(folder))


class Grid(nn.Module):
    """One layer of each kind, named after what it is; one output per group of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.residual = nn.Conv2d(16, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 24, 1)
        self.transposed = nn.ConvTranspose2d(24, 8, 2, 2)
        # One channel and a dynamic batch: PyTorch's compiler takes the layout of the result for another.
        self.gray = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.behind_gray = nn.Conv2d(8, 8, 3, padding=1)
        self.temporal = nn.Conv1d(8, 12, 3, padding=1)
        self.recurrent = nn.LSTM(12, 8, batch_first=True)
        self.gated = nn.GRU(8, 8, batch_first=True)
        self.words = nn.Embedding(1200, 16)
        self.kinds = nn.Embedding(3, 16)
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16)
        self.value = nn.Linear(16, 16)
        self.scale = nn.LayerNorm(16)
        self.wide = nn.Linear(16, 40)
        self.narrow = nn.Linear(40, 16)

    def forward(
        self, image: Tensor, gray: Tensor, series: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes [batch, 3, 12, 12], [batch, 1, 12, 12], [batch, 8, 10], int64 [batch, 6]."""
        return self._vision(image) + self._gray(gray), self._series(series), self._text(tokens)

    def _vision(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        x = self.pool(torch.relu(self.residual(x) + x))
        return self.transposed(self.pointwise(self.depthwise(x))).mean((2, 3))

    def _gray(self, gray: Tensor) -> Tensor:
        return self.behind_gray(torch.relu(self.gray(gray))).mean((2, 3))

    def _series(self, series: Tensor) -> Tensor:
        x = torch.relu(self.temporal(series)).transpose(1, 2)
        x, _ = self.recurrent(x)
        x, _ = self.gated(x)
        return x[:, -1]

    def _text(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.kinds(tokens % 3)
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 4, -1)
        x = self.scale(x + weights @ self.value(x))
        return self.narrow(nn.functional.gelu(self.wide(x))).mean(1)


class Layers(nn.Module):
    """Shape [batch, 24] to [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(24, 48)
        self.second = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        found: Tensor = self.second(torch.relu(self.first(x)))
        return found


def seeded(kind: type[nn.Module]) -> nn.Module:
    """A module of ``kind`` with the same weights in every run, in evaluation mode."""
    torch.manual_seed(0)
    return kind().eval()


def grid_inputs(count: int = SAMPLES, seed: int = 1) -> dict[str, Array]:
    """Inputs of :class:`Grid`."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.normal(size=(count, 3, 12, 12)).astype(np.float32),
        "gray": rng.random(size=(count, 1, 12, 12)).astype(np.float32),
        "series": rng.normal(size=(count, 8, 10)).astype(np.float32),
        "tokens": rng.integers(0, 1200, (count, 6)),
    }


def layers_inputs(count: int = SAMPLES, seed: int = 1) -> dict[str, Array]:
    """Inputs of :class:`Layers`."""
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(count, 24)).astype(np.float32)}


def outputs(module: nn.Module, inputs: dict[str, Array]) -> list[Array]:
    """What ``module`` computes in float32."""
    with torch.no_grad():
        found = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]


def build(
    module: nn.Module, inputs: dict[str, Array], scheme: str, folder: Path, **options: object
) -> CompileResult:
    """Compile ``module``, whose first axes are a dynamic batch, without measuring."""
    return edgeq.compile(
        module,
        target="neural-compressor",
        scheme=scheme,
        calibration=inputs if scheme == "int8-static" else None,
        evaluation=inputs if scheme != "int8-static" else None,
        output=folder / "net",
        threads=1,
        bench=None,
        example_inputs={name: torch.from_numpy(array[:2]) for name, array in inputs.items()},
        **options,  # type: ignore[arg-type]
    )
