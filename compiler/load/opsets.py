"""Which operator sets a model may use."""

from __future__ import annotations

from functools import cache

import onnx

from edgeq.compiler.load import protos
from edgeq.errors import ModelError

MIN_OPSET = 7
# The newest that ONNX Runtime runs; models of later ones are taken as far as they mean the same in it.
MAX_OPSET = 24
NEWEST_OPSET = 28
_IR_VERSION = 12
# ONNX Runtime's CPU build runs these: its own contrib operators and the classical machine-learning ones.
KNOWN_DOMAINS = frozenset({"", "com.microsoft", "ai.onnx.ml"})


def unify_default_domain(proto: onnx.ModelProto) -> None:
    """Spell the default domain ``""`` everywhere; ``ai.onnx`` is its other spelling."""
    holders = [*proto.opset_import, *protos.nodes(proto)]
    holders += [entry for function in proto.functions for entry in function.opset_import]
    for holder in holders:
        if holder.domain == "ai.onnx":
            holder.domain = ""


def check_opset(proto: onnx.ModelProto, name: str) -> int:
    """The opset of the default domain.

    Raises:
        ModelError: none is declared, or it is outside what is supported.
    """
    versions = [entry.version for entry in proto.opset_import if entry.domain == ""]
    if not versions:
        raise ModelError(f"{name} does not declare an ONNX opset.", fix="Export it again with opset 21.")
    opset = max(versions)
    if not MIN_OPSET <= opset <= NEWEST_OPSET:
        raise ModelError(
            f"{name} uses ONNX opset {opset}; supported are opsets {MIN_OPSET} to {NEWEST_OPSET}.",
            fix="Export it again with a supported opset, for example 21.",
        )
    return int(opset)


def lower_newer_opset(proto: onnx.ModelProto, name: str) -> None:
    """Declare ``MAX_OPSET`` where a model declares a newer one and uses nothing that came with it.

    What newer opsets change of an operator are added types and attributes: without a new attribute it means
    what it meant before, and types that it did not have are found when the model is checked.

    Raises:
        ModelError: the model uses an operator or an attribute of the newer opset.
    """
    opset = check_opset(proto, name)
    if opset <= MAX_OPSET:
        return
    local = {(function.domain, function.name) for function in proto.functions}
    for node in protos.nodes(proto):
        if node.domain == "" and ("", node.op_type) not in local:
            _check_older(node, opset, name)
    for entry in proto.opset_import:
        if entry.domain == "":
            entry.version = MAX_OPSET
    proto.ir_version = min(proto.ir_version, _IR_VERSION)


def _check_older(node: onnx.NodeProto, opset: int, name: str) -> None:
    fix = f"Export it again with opset {MAX_OPSET} or older, for example 21."
    try:
        schema = onnx.defs.get_schema(node.op_type, MAX_OPSET, "")
    except onnx.defs.SchemaError as error:
        raise ModelError(
            f"{name} uses ONNX opset {opset}, and its node {protos.label(node)} is an operator that came "
            f"after opset {MAX_OPSET}.",
            fix=fix,
        ) from error
    new = next((a.name for a in node.attribute if a.name not in schema.attributes), None)
    if new is not None:
        raise ModelError(
            f"{name} uses ONNX opset {opset}, and its node {protos.label(node)} has the "
            f"attribute {new!r}, which came after opset {MAX_OPSET}.",
            fix=fix,
        )


def check_domains(proto: onnx.ModelProto, name: str) -> None:
    """Refuse nodes that nothing here can run. Imported domains that no node uses do not matter.

    Raises:
        ModelError: a node's domain is neither known nor one of the model's local functions, or ONNX Runtime
            has no such operator in it.
    """
    local = {(function.domain, function.name) for function in proto.functions}
    for node in protos.nodes(proto):
        if (node.domain, node.op_type) in local:
            continue
        if node.domain not in KNOWN_DOMAINS:
            raise ModelError(
                f"{name}: node {protos.label(node)} is an operator {node.op_type} of the unknown domain "
                f"{node.domain!r}.",
                fix="Known are ai.onnx, ai.onnx.ml and com.microsoft: export it without custom operators.",
            )
        if node.domain and node.op_type not in _operators(node.domain):
            raise ModelError(
                f"{name}: node {protos.label(node)} is an operator {node.op_type} that ONNX Runtime does not "
                f"have in the domain {node.domain}.",
                fix="Export the model without it, or with a newer ONNX Runtime installed.",
            )


def drop_unused_imports(proto: onnx.ModelProto) -> None:
    """Remove imported domains that no node uses: ONNX Runtime refuses versions it does not know even then."""
    used = {"", *(node.domain for node in protos.nodes(proto))}
    kept: dict[str, int] = {}
    for entry in proto.opset_import:
        if entry.domain in used:
            kept[entry.domain] = max(entry.version, kept.get(entry.domain, 0))
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept.items())


@cache
def _operators(domain: str) -> frozenset[str]:
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    return frozenset(schema.name for schema in runtime.get_all_operator_schema() if schema.domain == domain)
