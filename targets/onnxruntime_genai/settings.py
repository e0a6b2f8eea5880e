"""How an artefact was made: kept in it, so that it can be verified without what it was made of."""

from __future__ import annotations

from edgeq.targets.language.settings import StoredLayer
from edgeq.targets.stored_settings import StoredSettings


class GenaiSettings(StoredSettings):
    """``sampled_from``: whose token ids numbers are compared on. ``accuracy_level``: of every MatMulNBits."""

    file = "edgeq-genai.json"

    versions: dict[str, str]
    sampled_from: str
    accuracy_level: int
    layers: dict[str, StoredLayer]
