"""NNCF as the quantizer: what it places, what of the recipe reaches it, and what it leaves behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model
from edgeq.compiler.pipeline import refuse_missed
from edgeq.compiler.quantize.dispatch import check_recipe
from edgeq.compiler.quantize.result import Quantized
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import ConfigError, DataError, MissingExtraError, TargetError, UsageError
from edgeq.targets.openvino.nncf import library
from edgeq.targets.openvino.target import OpenVINOTarget
from tests.support.openvino import Built, build, images, quantized, residual_net
from tests.support.static_models import Samples, graph, normal

# looked for, not imported: an import of NNCF by itself leaves files in the home folder
if find_spec("nncf") is None or find_spec("openvino") is None:
    pytest.skip("NNCF is not installed", allow_module_level=True)

TARGET = OpenVINOTarget()
NNCF = {"quantizer": "nncf"}


def attention() -> Model:
    """A transformer's layer: normalization, attention scores, a large product."""
    nodes = [
        ("LayerNormalization", ["x", "s", "o"], ["l"], {}),
        ("MatMul", ["l", "wq"], ["q"], {}),
        ("MatMul", ["l", "wk"], ["k"], {}),
        ("Transpose", ["k"], ["kt"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "kt"], ["m"], {}),
        ("Softmax", ["m"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "l"], ["c"], {}),
        ("MatMul", ["c", "wo"], ["y"], {}),
    ]
    weights = {
        "s": np.ones(64, np.float32),
        "o": np.zeros(64, np.float32),
        **{name: normal(64, 64, seed=i, scale=0.1) for i, name in enumerate(("wq", "wk"))},
        "wo": normal(64, 256, seed=7, scale=0.1),
    }
    return graph(nodes, {"x": ["n", 8, 64]}, ["y"], weights)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(residual_net(), "int8-static", tmp_path_factory.mktemp("static"), images(3, 8, 8), **NNCF)


def scale_of_input(made: Quantized) -> float:
    """The scale of the first rounding, which is that of the model's input."""
    rounding = next(node for node in made.model.ir.graph if node.op_type == "QuantizeLinear")
    scale = rounding.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    return float(scale.const_value.numpy().reshape(-1)[0])


def biases(made: Quantized) -> list[Array]:
    """The numbers of the biases, as they are in the quantized model."""
    values = made.model.ir.graph.initializers
    return [v.const_value.numpy() for n, v in values.items() if n in ("b", "b2", "g") and v.const_value]


def test_what_nncf_places_runs_in_int8(static: Built) -> None:
    assert static.actual("Conv") + static.actual("Gemm") == ["int8"] * 3
    planned = {name: node.planned for name, node in static.nodes.items()}
    assert {planned[name] for name in planned} == {"int8"}, planned
    refuse_missed(list(static.nodes.values()))
    assert all(check.passed for check in static.result.checks)


def test_weights_are_stored_in_one_byte_each(static: Built) -> None:
    numbers = 16 * 27 + 16 * 144 + 16 * 40
    assert (static.folder / "model.bin").stat().st_size < 1.6 * numbers + 4 * 200


def test_a_node_that_the_recipe_excludes_stays_in_float(tmp_path: Path) -> None:
    recipe = {"overrides": (Override(match="Conv_d", precision="fp32"),)}
    built = build(residual_net(), "int8-static", tmp_path, images(3, 8, 8), recipe=recipe, **NNCF)
    node = built.nodes["Conv_d"]
    assert (node.planned, node.actual, node.asked) == ("fp32", "fp32", False)
    assert built.nodes["Conv_c"].actual == "int8"


def test_overrides_that_nncf_cannot_mix_in_are_refused() -> None:
    recipe = {"overrides": (Override(match="op:Conv", precision="int8"),)}
    with pytest.raises(UsageError, match="by NNCF has not"):
        quantized(residual_net(), "int4-weight", recipe=recipe, **NNCF)
    recipe = {"overrides": (Override(match="absent", precision="fp32"),)}
    with pytest.raises(UsageError, match="matches no node"):
        quantized(residual_net(), "int4-weight", recipe=recipe, **NNCF)


