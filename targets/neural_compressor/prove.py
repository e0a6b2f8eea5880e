"""What is checked of a package: its numbers, the kernels that really ran, and that PyTorch alone runs it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq.calibration.types import Array
from edgeq.errors import ModelError, TargetError
from edgeq.targets.base import Check
from edgeq.targets.neural_compressor.files import EXPECTED, MODEL
from edgeq.targets.neural_compressor.placement import Placement
from edgeq.targets.neural_compressor.process import run_module
from edgeq.targets.neural_compressor.settings import Settings
from edgeq.targets.neural_compressor.trial import RESULTS, TOLD
from edgeq.targets.numbers import distance, exact_check, reordered_sums, rounded_check
from edgeq.targets.reference import load_samples

REFERENCE = "the program before it was compiled"
# Primitives of oneDNN that are layers; the others reorder values.
_LAYERS = ("convolution", "matmul", "inner_product")


def prove(folder: Path, threads: int | None) -> list[Check]:
    """Run the package in ``folder`` on the samples, in a fresh process, and compare with what it should do.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: this machine cannot run the package.
    """
    settings, placement = Settings.read(folder), Placement.read(folder)
    wanted = load_samples(folder, EXPECTED)
    trial = _try_out(folder, threads)
    found = distance(wanted, trial.results, floats_only=settings.scheme != "fp32")
    if settings.scheme == "fp32":
        numbers = exact_check(found, (reordered_sums(found), ""), settings.sampled_from, REFERENCE)
    else:
        numbers = rounded_check(found, settings.sampled_from, REFERENCE)
    return [numbers, _kernels(placement.layers, trial), _alone(trial)]


def prove_again(folder: Path, threads: int | None) -> list[Check]:
    """:func:`prove`, of a package or of a folder of INT4 weights.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: this machine cannot run it.
    """
    if (folder / MODEL).is_file():
        return prove(folder, threads)
    from edgeq.targets.neural_compressor.weight_only.prove import prove_again as prove_weights

    return prove_weights(folder, threads)


@dataclass(frozen=True)
class _Trial:
    """``kernels``: implementation of every layer in INT8 that oneDNN has executed, over all samples."""

    results: list[dict[str, Array]]
    kernels: tuple[str, ...]
    compilers: tuple[str, ...]


def _try_out(folder: Path, threads: int | None) -> _Trial:
    with TemporaryDirectory(prefix="edgeq-trial-") as name:
        working = Path(name)
        ended = run_module(
            "edgeq.targets.neural_compressor.trial",
            (str(folder.absolute()), str(working), str(threads or 0)),
            working,
            {"ONEDNN_VERBOSE": "1"},
        )
        if ended.failed or not (working / TOLD).is_file():
            raise TargetError(f"The package fails in a fresh process: {ended.why}.")
        told = json.loads((working / TOLD).read_text(encoding="utf-8"))
        if "error" in told:
            kind = ModelError if told["kind"] == "ModelError" else TargetError
            raise kind(told["error"], fix=told["fix"])
        results = load_samples(working, RESULTS)
    return _Trial(results, tuple(_int8_layers(ended.output)), tuple(told["compilers"]))


def _int8_layers(output: str) -> Iterator[str]:
    """Implementations of the layers with INT8 weights, from what oneDNN writes with ONEDNN_VERBOSE=1."""
    for line in output.splitlines():
        fields = line.split(",")
        if not line.startswith("onednn_verbose") or "exec" not in fields:
            continue
        kind, implementation, _, descriptors = fields[(at := fields.index("exec")) + 2 : at + 6]
        if kind in _LAYERS and " wei:s8:" in descriptors and descriptors.startswith(("src:u8", "src:s8")):
            yield implementation


def _kernels(layers: int, trial: _Trial) -> Check:
    runs = max(len(trial.results), 1)
    counted = Counter(trial.kernels)
    told = ", ".join(f"{name} {count / runs:g}x" for name, count in sorted(counted.items()))
    found = f"{len(trial.kernels) / runs:g} executed by oneDNN" + (f" ({told})" if told else "")
    return Check(
        "int8 kernels", len(trial.kernels) == layers * runs, found, f"the {layers} that the compiler placed"
    )


def _alone(trial: _Trial) -> Check:
    found = f"loaded {', '.join(trial.compilers)}" if trial.compilers else "loads and runs with PyTorch alone"
    return Check("fresh process", not trial.compilers, found, "no compiler and no quantizer is loaded")
