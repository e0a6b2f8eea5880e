"""Texts of the parser and the builder that are known, and what they mean.

All of them come from builds that were made to fail (``tests/targets/tensorrt/test_explain.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from onnx import TensorProto

from edgeq.targets.tensorrt.architectures import FIRST
from edgeq.targets.tensorrt.backend.request import Message
from edgeq.targets.tensorrt.integer_ops import BLOCKS, INTEGER_OPS

_TYPES = re.compile(r"\b(Float|Half|BFloat16|FP8|FP4|Int4|Int8|UInt8|Int32|Int64|Bool)\b")
# What the compiler calls types of numbers → what people call them.
_NUMBERS = {"fp8_e4m3": "FP8", "int4": "INT4", "b16": "BF16"}
# Who says so is TensorRT for RTX, whose newest GPUs have every type.
_NEWEST = 120

_SYMMETRIC = "Quantize it symmetrically: as INT8 (not UINT8), with the zero point 0."
_OTHER_OPS = "Express it by other ONNX ops, or leave this part out of the model."


@dataclass(frozen=True)
class Known:
    """``pattern`` is searched in the text; ``what`` follows the node's name; ``mend`` is the fix."""

    pattern: re.Pattern[str]
    what: Callable[[re.Match[str], Message], str]
    mend: Callable[[re.Match[str], Message], str]


def _entry(pattern: str, what: str, mend: str) -> Known:
    """Texts with the groups of the match in braces."""
    return Known(
        re.compile(pattern, re.DOTALL),
        lambda match, _message: what.format(*match.groups()),
        lambda match, _message: mend.format(*match.groups()),
    )


def _two_types(match: re.Match[str], _message: Message) -> str:
    types = list(dict.fromkeys(_TYPES.findall(match.string)))
    return f"its inputs are of the types {' and '.join(types)}, and TensorRT converts nothing by itself"


def _constant_type(match: re.Match[str], _message: Message) -> str:
    return f"the constant {match[2]!r} is {TensorProto.DataType.Name(int(match[1]))}, which TensorRT has not"


def _too_old(match: re.Match[str], _message: Message) -> str:
    return f"{_precision(match[2])[0]} does not run on {match[1].upper()}"


def _newer(match: re.Match[str], _message: Message) -> str:
    name, least = _precision(match[2])
    return f"{name} needs SM{least} or newer: leave {match[1].upper()} out (--sm), or choose another scheme."


def _precision(name: str) -> tuple[str, int]:
    """What people call it, and the first compute capability that has it."""
    called = _NUMBERS.get(name, name.upper())
    return called, FIRST.get(called, _NEWEST)


def _no_such_op(_match: re.Match[str], _message: Message) -> str:
    return "this TensorRT has no such op"


def _instead(_match: re.Match[str], message: Message) -> str:
    return INTEGER_OPS.get(message.op_type, _OTHER_OPS)


