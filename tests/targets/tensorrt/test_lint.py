"""Each finding of the linter beside what the compiler does with the same model."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgeq.compiler.load.onnx_file import read_onnx
from edgeq.errors import TargetError
from edgeq.targets.base import Finding
from edgeq.targets.dimensions import parse_dimension
from edgeq.targets.tensorrt.backend.build import build_many
from edgeq.targets.tensorrt.backend.request import BuildReport, InputShapes
from edgeq.targets.tensorrt.layers.parse import parse_table
from edgeq.targets.tensorrt.layers.table import Layer
from edgeq.targets.tensorrt.lint.run import lint
from edgeq.targets.tensorrt.lint.table import RULES
from edgeq.targets.tensorrt.options import TensorRTOptions
from tests.support.tensorrt import needs_rtx, request
from tests.support.tensorrt_lint_cases import BUILDS, FAILS, FLOAT, FUSED, QUANTIZED, UNPACKED, cases

CASES = {case.name: case for case in cases()}
PRODUCTS = ("correlation", "gemm")
EIGHT_BITS = ("Int8", "FP8")
STORED = (*EIGHT_BITS, "Int4")

# What an outcome promises, in what the compiler is seen to do; a note may stand beside anything that builds.
PROMISED = {
    "fails": (FAILS,),
    "float": (FLOAT, UNPACKED),
    "wrong": (QUANTIZED, FUSED, BUILDS),
    "slow": (FLOAT, BUILDS),
    "note": (QUANTIZED, FUSED, UNPACKED, FLOAT, BUILDS),
}

Built = dict[str, BuildReport | TargetError]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lint")
    paths = {name: folder / f"{number}.onnx" for number, name in enumerate(CASES)}
    for name, path in paths.items():
        onnx.save(CASES[name].model(), path)
    return paths


@pytest.fixture(scope="module")
def built(models: dict[str, Path]) -> Built:
    requests = [
        request(path, CASES[name].sm, profiles=profiles(path) if CASES[name].profile else ())
        for name, path in models.items()
    ]
    return dict(zip(models, build_many(requests), strict=True))


def profiles(path: Path) -> tuple[dict[str, InputShapes], ...]:
    """Two for each dynamic dimension."""
    found = {}
    for value in onnx.load(path).graph.input:
        dims = value.type.tensor_type.shape.dim
        if any(dim.dim_param for dim in dims):
            shape = tuple(2 if dim.dim_param else dim.dim_value for dim in dims)
            found[value.name] = InputShapes(min=shape, opt=shape, max=shape)
    return (found,) if found else ()


def findings(path: Path, sm: int = 86) -> list[Finding]:
    return lint(read_onnx(path), TensorRTOptions(), (sm,))


@pytest.mark.parametrize("name", CASES)
def test_what_the_linter_finds(name: str, models: dict[str, Path]) -> None:
    case = CASES[name]
    found = findings(models[name], case.sm)
    wanted = {*([f"{case.rule}:{case.node}"] if case.rule else []), *case.more}
    assert {f"{f.rule}:{f.node}" for f in found if f.outcome != "note" or f.rule == case.rule} == wanted
    assert all(f.what and f.mend.endswith(".") and f.outcome == RULES[f.rule].outcome for f in found)


@needs_rtx
@pytest.mark.parametrize("name", CASES)
def test_what_the_compiler_does(name: str, built: Built) -> None:
    case, result = CASES[name], built[name]
    if case.truth == FAILS:
        assert isinstance(result, TargetError)
        return
    assert isinstance(result, BuildReport), result
    layers = parse_table(result.tables[case.sm], case.sm).layers
    unlike = [node for node in case.judged if not seen(layers, node, case.truth)]
    assert not unlike, [(layer.kind, layer.nodes) for layer in layers]


def seen(layers: tuple[Layer, ...], node: str, truth: str) -> bool:
    """Whether the layer table shows ``truth`` of ``node``."""
    own = [layer for layer in layers if node in layer.nodes]
    return (
        bool(own)
        and {
            QUANTIZED: any(quantized(layer) for layer in own),
            FUSED: any(reads_stored(layer) for layer in own),
            UNPACKED: not any(quantized(layer) or reads_stored(layer) for layer in own),
            FLOAT: not any(quantized(layer) for layer in own),
            BUILDS: True,
        }[truth]
    )


def quantized(layer: Layer) -> bool:
    """A product of 8-bit operands."""
    return layer.kind in PRODUCTS and all(t.dtype in EIGHT_BITS for t in layer.inputs)


def reads_stored(layer: Layer) -> bool:
    """A kernel of float values that unpacks stored weights itself."""
    tensors = (*layer.inputs, *layer.constants)
    return any(t.dtype in STORED for t in tensors) and any(t.dtype in ("Half", "Float") for t in layer.inputs)


def test_sizes_that_are_given_need_no_note(models: dict[str, Path]) -> None:
    for given in ("batch=1..8", "x:0=4"):
        name, _, sizes = given.partition("=")
        options = TensorRTOptions(dimensions={name: parse_dimension(name, sizes)})
        assert lint(read_onnx(models["no-profile"]), options, (86,)) == []


def test_outcomes_are_what_the_compiler_does() -> None:
    """The truth of every case is shown by a build, so an outcome that is called otherwise is found here."""
    outcomes = {name: RULES[case.rule].outcome for name, case in CASES.items() if case.rule}
    unlike = [name for name, outcome in outcomes.items() if CASES[name].truth not in PROMISED[outcome]]
    # Sizes that are not given yet are no fault of the model's.
    assert unlike == ["no-profile"]


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES.values()} - {None} == set(RULES)


@needs_rtx
def test_blocks_with_int8_activations_get_scales_of_other_channels(built: Built) -> None:
    """What 'wrong' means there: 128 columns are multiplied by a row of 512 scales, one for each block."""
    for name in ("int4-blocks-int8-plain", "int8-blocks-int8-plain"):
        result = built[name]
        assert isinstance(result, BuildReport)
        layers = parse_table(result.tables[86], 86).layers
        scales = [t.shape for layer in layers if "op" in layer.nodes for t in layer.constants]
        assert (1, 512) in scales


@needs_rtx
def test_a_float_skip_is_read_and_written_in_float(built: Built) -> None:
    """What 'slow' means there: the kernel of the Add reads 16-bit values where 8-bit ones are there."""
    types = {}
    for name in ("float-skip", "residual"):
        result = built[name]
        assert isinstance(result, BuildReport)
        layers = parse_table(result.tables[86], 86).layers
        types[name] = {t.dtype for layer in layers if "op" in layer.nodes for t in layer.inputs}
    assert "Half" in types["float-skip"]
    assert "Half" not in types["residual"]
    assert "Int8" in types["residual"]
