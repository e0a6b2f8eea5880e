"""Which inner tensors of a model to fetch, and an ONNX Runtime session that gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgeq.calibration.runtime import RUNTIME_ERRORS, one_sentence
from edgeq.errors import ModelError

# The output of these ops holds exactly the values of their inputs (of the first input, for all but Concat).
_REARRANGING = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Identity",
        "Reshape",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Graph:
    """What the collecting run must know of a model's main graph."""

    inputs: tuple[str, ...]
    order: dict[str, int]  # tensor → its place in the order of computation
    outputs: frozenset[str]
    constants: frozenset[str]
    rearranged: dict[str, tuple[str, ...]]  # output of a rearranging op → the tensors it holds


@dataclass(frozen=True)
class Fetches:
    """What is fetched from a run, and how the asked tensors come from it.

    ``parts``: asked tensor → fetched tensors that together hold exactly its values. ``fetched``: all of them,
    in the order of computation. ``new_outputs``: those that the model must get as additional outputs.
    ``once``: those that do not depend on the inputs.
    """

    parts: dict[str, tuple[str, ...]]
    fetched: tuple[str, ...]
    new_outputs: tuple[str, ...]
    once: tuple[str, ...]

    @property
    def sketched(self) -> tuple[str, ...]:
        """The fetched tensors that get a sketch."""
        return tuple(dict.fromkeys(part for held in self.parts.values() for part in held))


def read_graph(model: bytes | Path) -> Graph:
    """The structure of the main graph. External data is not read.

    Raises:
        ModelError: it is no ONNX model.
    """
    try:
        proto = (
            onnx.load_from_string(model)
            if isinstance(model, bytes)
            else onnx.load(model, load_external_data=False)
        )
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(
            f"The model cannot be read for calibration: {error}.", fix="Give a valid ONNX model."
        ) from error
    graph = proto.graph
    initializers = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    inputs = tuple(v.name for v in graph.input if v.name not in set(initializers))
    names = [*inputs, *initializers, *(o for n in graph.node for o in n.output if o)]
    return Graph(
        inputs=inputs,
        order={name: i for i, name in enumerate(names)},
        outputs=frozenset(v.name for v in graph.output),
        constants=_constants(graph, initializers),
        rearranged={
            n.output[0]: _held(n) for n in graph.node if n.op_type in _REARRANGING and _is_standard(n)
        },
    )


def plan_fetches(graph: Graph, tensors: Sequence[str], whole: Iterable[str] = ()) -> Fetches:
    """Decide what to fetch for ``tensors``; those in ``whole`` are fetched themselves in any case.

    Raises:
        ModelError: a tensor is not in the main graph.
    """
    whole = frozenset(whole)
    asked = [*tensors, *whole]
    for name in asked:
        if name not in graph.order:
            raise ModelError(
                f"Tensor {name!r} cannot be observed: the model's main graph has none of that name.",
                fix="Tensors inside of If, Loop, Scan and function bodies cannot be calibrated.",
            )
    parts = _parts(graph, set(tensors))
    fetched = sorted({p for held in parts.values() for p in held} | whole, key=graph.order.__getitem__)
    return Fetches(
        parts={name: parts[name] for name in tensors},
        fetched=tuple(fetched),
        new_outputs=tuple(n for n in fetched if n not in graph.inputs and n not in graph.outputs),
        once=tuple(n for n in fetched if n in graph.constants),
    )


def open_session(model: bytes | Path, fetches: Fetches, threads: int) -> ort.InferenceSession:
    """A session of the model that gives the tensors of ``fetches``.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if isinstance(model, Path):
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(model.resolve().parent))
    try:
        content = model if isinstance(model, bytes) else model.read_bytes()
        content += _more_outputs(fetches.new_outputs)
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise ModelError(
            f"ONNX Runtime cannot load the model for calibration: {one_sentence(error)}",
            fix="Check that the model runs in ONNX Runtime.",
        ) from error


def _more_outputs(names: Iterable[str]) -> bytes:
    """Protobuf bytes that, appended to a model, add graph outputs to it.

    Concatenated protobuf messages merge: nested messages merge, repeated fields append
    (protobuf.dev/programming-guides/encoding, "Last One Wins"). So the weights are neither parsed nor copied
    here. ONNX Runtime infers the types.
    """
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    return bytes(onnx.ModelProto(graph=onnx.GraphProto(output=outputs)).SerializeToString())


def _constants(graph: onnx.GraphProto, initializers: list[str]) -> frozenset[str]:
    known = set(initializers)
    for node in graph.node:
        folds = node.op_type == "Constant" or (node.input and not _has_body(node))
        if folds and all(not name or name in known for name in node.input):
            known.update(node.output)
    return frozenset(known - {""})


def _has_body(node: onnx.NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and len(node.output) == 1


def _held(node: onnx.NodeProto) -> tuple[str, ...]:
    return tuple(node.input) if node.op_type == "Concat" else (node.input[0],)


def _parts(graph: Graph, asked: set[str]) -> dict[str, tuple[str, ...]]:
    """Resolve rearranged tensors to what they hold, where all of that is observed anyway."""
    parts: dict[str, tuple[str, ...]] = {}
    for name in sorted(asked, key=graph.order.__getitem__):
        held = graph.rearranged.get(name, ())
        # A constant is counted once, but such a tensor holds it in every batch.
        resolves = bool(held) and all(p in parts and p not in graph.constants for p in held)
        parts[name] = tuple(q for p in held for q in parts[p]) if resolves else (name,)
    return parts
