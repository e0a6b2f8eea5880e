"""What is checked of a written IR: its numbers against its ONNX model, its files against a second writing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeq.calibration.types import Arrays
from edgeq.targets.base import Check
from edgeq.targets.numbers import distance, exact_check, half_check, reordered_sums, rounded_check
from edgeq.targets.openvino.convert import write_ir
from edgeq.targets.openvino.files import MODEL, WEIGHTS
from edgeq.targets.openvino.runner import OpenVINORunner
from edgeq.targets.openvino.settings import Settings
from edgeq.targets.reference import REFERENCE, Reference, load_reference, load_samples


def prove(folder: Path, threads: int | None) -> list[Check]:
    """Run the IR in ``folder`` and its reference on the samples, and compare.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: OpenVINO cannot compile or run the model.
    """
    settings, samples = Settings.read(folder), load_samples(folder)
    # Sums are split by the number of threads, which would change their last bits.
    reference = Reference(folder / REFERENCE, threads=1)
    wanted = [reference.run(sample) for sample in samples]
    return [_numbers(wanted, _outputs(folder, samples, threads), settings)]


def prove_again(folder: Path, threads: int | None) -> list[Check]:
    """:func:`prove`, and that writing the IR again from its reference gives the same bytes.

    Raises:
        ModelError: the artefact is damaged.
        TargetError: OpenVINO cannot compile or run the model.
    """
    return [_rewritten(folder), *prove(folder, threads)]


def _numbers(wanted: Sequence[Arrays], got: Sequence[Arrays], settings: Settings) -> Check:
    if settings.scheme == "int8-static":
        return rounded_check(distance(wanted, got, floats_only=True), settings.sampled_from)
    if settings.options.precision != "f32":
        return half_check(distance(wanted, got, floats_only=True), settings.sampled_from, rounded=False)
    found = distance(wanted, got)
    return exact_check(found, (reordered_sums(found), ""), settings.sampled_from)


def _outputs(folder: Path, samples: Sequence[Arrays], threads: int | None) -> list[Arrays]:
    with OpenVINORunner(folder, threads=threads) as runner:
        return [runner.run(sample) for sample in samples]


def _rewritten(folder: Path) -> Check:
    import openvino

    settings, wanted = Settings.read(folder), "the bytes that the reference model gives"
    version = openvino.get_version()
    if version != settings.version:
        text = f"written by OpenVINO {settings.version}; {version} here may write other bytes"
        return Check("model", True, text, wanted)
    with tempfile.TemporaryDirectory(prefix="edgeq-openvino-") as temporary:
        again = Path(temporary)
        inputs = load_reference(folder).inputs
        write_ir(folder / REFERENCE, inputs, settings.options.dimensions, again)
        other = [name for name in (MODEL, WEIGHTS) if _bytes(folder / name) != _bytes(again / name)]
    text = f"{other[0]} is another one" if other else "the same bytes when written again"
    return Check("model", not other, text, wanted)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