def test_range_methods_reach_nncf() -> None:
    """An outlier in one sample: minmax keeps it, quantiles of the samples do not."""
    data = images(3, 8, 8)
    data.arrays["x"][0, 0, 0, 0] = 500.0
    scales = {}
    for method, more in (("minmax", {}), ("percentile", {"percentile": 98.0}), ("mse", {}), ("auto", {})):
        made = quantized(residual_net(), "int8-static", data, recipe={"range_method": method, **more}, **NNCF)
        scales[method] = scale_of_input(made)
    assert scales["percentile"] < 0.1 < 1.9 < scales["minmax"]
    assert len(set(scales.values())) >= 3, scales


def test_the_correction_of_biases_is_the_recipes() -> None:
    original = [normal(16, seed=5), normal(16, seed=6), normal(40, seed=3)]
    for wanted in (False, True):
        made = quantized(
            residual_net(), "int8-static", images(3, 8, 8), recipe={"bias_correction": wanted}, **NNCF
        )
        kept = [any(np.array_equal(found, one) for found in biases(made)) for one in original]
        assert all(kept) is not wanted, kept


@pytest.mark.parametrize(
    ("smoothing", "kind", "smoothed"), [(True, "auto", True), (False, "auto", False), (True, "other", False)]
)
def test_transformers_are_smoothed(smoothing: bool, kind: str, smoothed: bool) -> None:
    data = Samples(x=normal(8, 8, 64, seed=9))
    made = quantized(
        attention(), "int8-static", data, recipe={"smoothing": smoothing}, model_type=kind, **NNCF
    )
    assert any(node.op_type == "Mul" for node in made.model.ir.graph) is smoothed
    assert made.notes[0].endswith("as a transformer.") is (kind == "auto")


def test_kernels_do_not_saturate_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    """NNCF alone limits the first convolution only: without VNNI, 15 dB are left of this model."""
    data = Samples(x=normal(8, 8, 64, seed=9))
    built = build(attention(), "int8-static", tmp_path, data, **NNCF)
    assert [check.passed for check in built.result.checks] == [True]
    assert set(built.actual("MatMul")) <= {"int8", "removed"}


def test_samples_are_as_many_as_the_recipe_says() -> None:
    data = images(3, 8, 8)
    data.arrays["x"][4:] *= 50
    made = quantized(residual_net(), "int8-static", data, recipe={"calibration_samples": 4}, **NNCF)
    assert scale_of_input(made) < 0.1


@pytest.mark.parametrize("data", [None, Samples(x=np.zeros((0, 3, 8, 8), np.float32))])
def test_calibration_data_must_be_there(data: Samples | None) -> None:
    with pytest.raises(DataError):
        quantized(residual_net(), "int8-static", data, **NNCF)


def test_weights_alone_in_8_bits(tmp_path: Path) -> None:
    built = build(residual_net(), "int8-weight", tmp_path, **NNCF)
    assert set(built.actual("Conv") + built.actual("Gemm")) == {"int8-weight"}
    assert built.nodes["Relu_r"].planned == "fp32"
    assert (tmp_path / "model.bin").stat().st_size < 1.6 * (16 * 27 + 16 * 144 + 16 * 40) + 4 * 200


