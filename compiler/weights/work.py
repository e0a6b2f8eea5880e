"""The folder in which a checkpoint is quantized: named by everything that decides its content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.quantize.dispatch import Request
from edgeq.compiler.weights.methods import method_of
from edgeq.compiler.weights.spec import WeightSpec
from edgeq.compiler.weights.store import WeightStore, empty
from edgeq.errors import EdgeqError
from edgeq.progress import Progress


@contextmanager
def opened_store(
    work: Path, checkpoint: Checkpoint, request: Request, specs: Mapping[str, WeightSpec]
) -> Iterator[WeightStore]:
    """The store of this quantization with its finished units; a damaged one starts anew.

    No other process quantizes in its folder as long as the block lasts.
    """
    folder = work / work_key(request, specs)
    with _alone(folder, request.progress):
        yield _open(folder, checkpoint, specs)


def _open(folder: Path, checkpoint: Checkpoint, specs: Mapping[str, WeightSpec]) -> WeightStore:
    try:
        store = WeightStore(folder, checkpoint)
        if all(store.spec(name) == specs.get(name) for name in store.layers):
            return store
    except (EdgeqError, OSError, ValueError, KeyError, TypeError):
        pass
    empty(folder)
    return WeightStore(folder, checkpoint)


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    handle = _locked(folder, progress)
    try:
        yield
    finally:
        os.close(handle)


def _locked(folder: Path, progress: Progress) -> int:
    """A handle of ``folder``, which no other process has locked."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"Another edgeq quantizes the same model in {folder}: waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        # The other one may have removed the folder when it was done.
        if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
        os.close(handle)


def work_key(request: Request, specs: Mapping[str, WeightSpec]) -> str:
    """Hash of source, specs, method, the format's rules and, where it is read, the calibration data.

    Formats that store the same weights have the same key.
    """
    content = {
        "edgeq": __version__,
        "source": request.model.source.sha256,
        "specs": {name: asdict(spec) for name, spec in specs.items()},
        **_rules(request, specs),
        **_method(request),
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _rules(request: Request, specs: Mapping[str, WeightSpec]) -> dict[str, Any]:
    rules = request.capabilities.weights
    assert rules is not None
    asymmetric = any(not spec.symmetric for spec in specs.values())
    return {
        "scale_dtype": rules.scale_dtype,
        "negative_scales": rules.negative_scales,
        "lowest_zero_point": rules.lowest_zero_point if asymmetric else None,
    }


def _method(request: Request) -> dict[str, Any]:
    recipe, source = request.recipe, request.calibration
    method = method_of(recipe)
    if method == "rtn" or source is None:
        return {"method": "rtn"}
    asked = {"damping": recipe.damping, "act_order": recipe.act_order} if method == "gptq" else {}
    samples = recipe.calibration_samples
    return {"method": method, "samples": samples, "calibration": source.describe(), **asked}
