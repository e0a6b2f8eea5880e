"""What decides a package's bytes besides the model: kept in the artefact, so that it can be built again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeq.errors import ModelError
from edgeq.targets.coreml.files import SETTINGS
from edgeq.targets.coreml.frontend.dimensions import Dimension
from edgeq.targets.coreml.options import Arithmetic, CoreMLOptions


@dataclass(frozen=True)
class Settings:
    """``ios`` is the deployment target; ``options`` have every dynamic dimension resolved.

    ``sampled_from`` says in words where the samples of the verification come from.
    """

    ios: int
    arithmetic: Arithmetic
    options: CoreMLOptions
    scheme: str
    source_sha256: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    sampled_from: str = ""

    @property
    def palettized(self) -> bool:
        """Whether weights are indices into lookup tables, which cannot be computed twice."""
        return self.scheme.startswith("palettize")

    def write(self, folder: Path) -> str:
        """Write them into the artefact's folder; returns the file's name."""
        content = {
            "ios": self.ios,
            "arithmetic": self.arithmetic,
            "scheme": self.scheme,
            "source_sha256": self.source_sha256,
            "recipe": self.recipe,
            "sampled_from": self.sampled_from,
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
            return cls(options=options, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
            raise ModelError(f"{path} cannot be read: {error}.", fix="Compile the model again.") from error


def _dimension(content: dict[str, Any]) -> Dimension:
    return Dimension(**{**content, "choices": tuple(content["choices"])})
