"""Exporters' notes on nodes and values (stack traces, paths of the exporting machine) go."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.compiler.normalize.editing import nodes


class RemoveMetadataPass(ir.passes.InPlacePass):
    """Clear doc strings and metadata of graphs, nodes and values. The model's own metadata stays."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for graph in model.graphs():
            graph.doc_string = None
            graph.metadata_props.clear()
            for value in [
                *graph.inputs,
                *graph.initializers.values(),
                *(v for n in graph for v in n.outputs),
            ]:
                value.doc_string = None
                value.metadata_props.clear()
        for node in nodes(model):
            node.doc_string = None
            node.metadata_props.clear()
        return ir.passes.PassResult(model, False)