def test_weights_that_openvino_misreads_stay_in_float(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Transpose", ["c"], ["y"], {"perm": [0, 3, 2, 1]})]
    model = graph(nodes, {"x": [1, 48, 6, 6]}, ["y"], {"w": normal(40, 48, 1, 1, scale=0.1)})
    built = build(model, "int8-weight", tmp_path, **NNCF)
    assert built.nodes["Conv_c"].planned == "fp32"
    assert "computes it wrongly" in built.nodes["Conv_c"].reason


@pytest.mark.parametrize(("symmetric", "types"), [(True, {"INT4"}), (False, {"UINT4"})])
def test_weights_alone_in_blocks_of_4_bits(symmetric: bool, types: set[str], tmp_path: Path) -> None:
    nodes = [("MatMul", ["x", "w"], ["h"], {}), ("Relu", ["h"], ["r"], {}), ("MatMul", ["r", "v"], ["y"], {})]
    weights = {"w": normal(256, 128, scale=0.1), "v": normal(128, 256, seed=1, scale=0.1)}
    model = graph(nodes, {"x": ["n", 256]}, ["y"], weights)
    recipe = {"block_size": 64, "symmetric_weights": symmetric}
    built = build(model, "int4-weight", tmp_path, recipe=recipe, **NNCF)
    reference = ir.load(tmp_path / "reference.onnx").graph
    blocks = [n for n in reference if n.op_type == "DequantizeLinear" and "block_size" in n.attributes]
    assert [n.attributes["block_size"].value for n in blocks] == [64]
    assert {n.inputs[0].dtype.name for n in blocks if n.inputs[0] is not None and n.inputs[0].dtype} == types
    # NNCF keeps the last product in 8 bits
    assert built.nodes["MatMul_h"].actual == "int4"
    assert built.nodes["MatMul_y"].actual == "int8-weight"


@pytest.mark.parametrize(
    ("given", "recipe", "error", "message"),
    [
        (NNCF, {"scheme": "fp16"}, ConfigError, "no effect with the scheme 'fp16'"),
        ({"quantizer": "inc"}, {"scheme": "int8-static"}, ConfigError, "cannot be 'inc'"),
        ({"preset": "mixed"}, {"scheme": "int8-static"}, ConfigError, "'preset' has no effect"),
        (
            {**NNCF, "correction": "full"},
            {"scheme": "int8-weight"},
            ConfigError,
            "'correction' has no effect",
        ),
        (
            {**NNCF, "correction": "full"},
            {"scheme": "int8-static", "bias_correction": False},
            ConfigError,
            "without bias correction",
        ),
        (
            NNCF,
            {"scheme": "int8-static", "range_method": "entropy"},
            TargetError,
            "no range method 'entropy'",
        ),
    ],
)
def test_what_nncf_has_not_is_refused_before_any_work(
    given: Mapping[str, str], recipe: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TARGET.options(given, Recipe(**recipe))


def test_fields_of_the_recipe_that_do_nothing_are_refused() -> None:
    recipe = Recipe(scheme="int4-weight", accuracy_level=4)
    options = TARGET.options(NNCF, recipe)
    with pytest.raises(UsageError, match="accuracy_level"):
        check_recipe(recipe, TARGET.capabilities(options))


def test_without_nncf_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as error:
        TARGET.options(NNCF, Recipe(scheme="int8-static"))
    assert "pip install 'edgeq[nncf]'" in str(error.value)


def test_models_that_nncf_cannot_take_are_refused_in_one_sentence(tmp_path: Path) -> None:
    data = Samples(x=np.full((4, 3, 8, 8), np.nan, np.float32))
    with pytest.raises((TargetError, DataError)) as error:
        build(residual_net(), "int8-static", tmp_path, data, **NNCF)
    assert "Traceback" not in str(error.value)


_IN_A_NEW_PROCESS = """
import logging, os, sys
from pathlib import Path
from tests.support.openvino import build, images, residual_net
before = logging.getLoggerClass(), logging.root.manager.disable, dict(os.environ)
build(residual_net(), "int8-static", Path(sys.argv[1]), images(3, 8, 8), quantizer="nncf")
assert (logging.getLoggerClass(), logging.root.manager.disable, dict(os.environ)) == before
"""


def test_a_new_process_is_silent_writes_the_same_bytes_and_nothing_else(
    static: Built, tmp_path: Path
) -> None:
    home, work, artefact = tmp_path / "home", tmp_path / "work", tmp_path / "artefact"
    for folder in (home, work):
        folder.mkdir()
    root = Path(__file__).parents[3]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(root)}
    environment.pop("CI", None)
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_NEW_PROCESS, str(artefact)],
        cwd=work, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    # ONNX Runtime keeps a number of its own there
    assert [path for path in home.rglob("*") if "Microsoft" not in path.parts and path.name != ".cache"] == []
    assert list(work.rglob("*")) == []
    for name in ("model.xml", "model.bin"):
        assert (artefact / name).read_bytes() == (static.folder / name).read_bytes(), name


def test_the_state_of_python_is_restored() -> None:
    before = logging.getLoggerClass(), logging.root.manager.disable, os.environ.get("NNCF_CI")
    with library.silent_nncf() as nncf:
        nncf.nncf_logger.info("swallowed")
    assert (logging.getLoggerClass(), logging.root.manager.disable, os.environ.get("NNCF_CI")) == before
