"""A small residual CNN for 16x16 gray digits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[2] / "build" / "digits"
WEIGHTS = "digits.pt"


class Block(nn.Module):
    """Two convolutions with BatchNorm and a residual connection, as in ResNet."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.skip = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Shape [batch, channels, height, width] to [batch, width, height/stride, width/stride]."""
        return torch.relu(self.body(x) + self.skip(x))


class DigitNet(nn.Module):
    """Shape [batch, 1, 16, 16], values 0..1, to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            Block(32, 32),
            Block(32, 64, stride=2),
            Block(64, 128, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, image: Tensor) -> Tensor:
        """The logits, [batch, 10]."""
        logits: Tensor = self.head(self.features(image))
        return logits


def trained() -> tuple[DigitNet, tuple[Tensor]]:
    """What ``prepare.py`` trained, and inputs to export it with: a factory for ``edgeq compile``."""
    model = DigitNet()
    model.load_state_dict(torch.load(FOLDER / WEIGHTS, weights_only=True))
    return model.eval(), (torch.zeros(2, 1, 16, 16),)
