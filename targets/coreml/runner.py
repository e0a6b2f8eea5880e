"""Runs a package with the interpreter, behind the interface of every runner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import ModelError, TargetError
from edgeq.targets.coreml.frontend.signature import Signature
from edgeq.targets.coreml.interpreter.engine import Arithmetic, Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.package.metadata import SIGNATURE
from edgeq.targets.coreml.ports import PortRunner, from_package, to_package
from edgeq.targets.inputs import closed_runner

KIND = "verified by interpreter, not run on Apple hardware"


class InterpreterRunner(PortRunner):
    """Arrays of the ONNX model in, arrays of the ONNX model out; the arithmetic is numpy's."""

    def __init__(
        self, package: Path, signature: Signature | None = None, *, arithmetic: Arithmetic = "declared"
    ) -> None:
        """Read the package at ``package``; without ``signature`` the one that edgeq stored in it.

        Raises:
            ModelError: the package is damaged.
            TargetError: it holds an operation that the interpreter does not know, or no signature.
        """
        program = read_package(package)
        super().__init__(signature or _stored(program.metadata, package))
        self._interpreter: Interpreter | None = Interpreter(program, arithmetic=arithmetic)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: an input is missing, unknown, or has the wrong dtype or shape.
            TargetError: the runner is closed, or an input has a size that the package does not allow.
        """
        if self._interpreter is None:
            raise closed_runner()
        return from_package(self.signature, self._interpreter.run(to_package(self.signature, inputs)))

    def close(self) -> None:
        self._interpreter = None


def _stored(metadata: Mapping[str, str], package: Path) -> Signature:
    text = metadata.get(SIGNATURE)
    if text is None:
        raise TargetError(
            f"{package} was not written by edgeq: it does not say which ONNX inputs it has.",
            fix="Verify it with: edgeq verify PACKAGE --reference model.onnx",
        )
    try:
        return Signature.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{package} does not say which ONNX inputs it has: {SIGNATURE} is damaged."
        ) from error
