"""What the package says about itself: author, licence, and how edgeq made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.targets.coreml.frontend.signature import Signature
from edgeq.targets.coreml.options import CoreMLOptions
from edgeq.targets.coreml.package.folder import read_spec

SIGNATURE = "com.edgeq.signature"
VERSION = "com.edgeq.version"
SOURCE_SHA256 = "com.edgeq.source.sha256"
RECIPE = "com.edgeq.recipe"


@dataclass(frozen=True)
class Metadata:
    """The package's metadata. ``user`` holds every user-defined entry, edgeq's own included."""

    author: str = ""
    license: str = ""
    description: str = ""
    version: str = ""
    user: Mapping[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> Signature | None:
        """How the package's ports stand for the ONNX model's; None: edgeq did not write it."""
        text = self.user.get(SIGNATURE)
        return None if text is None else Signature.from_json(json.loads(text))

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The recipe that the package was made with; None: it says nothing."""
        text = self.user.get(RECIPE)
        return None if text is None else dict(json.loads(text))


def make_metadata(
    signature: Signature,
    options: CoreMLOptions,
    *,
    source_sha256: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> Metadata:
    """The user's words plus edgeq's entries: signature, version, source and recipe."""
    own = {SIGNATURE: _json(signature.to_json()), VERSION: __version__}
    if source_sha256:
        own[SOURCE_SHA256] = source_sha256
    if recipe is not None:
        own[RECIPE] = _json(recipe)
    return Metadata(
        options.author, options.license, options.description, options.version, {**options.user, **own}
    )


def set_metadata(spec: Any, metadata: Metadata) -> None:
    """Write ``metadata`` into the package's ``spec``, in place of what is there."""
    target = spec.description.metadata
    target.author = metadata.author
    target.license = metadata.license
    target.shortDescription = metadata.description
    target.versionString = metadata.version
    target.userDefined.clear()
    target.userDefined.update(metadata.user)


def read_metadata(path: Path) -> Metadata:
    """The metadata of the package at ``path``; raises TargetError when it is no package."""
    found = read_spec(path).description.metadata
    return Metadata(
        found.author, found.license, found.shortDescription, found.versionString, dict(found.userDefined)
    )


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
