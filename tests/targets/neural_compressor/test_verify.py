"""What the table of nodes says of plans that the compiler did not follow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.targets.neural_compressor.files import NODES
from edgeq.targets.neural_compressor.target import NeuralCompressorTarget
from tests.support.neural_compressor import Artefact


def test_only_products_and_what_passes_int8_on_can_be_missed(dynamic: Artefact, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dynamic.folder, tmp_path / "copy"))
    stored = json.loads((folder / NODES).read_text(encoding="utf-8"))
    float_node = {"actual": "fp32", "kernel": "aten.add"}
    stored["nodes"] |= dict.fromkeys(("gelu", "pool", "product"), float_node)
    (folder / NODES).write_text(json.dumps(stored), encoding="utf-8")
    nodes = {
        "gelu": NodePlan("gelu", "gelu", "int8", "it is part of the INT8 kernel before it", asked=False),
        "pool": NodePlan("pool", "max_pool2d", "int8", "it is computed on INT8 values", asked=False),
        "product": NodePlan("product", "linear", "int8", "INT8", asked=True),
    }
    gelu, pool, product = NeuralCompressorTarget().verify(folder, Plan(nodes=nodes))
    assert not gelu.missed
    assert "did not fuse it" in gelu.reason
    assert pool.missed
    assert product.missed
