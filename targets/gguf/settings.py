"""How a GGUF file was made: kept beside it, so that its tensors can be found again by the model's names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeq.targets.gguf.files import SETTINGS
from edgeq.targets.gguf.tensors import TensorPlace
from edgeq.targets.stored_settings import StoredSettings


class StoredPlace(BaseModel):
    """A tensor of the file; see :class:`edgeq.targets.gguf.tensors.TensorPlace`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int
    offset: float

    @classmethod
    def of(cls, place: TensorPlace) -> StoredPlace:
        """``place`` as it is stored."""
        return cls(
            name=place.name, source=place.source, shape=place.shape, heads=place.heads, offset=place.offset
        )

    @property
    def place(self) -> TensorPlace:
        """What it was made of."""
        return TensorPlace(self.name, self.source, self.shape, self.heads, self.offset)


class Settings(StoredSettings):
    """``version``: of the gguf package; ``file_type``: of the file; ``sampled_from``: whose the samples are.

    ``tokenizer``: ``tokenizer.ggml.model``, ``none`` where the model has none.
    """

    file = SETTINGS

    version: str
    scheme: str
    file_type: str
    architecture: str
    sampled_from: str
    tokenizer: str
    tensors: tuple[StoredPlace, ...]
