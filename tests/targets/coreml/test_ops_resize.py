"""Resize, rearranging and grids as Core ML packages, against ONNX Runtime."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.calibration.types import Array
from edgeq.targets.coreml.frontend.node import RefusedNodeError
from edgeq.targets.coreml.ops.interpolation import COORDINATES, NEAREST
from edgeq.targets.dimensions import Dimension
from tests.support.coreml_ops import Op, by_onnxruntime, lower_ops, model_of, refusal, run_ops

CROP = "tf_crop_and_resize"
PLAIN = [mode for mode in COORDINATES if mode != CROP]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scaled(name: str, **attributes: Any) -> Op:
    return Op("Resize", ["x", "", name], attributes)


def sized(name: str, **attributes: Any) -> Op:
    return Op("Resize", ["x", "", "", name], attributes)


def constants(rank: int) -> dict[str, Array]:
    """Scales and sizes of the last two axes of [.., 5, 6]."""
    scales = {"up": (2, 3), "half": (0.5, 0.5), "stretch": (1.7, 2.5), "shrink": (0.3, 0.8), "one": (1, 2)}
    sizes = {"big": (10, 9), "small": (2, 4), "least": (1, 1), "wide": (5, 11), "mixed": (3, 8)}
    outer = rank - 2
    return {
        **{name: np.array([1] * outer + list(pair), np.float32) for name, pair in scales.items()},
        **{name: np.array([1, 2, 2][:outer] + list(pair), np.int64) for name, pair in sizes.items()},
    }


def both(rank: int, **attributes: Any) -> list[Op]:
    return [
        (scaled if values.dtype == np.float32 else sized)(name, **attributes)
        for name, values in constants(rank).items()
    ]


def mil_ops(op: Op, x: Array, given: dict[str, Array]) -> list[str]:
    program = lower_ops(model_of([op], {"x": x}, given), [x]).program
    return [o.op_type for o in program["main"].operations if o.op_type not in ("const", "identity")]


def lowered(ops: list[Op], x: Array, given: dict[str, Array]) -> tuple[list[Op], list[str]]:
    """The ops that are lowered, and the reasons why the others are not."""
    taken, reasons = [], []
    for op in ops:
        try:
            lower_ops(model_of([op], {"x": x}, given), [x])
        except RefusedNodeError as error:
            reasons.append(error.reason)
        else:
            taken.append(op)
    return taken, reasons


def sample(ops: list[Op], ios: int) -> list[Op]:
    """All of them for the newest version, a few for the oldest."""
    return ops if ios == 18 else ops[::11]


@pytest.fixture(scope="module")
def copying() -> list[Op]:
    """Nearest in every mode; without those for which rounding errors or ONNX Runtime's sizes decide."""
    ops = [
        op
        for mode, rounding in product(PLAIN, NEAREST)
        for op in both(4, mode="nearest", coordinate_transformation_mode=mode, nearest_mode=rounding)
    ]
    taken, reasons = lowered(ops, normal(1, 2, 5, 6), constants(4))
    assert all("rounding errors decide" in r or "fractional sizes" in r for r in reasons), set(reasons)
    assert len(taken) > 0.85 * len(ops)
    return taken


@pytest.fixture(scope="module")
def interpolating() -> list[Op]:
    """Linear and cubic in every mode; without those that ONNX Runtime does otherwise than ONNX."""
    ops = [
        op
        for mode, attributes in product(PLAIN, interpolations())
        for op in both(4, coordinate_transformation_mode=mode, **attributes)
    ]
    taken, reasons = lowered(ops, normal(1, 2, 5, 6), constants(4))
    expected = ("fractional sizes", "to size 1", "moves an axis that keeps its size")
    assert all(any(part in reason for part in expected) for reason in reasons), set(reasons)
    assert len(taken) > 0.8 * len(ops)
    return taken


