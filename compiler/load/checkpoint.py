"""A Hugging Face language model as its files: tensors are read one at a time, no graph is exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.load.digest import files_sha256
from edgeq.compiler.load.hugging_face import read_folder
from edgeq.compiler.model import Model, Source
from edgeq.errors import DataError, MissingExtraError, ModelError
from edgeq.progress import Progress

# Names of types in safetensors files.
DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
# Tables that models compute themselves; old checkpoints of Llama store them beside the weights.
_COMPUTED = (".rotary_emb.inv_freq",)
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
_TOKENIZER = "tokenizer.json"
# Beside the weights, what artefacts get a copy of, or are written from.
_COMPANIONS = (
    _TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "generation_config.json",
)
_AGAIN = "Download or save the model again."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file."""

    file: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def array(self) -> Array:
        """The values as they are stored, bfloat16 as ``ml_dtypes.bfloat16``; pages are mapped, not copied."""
        if self.nbytes == 0:
            return np.zeros(self.shape, self.dtype)
        flat = np.memmap(self.file, np.uint8, "r", self.offset, (self.nbytes,))
        return np.asarray(flat.view(self.dtype).reshape(self.shape))


class Checkpoint:
    """The tensors of a folder's safetensors files, sharded or not, by name in the order of the files."""

    def __init__(self, path: Path) -> None:
        """Read the headers.

        Raises:
            ModelError: no ``config.json``, no safetensors files, or damaged ones.
        """
        self.path = path
        self._folder = read_folder(path)
        self.files = _weight_files(path, self._folder.weights)
        if not self.files:
            raise ModelError(
                f"{path} has no *.safetensors files, from which weights can be read one at a time.",
                fix="Save it with save_pretrained(folder, safe_serialization=True).",
            )
        found = {name: tensor for file in self.files for name, tensor in read_safetensors(file).items()}
        self.tensors = {name: tensor for name, tensor in found.items() if not name.endswith(_COMPUTED)}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        loaded: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return loaded

    @property
    def architecture(self) -> str:
        return self._folder.architecture

    @property
    def model_type(self) -> str:
        return self._folder.model_type

    def read(self, name: str) -> Array:
        """The tensor as it is stored (:meth:`StoredTensor.array`)."""
        return self.tensors[name].array()

    def float32(self, name: str) -> Array:
        """A float32 copy."""
        return self.read(name).astype(np.float32)


def _weight_files(path: Path, there: list[Path]) -> list[Path]:
    """The files that transformers would load: one, those that an index names, or all without either.

    Others hold the same weights again under other names (``consolidated.safetensors``).

    Raises:
        ModelError: the index cannot be read, or names a file that is missing.
    """
    if (single := path / "model.safetensors").is_file():
        return [single]
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(file for file in there if file.suffix == ".safetensors")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (path / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read: {error}.", fix=_AGAIN) from error
    if missing:
        raise ModelError(f"{index} names {missing[0]!r}, which is missing.", fix=_AGAIN)
    return [path / name for name in names]


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Tensor name → place; the format is 8 bytes of header length, a JSON header, then the data.

    Raises:
        ModelError: the file is damaged or has a type that numpy does not know.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= size else None
        if not isinstance(header, dict):
            raise ValueError("it is no safetensors file")
        start = 8 + length
        found = {
            name: StoredTensor(
                path,
                np.dtype(DTYPES[entry["dtype"]]),
                tuple(entry["shape"]),
                start + entry["data_offsets"][0],
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
        for name, tensor in found.items():
            if tensor.offset + tensor.nbytes > size:
                raise ValueError(f"{name} ends behind the end of the file")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", fix=_AGAIN) from error
    return found


def _refuse_sizes(path: Path, config: dict[str, Any]) -> None:
    """Sizes that are none: formats and transformers compute with them, each in its own way."""
    for name in _SIZES:
        value = config.get(name, 1)
        if value is not None and (type(value) is not int or value < 1):
            raise ModelError(
                f"{path / 'config.json'}: {name} is {value!r}, not a number above 0.", fix=_AGAIN
            )


def _refuse_damaged(path: Path) -> None:
    """Raise where a file that goes along into artefacts cannot be read: downloads end early.

    Raises:
        ModelError: naming the file.
    """
    from edgeq.calibration.data.tokens import load_tokenizer

    for name in _COMPANIONS:
        file = path / name
        if not file.is_file():
            continue
        try:
            json.loads(file.read_text(encoding="utf-8"))
            if name == _TOKENIZER:
                load_tokenizer(file, str(path))
        except MissingExtraError:
            continue
        except (OSError, ValueError) as error:
            raise ModelError(f"{file} cannot be read: {error}.", fix=_AGAIN) from error
        except DataError as error:
            raise ModelError(error.what, fix=_AGAIN) from error


def load_checkpoint(path: Path, progress: Progress) -> Model:
    """The language model in ``path`` as a model without nodes: ``input_ids`` to ``logits``.

    Its weights stay in the folder and are read when they are needed (:class:`Checkpoint`).

    Raises:
        ModelError: it is no folder of a causal language model with safetensors files.
    """
    checkpoint = Checkpoint(path)
    config = checkpoint.config
    vocabulary = config.get("vocab_size")
    if not checkpoint.architecture.endswith("ForCausalLM") or not isinstance(vocabulary, int):
        architecture = checkpoint.architecture or "not named"
        raise ModelError(
            f"{path} is no causal language model (its architecture is {architecture}).",
            fix="Choose a target that compiles a graph: onnxruntime, openvino, tensorrt, coreml.",
        )
    _refuse_sizes(path, config)
    _refuse_damaged(path)
    ids = ir.val("input_ids", ir.DataType.INT64, ["batch", "sequence"])
    logits = ir.val("logits", ir.DataType.FLOAT, ["batch", "sequence", vocabulary])
    graph = ir.Graph([ids], [logits], nodes=[], opset_imports={"": 18}, name="checkpoint")
    digest = files_sha256(path / "config.json", checkpoint.files, progress)
    details: dict[str, Any] = {
        "form": "checkpoint",
        "architecture": checkpoint.architecture,
        "model_type": checkpoint.model_type,
        "task": "text-generation",
        "vocabulary": vocabulary,
    }
    if config.get("max_position_embeddings"):
        details["context"] = config["max_position_embeddings"]
    tokenizer = read_folder(path).tokenizer
    if tokenizer:
        details["tokenizer"] = tokenizer
    return Model(ir.Model(graph, ir_version=10), Source("hf", str(path), digest, details))
