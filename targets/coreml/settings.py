"""What decides a package's bytes besides the model: kept in the artefact, so that it can be built again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeq.errors import ModelError
from edgeq.targets.coreml.files import SETTINGS
from edgeq.targets.coreml.options import Arithmetic, CoreMLOptions
from edgeq.targets.dimensions import Dimension


@dataclass(frozen=True)
class Settings:
    """``ios`` is the deployment target; ``options`` have every dynamic dimension resolved.

    ``sampled_from`` says in words where the samples of the verification come from, ``float32_nodes`` are ONNX
    nodes that keep float32 in a float16 package, ``palettes`` weights → the form of their lookup tables.
    """

    ios: int
    arithmetic: Arithmetic
    options: CoreMLOptions
    scheme: str
    source_sha256: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    sampled_from: str = ""
    float32_nodes: tuple[str, ...] = ()
    palettes: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        """Write them into the artefact's folder; returns the file's name."""
        content = {
            "ios": self.ios,
            "arithmetic": self.arithmetic,
            "scheme": self.scheme,
            "source_sha256": self.source_sha256,
            "recipe": self.recipe,
            "sampled_from": self.sampled_from,
            "float32_nodes": list(self.float32_nodes),
            "palettes": self.palettes,
            "options": self.options.model_dump(mode="json", exclude={"dimensions"}),
            "dimensions": {name: asdict(size) for name, size in self.options.dimensions.items()},
        }
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8", newline="\n")
        return SETTINGS

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """The settings of the artefact in ``folder``.

        Raises:
            ModelError: they are missing or damaged.
        """
        path = folder / SETTINGS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            dimensions = {name: _dimension(size) for name, size in content.pop("dimensions").items()}
            options = CoreMLOptions(**{**content.pop("options"), "dimensions": dimensions})
            nodes = tuple(content.pop("float32_nodes"))
            return cls(options=options, float32_nodes=nodes, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
            raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error


def _dimension(content: dict[str, Any]) -> Dimension:
    return Dimension(**{**content, "choices": tuple(content["choices"])})