@pytest.mark.parametrize("ios", [15, 18])
def test_nearest_in_every_mode(tmp_path: Path, copying: list[Op], ios: int) -> None:
    x = {"x": normal(1, 2, 5, 6)}
    run_ops(sample(copying, ios), x, tmp_path, constants=constants(4), ios=ios).check()


def interpolations() -> list[dict[str, Any]]:
    linear, cubic = {"mode": "linear"}, {"mode": "cubic"}
    return [
        linear,
        {**linear, "antialias": 1},
        {**linear, "antialias": 1, "exclude_outside": 1},
        cubic,
        {**cubic, "cubic_coeff_a": -0.5},
        {**cubic, "exclude_outside": 1},
        {**cubic, "antialias": 1},
    ]


@pytest.mark.parametrize("ios", [15, 18])
def test_linear_and_cubic_in_every_mode(tmp_path: Path, interpolating: list[Op], ios: int) -> None:
    x = {"x": normal(1, 2, 5, 6)}
    run = run_ops(sample(interpolating, ios), x, tmp_path, constants=constants(4), ios=ios)
    run.check(rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("attributes", [{"mode": "nearest"}, {"mode": "linear"}, {"mode": "cubic"}])
def test_crops(tmp_path: Path, attributes: dict[str, Any]) -> None:
    """Inside the input, and leaving it: what lies outside is the extrapolation value."""
    given = {
        "inside": np.array([0, 0, 0.1, 0.25, 1, 1, 0.8, 1], np.float32),
        "leaving": np.array([0, 0, -0.3, 0.2, 1, 1, 0.7, 1.4], np.float32),
        "size": np.array([1, 2, 4, 7]),
        "least": np.array([1, 2, 1, 7]),
    }
    fixed = {"coordinate_transformation_mode": CROP, "extrapolation_value": -7.5}
    ops = [
        Op("Resize", ["x", roi, "", size], {**fixed, **attributes})
        for roi, size in product(("inside", "leaving"), ("size", "least"))
    ]
    run_ops(ops, {"x": normal(1, 2, 5, 6)}, tmp_path, constants=given).check(atol=1e-5)


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_other_ranks(tmp_path: Path, rank: int) -> None:
    shape = (1, 2, 2, 5, 6)[:rank] if rank == 5 else (1, 5, 6)[3 - rank :]
    given = {
        "up": np.array([1] * (rank - 2) + [2, 3], np.float32),
        "odd": np.array([*shape[: rank - 2], 7, 4]),
    }
    half = {"coordinate_transformation_mode": "half_pixel"}
    ops = [
        scaled("up", mode="nearest", **half),
        sized("odd", mode="nearest", **half),
        scaled("up", mode="linear", **half),
        sized("odd", mode="linear", **half),
    ]
    run_ops(ops, {"x": normal(*shape)}, tmp_path, constants=given).check(atol=1e-5)


def test_volumes(tmp_path: Path) -> None:
    given = {"size": np.array([1, 2, 6, 7, 5]), "twice": np.array([1, 1, 2, 2, 2], np.float32)}
    ops = [
        op
        for mode in ("half_pixel", "align_corners", "asymmetric")
        for op in (
            sized("size", mode="linear", coordinate_transformation_mode=mode),
            scaled("twice", mode="linear", coordinate_transformation_mode=mode),
            scaled(
                "twice", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
            ),
        )
    ]
    run_ops(ops, {"x": normal(1, 2, 3, 4, 5)}, tmp_path, constants=given).check(atol=1e-5)


def test_signals_of_one_axis(tmp_path: Path) -> None:
    """ONNX Runtime interpolates no vectors, numpy does."""
    x, given = normal(6), {"size": np.array([13])}
    ends = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    wanted = [np.interp(np.linspace(0, 5, 13), np.arange(6), x).astype(np.float32)]
    run_ops([sized("size", **ends)], {"x": x}, tmp_path, constants=given, wanted=wanted).check(atol=1e-5)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_aspect_ratios_are_kept(tmp_path: Path, policy: str) -> None:
    given = {"size": np.array([7, 9])}
    fixed = {"keep_aspect_ratio_policy": policy, "coordinate_transformation_mode": "asymmetric"}
    ops = [
        sized("size", axes=axes, mode=mode, **fixed)
        for axes, mode in product(([2, 3], [3, 2]), ("nearest", "linear"))
    ]
    run_ops(ops, {"x": normal(1, 2, 5, 6)}, tmp_path, constants=given).check(atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32])
