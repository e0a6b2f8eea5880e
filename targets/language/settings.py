"""How an artefact's weights were made: kept in it, so that it can be verified without what it was made of."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from edgeq.compiler.weights.spec import Form, QuantizedWeight, WeightSpec
from edgeq.targets.language.files import SETTINGS
from edgeq.targets.language.values import values_sha256
from edgeq.targets.stored_settings import StoredSettings


class StoredLayer(BaseModel):
    """A quantized layer: its spec, its shape, and the SHA-256 of its values in float32, row by row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: int
    group_size: int
    symmetric: bool
    form: Form
    outputs: int
    inputs: int
    sha256: str

    @classmethod
    def of(cls, weight: QuantizedWeight) -> StoredLayer:
        """Of a layer that is stored with these weights."""
        outputs, inputs = weight.codes.shape
        sha256 = values_sha256(weight.dequantize())
        return cls(**asdict(weight.spec), outputs=outputs, inputs=inputs, sha256=sha256)

    @property
    def spec(self) -> WeightSpec:
        return WeightSpec(self.bits, self.group_size, self.symmetric, self.form)


class LanguageSettings(StoredSettings):
    """``dtype``: of what is not quantized. ``versions``: of the packages that the format's readers are.

    ``sampled_from``: whose token ids the numbers are compared on.
    """

    file = SETTINGS

    target: str
    scheme: str
    options: dict[str, str]
    dtype: str
    architecture: str
    versions: dict[str, str]
    sampled_from: str
    layers: dict[str, StoredLayer]