# The first that fits any of the errors is the explanation: the more telling ones come first.
KNOWN: tuple[Known, ...] = (
    _entry(r"Non-zero zero point is not supported", "its zero point is not 0", _SYMMETRIC),
    _entry(
        r"Scale coefficients must all be positive",
        "a scale of it is not above 0",
        "Give it positive scales: calibrate again, with data that reaches this place.",
    ),
    _entry(
        r"Found unsupported input type of (\w+)",
        "it reads {0}, which TensorRT does not quantize with",
        _SYMMETRIC,
    ),
    Known(
        re.compile(r"unsupported datatype \((\d+)\) when importing initializer: (\S+)"),
        _constant_type,
        lambda _match, _message: "Quantize to INT8, INT4 or FP8 (E4M3).",
    ),
    _entry(
        r"ONNX initializer (\S+) cannot be imported",
        "the constant {0!r} has a type that TensorRT has not",
        "Quantize to INT8, INT4 or FP8 (E4M3).",
    ),
    _entry(
        r"input has type Int32 but must have type",
        "it dequantizes INT32",
        "Keep the bias in float, in the type of the layer's input: TensorRT adds it there.",
    ),
    Known(
        re.compile(r"(?:same|identical) (?:input )?types?\b.*\b(Float|Half|BFloat16)\b", re.DOTALL),
        _two_types,
        lambda _match, _message: (
            "Make them one: what a DequantizeLinear writes has the type of its scale, and a bias has that of "
            "the layer's input."
        ),
    ),
    _entry(
        r"opndA->type\(\) == opndB->type\(\)",
        "the two factors of a layer are quantized in ways that no kernel has",
        "Quantize both alike, or only the weights.",
    ),
    _entry(
        r"input tensor A must be FP16",
        "it is no op of TensorRT's networks",
        BLOCKS,
    ),
    _entry(
        r"blocking dimension must be the last or second to last",
        "its blocks are not along one of the last two dimensions",
        "Quantize the weights in blocks along K.",
    ),
    Known(re.compile(r"UNSUPPORTED_NODE in check\w+: false"), _no_such_op, _instead),
    Known(re.compile(r"Plugin not found|plugin creator version \S+ was not found"), _no_such_op, _instead),
    _entry(
        r"Unsupported data type for the Cast operator",
        "it casts to a type that TensorRT has not",
        "Leave this part out of the model.",
    ),
    _entry(
        r"Failed to convert ONNX dat[ae] type to TensorRT data type",
        "it has an input, an output or a constant of a type that TensorRT has not, such as strings",
        "Leave this part out of the model.",
    ),
    _entry(
        r"Node input was not registered",
        "it reads a value that no node and no input has",
        "The ONNX model is not valid: check it with onnx.checker.",
    ),
    _entry(
        r"Dimension mismatch for tensor (\S+) and profile \d+\. At dimension axis (\d+), profile has "
        r"min=(\d+), opt=\d+, max=(\d+) but tensor has (\d+)",
        "axis {1} of the input {0!r} is {4} in the model, and the profile asks for {2} to {3}",
        "Give sizes of dynamic dimensions alone.",
    ),
    _entry(
        r"Invalid optimization profiles for input tensors (\S+?),",
        "the sizes of the input {0!r} are not in the order smallest, preferred, largest",
        "Write --dimension NAME=SMALLEST..LARGEST@PREFERRED.",
    ),
    _entry(
        r"Dynamic input tensor (\S+) is missing dimensions in profile",
        "the profile does not say the sizes of the input {0!r}",
        "Set them with --dimension NAME=1..32@8.",
    ),
    _entry(
        r"missing values for shape input tensor (\S+?)\.?(?:\s|$)",
        "the input {0!r} is a shape that other tensors are given",
        "Make it a constant of the model: an engine has its shapes from its profiles.",
    ),
    _entry(
        r"no optimization profile has been defined",
        "an input has dynamic dimensions, or is itself a shape, and no profile says its sizes",
        "Set them with --dimension NAME=1..32@8; make inputs that are shapes constant.",
    ),
    Known(
        re.compile(r"Cannot compile for target\(s\) ([\w, ]+), because the model contains HW-specific "
                   r"datatypes: (\w+)"),
        _too_old,
        _newer,
    ),
    _entry(
        r"Cannot compile operation '(.*?)' for Turing \(SM75\): (.*?) is not supported",
        "the operation {0!r} is {1}, which SM75 has not",
        "Leave SM75 out (--sm), or choose -O precision=fp16.",
    ),
    _entry(
        r"no tactics to implement the operation within workspace limit",
        "no kernel works in so little memory",
        "Raise -O workspace-mb, or leave it out.",
    ),
    _entry(
        r"^\[Errno \d+\] (.*)",
        "a file cannot be written: {0}",
        "Make room, or write to another folder.",
    ),
    _entry(
        r"Input file cannot be found, or is not a regular file: (.*)",
        "there is no file {0}",
        "Give another path.",
    ),
    _entry(
        r"Failed to open file: (.*)",
        "its weights are in the file {0}, which is not there",
        "Put the file of weights beside the model.",
    ),
    _entry(
        r"Unexpected size for the external weights|Size mismatch when importing initializer",
        "the data of a constant is shorter than its shape says",
        "The file is damaged: export the model again.",
    ),
    _entry(
        r"Network must have at least one output",
        "it holds no network",
        "Is it an ONNX file?",
    ),
    _entry(
        r"MyelinCheckException: \S+ (CHECK\(.*\)) failed",
        "the compiler ends with an error of its own, {0}",
        "It is a defect of this TensorRT: take another version, or find the part of the model that it fails "
        "on and leave that out.",
    ),
    _entry(
        r"Failed to parse the ONNX model",
        "it is no ONNX model",
        "Export it again, or give another file.",
    ),
    _entry(
        r"parseNode: Invalid Node - \S+$",
        "TensorRT does not take it as it is, and does not say why",
        "Look at its inputs and attributes: the ONNX specification, or the version of the op, may differ.",
    ),
)  # fmt: skip