def test_integers_are_copied(tmp_path: Path, dtype: Any) -> None:
    given = constants(4)
    fixed = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    x = np.arange(60, dtype=dtype).reshape(1, 2, 5, 6)
    run_ops([scaled("up", **fixed), sized("small", **fixed)], {"x": x}, tmp_path, constants=given).check()


@pytest.mark.parametrize("size", [1, 5])
def test_dynamic_sizes(tmp_path: Path, size: int) -> None:
    given = {"s": np.array([1, 1, 2, 3], np.float32)}
    half = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
    ops = [
        scaled("s", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        *(scaled("s", mode="nearest", coordinate_transformation_mode=mode) for mode in half),
        *(
            scaled("s", mode="linear", coordinate_transformation_mode=mode)
            for mode in (*half, "align_corners")
        ),
    ]
    limits = {"n": Dimension(1, 4), "h": Dimension(1, 8), "w": Dimension(1, 16)}
    x = {"x": normal(2, 3, size, size + 2)}
    run = run_ops(ops, x, tmp_path, constants=given, axes={"x": ["n", 3, "h", "w"]}, dimensions=limits)
    run.check(atol=1e-5)


def test_a_dynamic_batch_beside_constant_sizes(tmp_path: Path) -> None:
    given = {"up": np.array([1, 1, 2, 3], np.float32), "pair": np.array([7, 9])}
    ops = [
        scaled("up", mode="cubic"),
        sized("pair", axes=[2, 3], mode="linear", antialias=1),
        sized("pair", axes=[2, 3], mode="nearest", coordinate_transformation_mode="asymmetric"),
    ]
    limits = {"n": Dimension(1, 4)}
    x = {"x": normal(3, 2, 5, 6)}
    run = run_ops(ops, x, tmp_path, constants=given, axes={"x": ["n", 2, 5, 6]}, dimensions=limits)
    run.check(atol=2e-5)


def test_sizes_that_keep_the_dynamic_batch(tmp_path: Path) -> None:
    """What PyTorch exports: the first two sizes are computed from the shape, the others are constant."""
    given = {"pair": np.array([8, 9])}
    ops = [
        Op("Shape", ["x"], {"end": 2}),
        Op("Concat", ["y0", "pair"], {"axis": 0}),
        Op("Resize", ["x", "", "", "y1"], {"mode": "linear"}),
    ]
    limits = {"n": Dimension(1, 4)}
    x = {"x": normal(3, 2, 5, 6)}
    run_ops(ops, x, tmp_path, constants=given, axes={"x": ["n", 2, 5, 6]}, dimensions=limits).check(atol=1e-5)


@pytest.mark.parametrize("antialias", [0, 1])
def test_sizes_computed_from_another_tensor(tmp_path: Path, antialias: int) -> None:
    """What feature pyramids do: up to the size of the finer map."""
    ops = [
        Op("Shape", ["x"], {"end": 2}),
        Op("Shape", ["fine"], {"start": 2}),
        Op("Concat", ["y0", "y1"], {"axis": 0}),
        Op("Resize", ["x", "", "", "y2"], {"mode": "linear", "antialias": antialias}),
    ]
    limits = {name: Dimension(1, 32) for name in "nhwab"}
    inputs = {"x": normal(2, 3, 4, 5), "fine": normal(1, 1, 9, 8, seed=1)}
    axes = {"x": ["n", 3, "h", "w"], "fine": [1, 1, "a", "b"]}
    if antialias:
        with pytest.raises(RefusedNodeError, match="half_pixel to sizes known at run time only"):
            run_ops(ops, inputs, tmp_path, axes=axes, dimensions=limits)
        return
    run_ops(ops, inputs, tmp_path, axes=axes, dimensions=limits).check(atol=1e-5)
    with pytest.raises(RefusedNodeError, match="before iOS 17"):
        run_ops(ops, inputs, tmp_path, axes=axes, dimensions=limits, ios=16)


def test_constant_sizes_for_dynamic_axes(tmp_path: Path) -> None:
    given = {"pair": np.array([6, 9])}
    ops = [sized("pair", mode="linear", axes=[2, 3], coordinate_transformation_mode="half_pixel")]
    limits = {name: Dimension(1, 32) for name in "hw"}
    for size in ((3, 4), (11, 7)):
        x = {"x": normal(1, 2, *size)}
        axes = {"x": [1, 2, "h", "w"]}
        folder = tmp_path / str(size[0])
        run_ops(ops, x, folder, constants=given, axes=axes, dimensions=limits, ios=15).check(atol=1e-5)


def test_mils_own_ops_where_they_sample_alike() -> None:
    x, given = normal(1, 2, 5, 6), {**constants(4), "odd": np.array([1, 2, 7, 4])}
    cases = {
        ("nearest", "asymmetric", "up"): "upsample_nearest_neighbor",
        ("nearest", "half_pixel", "up"): "upsample_nearest_neighbor",
        ("linear", "half_pixel", "up"): "resize_bilinear",
        ("linear", "align_corners", "up"): "resize_bilinear",
        ("linear", "asymmetric", "up"): "resize_bilinear",
        ("linear", "pytorch_half_pixel", "half"): "matmul",  # floor(2.5) leaves a fraction behind
    }
    for (mode, coordinates, name), wanted in cases.items():
        rounding = {"nearest_mode": "floor"} if coordinates == "asymmetric" else {}
        op = scaled(name, mode=mode, coordinate_transformation_mode=coordinates, **rounding)
        assert set(mil_ops(op, x, given)) == {wanted}, op
    assert mil_ops(sized("odd", mode="linear"), x, given) == ["resize_bilinear"]
    assert set(mil_ops(sized("odd", mode="cubic"), x, given)) == {"matmul"}


def test_float16_packages(tmp_path: Path) -> None:
    ops = [*both(4, mode="linear"), *both(4, mode="cubic"), *both(4, mode="linear", antialias=1)]
    x = normal(1, 2, 5, 6) * 100
    run = run_ops(ops, {"x": x}, tmp_path, constants=constants(4), arithmetic="float16")
    run.check(rtol=4e-3, atol=0.5)


@pytest.mark.parametrize("ios", [15, 18])
def test_rearranging(tmp_path: Path, ios: int) -> None:
    ops = [
        *(
            Op("DepthToSpace", ["x"], {"blocksize": b, "mode": m})
            for b, m in product((1, 2, 3), ("DCR", "CRD"))
        ),
        Op("DepthToSpace", ["x"], {"blocksize": 2}),
        *(Op("SpaceToDepth", ["x"], {"blocksize": b}) for b in (1, 2, 3)),
    ]
    run_ops(ops, {"x": normal(2, 36, 6, 12)}, tmp_path, ios=ios).check()


def test_affine_grids(tmp_path: Path) -> None:
    ops = [Op("AffineGrid", ["x", "size"], {"align_corners": align}) for align in (0, 1)]
    for shape, size in (((2, 2, 3), [2, 3, 4, 5]), ((1, 3, 4), [1, 2, 3, 4, 2])):
        folder = tmp_path / str(len(size))
        run_ops(ops, {"x": normal(*shape)}, folder, constants={"size": np.array(size)}).check()


SIZES = {
    "s": np.array([1, 2, 3, 4]),
    "same": np.array([1, 2, 5, 6]),
    "f": np.array([1, 1, 0.35, 0.6], np.float32),
    "roi": np.array([0, 0, 0.2, 0, 1, 1, 0.8, 1], np.float32),
}
REFUSED = [
    (scaled("f", mode="linear", coordinate_transformation_mode="align_corners"), "fractional sizes"),
    (sized("s", mode="linear", exclude_outside=1), "exclude_outside=1 with mode=linear"),
    (sized("s", mode="nearest", antialias=1), "antialias=1 with mode=nearest"),
    (sized("s", mode="area"), "mode=area"),
    (sized("s", coordinate_transformation_mode="half"), "coordinate_transformation_mode=half"),
    (sized("s", nearest_mode="round"), "nearest_mode=round"),
    (scaled("f", nearest_mode="floor", coordinate_transformation_mode="asymmetric"), "rounding errors"),
    (
        Op("Resize", ["x", "roi", "", "same"], {"coordinate_transformation_mode": CROP}),
        "moves an axis that keeps its size",
    ),
    (Op("Resize", ["x", "roi", "f"], {"coordinate_transformation_mode": CROP}), "with scales"),
    (Op("DepthToSpace", ["x"], {"blocksize": 1, "mode": "RCD"}), "mode=RCD"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_refusals(op: Op, reason: str) -> None:
    shape = (1, 2, 10, 10) if "f" in op.inputs else (1, 2, 5, 6)
    assert reason in refusal(op, {"x": normal(*shape)}, SIZES)


def test_dynamic_axes_without_an_equivalent_are_refused(tmp_path: Path) -> None:
    given = {"s": np.array([1, 1, 2, 2], np.float32), "f": np.array([1, 1, 1.5, 2], np.float32)}
    limits = {"h": Dimension(1, 8)}
    cases = [
        (scaled("s", mode="linear", coordinate_transformation_mode="asymmetric"), "asymmetric on a dynamic"),
        (scaled("s", mode="cubic"), "half_pixel on a dynamic"),
        (scaled("s", nearest_mode="ceil"), "half_pixel and ceil on the dynamic"),
        (scaled("f"), "scale 1.5 on a dynamic"),
    ]
    for op, reason in cases:
        with pytest.raises(RefusedNodeError, match=reason):
            run_ops(
                [op], {"x": normal(1, 2, 4, 6)}, tmp_path,
                constants=given, axes={"x": [1, 2, "h", 6]}, dimensions=limits,
            )  # fmt: skip


def test_models_in_float16(tmp_path: Path) -> None:
    """Constants of the packages are float16 as well; the reference computes in float32."""
    x, given = normal(1, 2, 5, 6).astype(np.float16), constants(4)
    ops = [*both(4, mode="nearest"), *both(4, mode="linear", antialias=1), *both(4, mode="cubic")]
    single = {"x": x.astype(np.float32)}
    wanted = [y.astype(np.float16) for y in by_onnxruntime(model_of(ops, single, given), single)]
    run = run_ops(ops, {"x": x}, tmp_path, constants=given, ios=16, wanted=wanted)
    run.check(rtol=4e-3, atol=4e-3)


def test_grids_inside_and_outside_the_image(tmp_path: Path) -> None:
    ops = [
        Op("GridSample", ["x", "g"], {"align_corners": align, "padding_mode": padding})
        for align, padding in product((0, 1), ("zeros", "border", "reflection"))
    ]
    places = np.random.default_rng(0).uniform(-2.5, 2.5, (2, 7, 8, 2)).astype(np.float32)
    run_ops(ops, {"x": normal(2, 3, 5, 6), "g": places}, tmp_path).check(atol=2e-5)


@pytest.mark.parametrize("mode", ["nearest", "cubic"])
def test_grids_are_sampled_linearly_only(mode: str) -> None:
    op = Op("GridSample", ["x", "g"], {"mode": mode})
    assert f"mode={mode}" in refusal(op, {"x": normal(1, 1, 4, 4), "g": normal(1, 3, 3, 2)})
