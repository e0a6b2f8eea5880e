"""Reads an ``.mlpackage`` without coremltools' own loader: the independent half of the check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError
from edgeq.targets.coreml.interpreter.features import feature
from edgeq.targets.coreml.interpreter.structure import (
    Block,
    Feature,
    Function,
    MilProgram,
    Operation,
    Result,
    Value,
)
from edgeq.targets.coreml.interpreter.values import ValueReader, tensor_type
from edgeq.targets.coreml.toolkit import coremltools

Message = Any

_OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18}

__all__ = ["MilProgram", "read_package"]


def read_package(path: Path) -> MilProgram:
    """Read the package ``path`` (``….mlpackage``).

    Raises:
        ModelError: it is malformed: a file is missing or truncated, a blob is not what the program says, an
            operation reads a value that nothing computes.
    """
    file = _model_file(path)
    model = _parse(file)
    if model.WhichOneof("Type") != "mlProgram":
        raise ModelError(f"The package {path} holds a {model.WhichOneof('Type')}, expected an ML program.")
    values = ValueReader(file.parent)
    functions = {name: _function(name, f, values) for name, f in model.mlProgram.functions.items()}
    entry = model.description.defaultFunctionName or "main"
    if entry not in functions:
        raise ModelError(f"The package {path} has no function {entry!r}.")
    inputs, outputs = _interface(model.description, entry)
    program = MilProgram(
        int(model.specificationVersion), functions, entry, inputs, outputs, _metadata(model.description)
    )
    _check_interface(program)
    return program


def _model_file(path: Path) -> Path:
    manifest = path / "Manifest.json"
    try:
        content = json.loads(manifest.read_text())
        root = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except OSError as error:
        raise ModelError(
            f"The package {path} has no Manifest.json that can be read: {error.strerror}."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The manifest {manifest} does not name the model of the package.") from error
    file = path / "Data" / str(root)
    if not file.resolve().is_relative_to(path.resolve()):
        raise ModelError(f"The manifest {manifest} names {root!r}, which is outside the package.")
    return file


def _parse(file: Path) -> Message:
    coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"The model file {file} cannot be read: {error.strerror}.") from error
    model = Model_pb2.Model()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"The model file {file} is not a protobuf of a Core ML model.") from error
    return model


def _interface(description: Message, entry: str) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    described = next((f for f in description.functions if f.name == entry), description)
    if described.state:
        raise ModelError(
            f"The package keeps a state ({described.state[0].name!r}), which edgeq does not run."
        )
    return tuple(map(feature, described.input)), tuple(map(feature, described.output))


def _metadata(description: Message) -> dict[str, str]:
    fields = ("author", "license", "shortDescription", "versionString")
    own = {name: getattr(description.metadata, name) for name in fields}
    return {**{name: text for name, text in own.items() if text}, **dict(description.metadata.userDefined)}


def _function(name: str, message: Message, values: ValueReader) -> Function:
    block = message.block_specializations.get(message.opset)
    if block is None or message.opset not in _OPSETS:
        raise ModelError(f"The function {name!r} has the opset {message.opset!r}, which edgeq does not know.")
    inputs = _results(message.inputs, f"function {name!r}")
    function = Function(inputs, _block(block, values), _OPSETS[message.opset])
    _check_scope(function.block, {result.name for result in inputs}, f"function {name!r}")
    return function


def _results(messages: Iterable[Message], where: str) -> tuple[Result, ...]:
    return tuple(Result(m.name, tensor_type(m.type, f"{m.name!r} of {where}")) for m in messages)


def _block(message: Message, values: ValueReader) -> Block:
    return Block(
        _results(message.inputs, "a block"),
        tuple(_operation(operation, values) for operation in message.operations),
        tuple(message.outputs),
    )


def _operation(message: Message, values: ValueReader) -> Operation:
    label = message.outputs[0].name if message.outputs else message.type
    where = f"operation {label!r} ({message.type})"
    attributes = {key: values.read(value, f"{key!r} of {where}") for key, value in message.attributes.items()}
    name = attributes["name"].decode() if "name" in attributes else label
    inputs = {
        key: _binding(argument, values, f"{key!r} of {where}") for key, argument in message.inputs.items()
    }
    if message.type.startswith("constexpr_"):
        # before iOS 18 their arguments are attributes
        inputs.update({key: (value,) for key, value in attributes.items() if key != "name"})
    return Operation(
        message.type,
        str(name),
        inputs,
        _results(message.outputs, where),
        attributes,
        tuple(_block(block, values) for block in message.blocks),
    )


def _binding(argument: Message, values: ValueReader, where: str) -> tuple[str | Value, ...]:
    return tuple(
        binding.name if binding.WhichOneof("binding") == "name" else values.read(binding.value, where)
        for binding in argument.arguments
    )


def _check_scope(block: Block, known: set[str], where: str) -> None:
    """Every name must be computed before it is read, and once."""
    known = known | {result.name for result in block.inputs}
    for operation in block.operations:
        for parameter, values in operation.inputs.items():
            _check_names(values, known, f"{parameter!r} of operation {operation.name!r} ({operation.type})")
        for nested in operation.blocks:
            _check_scope(nested, known, f"operation {operation.name!r}")
        for output in operation.outputs:
            if output.name in known:
                raise ModelError(f"The package is not valid: {output.name!r} of {where} is computed twice.")
            known.add(output.name)
    _check_names(block.outputs, known, f"the result of {where}")


def _check_names(values: Sequence[str | Value], known: set[str], where: str) -> None:
    for value in values:
        if isinstance(value, str) and value not in known:
            raise ModelError(f"The package is not valid: {where} is {value!r}, which nothing computes.")


def _check_interface(program: MilProgram) -> None:
    function = program.main
    for kind, described, found in (
        ("inputs", program.inputs, {result.name for result in function.inputs}),
        ("outputs", program.outputs, set(function.block.outputs)),
    ):
        names = {item.name for item in described}
        if names != found:
            raise ModelError(
                f"The package is not valid: it describes the {kind} {sorted(names)}, "
                f"its program has {sorted(found)}."
            )
