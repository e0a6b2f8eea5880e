"""Safetensors files written tensor by tensor, read by safetensors itself."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.torch import load_file

from edgeq.errors import InternalError
from edgeq.targets.language.shards import LazyTensor, write_shards
from edgeq.targets.language.stored import StoredFolder

ARRAYS = {
    "b.odd": np.arange(7, dtype=np.int8),
    "a.weight": np.linspace(-1, 1, 12, dtype=np.float16).reshape(3, 4),
    "c.brain": np.linspace(-2, 2, 6, dtype=np.float32).astype(ml_dtypes.bfloat16),
    "d.words": np.arange(10, dtype=np.int32).reshape(5, 2),
    "e.shape": np.array([3, 4], np.int64),
}


def _lazy() -> list[LazyTensor]:
    return [LazyTensor(n, a.dtype, a.shape, lambda a=a: a) for n, a in ARRAYS.items()]


@pytest.mark.parametrize(("largest", "files"), [(1 << 20, 1), (40, 4), (1, 5)])
def test_shards(tmp_path: Path, largest: int, files: int) -> None:
    names = write_shards(_lazy(), tmp_path, largest=largest)
    shards = [name for name in names if name.endswith(".safetensors")]
    assert len(shards) == files
    found = {}
    for name in shards:
        found |= load_file(tmp_path / name)
    for name, array in ARRAYS.items():
        assert found[name].float().numpy().tolist() == array.astype(np.float32).tolist()
        assert np.array_equal(StoredFolder(tmp_path).array(name), array)
    if files > 1:
        index = json.loads((tmp_path / names[-1]).read_text())
        assert index["metadata"]["total_size"] == sum(array.nbytes for array in ARRAYS.values())
        assert set(index["weight_map"]) == set(ARRAYS)
        assert shards[0] == f"model-00001-of-{files:05d}.safetensors"


def test_one_tensor_is_made_at_a_time(tmp_path: Path) -> None:
    made: list[str] = []
    tensors = [
        LazyTensor(n, a.dtype, a.shape, lambda n=n, a=a: made.append(n) or a) for n, a in ARRAYS.items()
    ]
    assert not made
    write_shards(tensors, tmp_path)
    assert sorted(made) == sorted(ARRAYS)


def test_a_header_that_lies_is_a_defect(tmp_path: Path) -> None:
    wrong = LazyTensor("a", np.dtype(np.float16), (2, 2), lambda: np.zeros((2, 3), np.float16))
    with pytest.raises(InternalError, match="its header says"):
        write_shards([wrong], tmp_path)
