"""Verifying a package of any origin against an ONNX model: nothing but the two is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeq.calibration.random_inputs import random_inputs
from edgeq.calibration.types import Arrays, TensorSpec
from edgeq.compiler.load import load
from edgeq.compiler.model import Model
from edgeq.errors import ModelError
from edgeq.targets.base import Check
from edgeq.targets.coreml.frontend.signature import Port, Signature, package_names
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.interpreter.structure import Feature, MilProgram
from edgeq.targets.coreml.package.metadata import SIGNATURE
from edgeq.targets.coreml.ports import with_random_images
from edgeq.targets.coreml.runner import KIND, InterpreterRunner
from edgeq.targets.numbers import distance, exact_check, half_check
from edgeq.targets.reference import Reference

SAMPLES = 4


def verify_package(package: Path, reference: Path, *, threads: int | None = None) -> tuple[str, list[Check]]:
    """Run the package and the ONNX model on the same random inputs; returns what ran it, and the checks.

    Raises:
        ModelError: one of them cannot be read, or their inputs and outputs do not belong together.
        TargetError: the package holds what the interpreter does not know.
    """
    model = load(str(reference))
    program = read_package(package)
    signature = None if SIGNATURE in program.metadata else _signature(model, program, package)
    with InterpreterRunner(package, signature) as runner:
        samples = _samples(runner.inputs, runner.signature, program)
        got = [runner.run(sample) for sample in samples]
    session = Reference(reference, threads)
    wanted = [session.run(sample) for sample in samples]
    half = any(result.type.dtype == "float16" for op in program.main.block.walk() for result in op.outputs)
    found = distance(wanted, got, floats_only=half)
    origin = f"{SAMPLES} random inputs"
    check = (
        half_check(found, origin, rounded=_rounds(program)) if half else exact_check(found, ("", ""), origin)
    )
    return KIND, [check]


def _rounds(program: MilProgram) -> bool:
    return any(operation.type == "quantize" for operation in program.main.block.walk())


def _signature(model: Model, program: MilProgram, package: Path) -> Signature:
    """The ports of both, matched by name."""
    return Signature(
        tuple(_ports(model.inputs, program.inputs, package)),
        tuple(_ports(model.outputs, program.outputs, package)),
    )


def _ports(specs: list[TensorSpec], features: tuple[Feature, ...], package: Path) -> list[Port]:
    names = package_names(spec.name for spec in specs)
    there = {feature.name: feature for feature in features}
    ports = []
    for spec in specs:
        name = spec.name if spec.name in there else names[spec.name]
        if name not in there and len(specs) == len(features) == 1:
            name = features[0].name
        if name not in there:
            raise ModelError(
                f"{package} has nothing called {spec.name!r} as the ONNX model has.",
                fix=f"It has: {', '.join(there)}.",
            )
        shape = there[name].shape if spec.shape is None else spec.shape
        ports.append(Port(spec.name, name, spec.dtype.name, shape))
    return ports


def _samples(specs: list[TensorSpec], signature: Signature, program: MilProgram) -> list[Arrays]:
    """Random inputs in the package's default sizes."""
    shapes = {feature.name: feature.shape for feature in program.inputs}
    fixed = [
        TensorSpec(spec.name, np.dtype(spec.dtype), shapes[port.package_name] if spec.shape else ())
        for spec, port in zip(specs, signature.inputs, strict=True)
    ]
    images = {port.name: port.image for port in signature.inputs if port.image is not None}
    return [with_random_images(random_inputs(fixed, seed=seed), images, seed) for seed in range(SAMPLES)]
