"""Optimization profiles: sizes given, derived from data, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgeq.calibration.types import Array
from edgeq.compiler.model import Model, Source
from edgeq.errors import ConfigError, TargetError
from edgeq.targets.dimensions import parse_dimension
from edgeq.targets.tensorrt.backend.request import InputShapes
from edgeq.targets.tensorrt.profiles import make_profiles

Shape = tuple[int | str | None, ...] | None


def model_of(**inputs: Shape) -> Model:
    """A model with these float inputs, whose only node reads the first."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", [next(iter(inputs))], ["y"])], "g", infos, [out])
    return Model(ir.from_proto(helper.make_model(graph)), Source("onnx", "m.onnx", "0"))


def profiles_of(model: Model, *samples: dict[str, Array], **sizes: str) -> Any:
    dimensions = {name: parse_dimension(name, text) for name, text in sizes.items()}
    return make_profiles(model, dimensions, samples)


def shapes(least: tuple[int, ...], usual: tuple[int, ...], most: tuple[int, ...]) -> InputShapes:
    return InputShapes(min=least, opt=usual, max=most)


def text(batch: int, length: int) -> dict[str, Array]:
    return {"ids": np.zeros((batch, length), np.float32), "mask": np.zeros((batch, length), np.float32)}


TEXT = {"ids": ("batch", "length"), "mask": ("batch", "length")}


def test_static_model_needs_no_profile() -> None:
    assert profiles_of(model_of(x=(1, 3, 8, 8))) == ((), ())


def test_static_inputs_are_left_out() -> None:
    profiles, _ = profiles_of(model_of(x=("batch", 3), c=(1, 3)), batch="1..4")
    assert profiles == ({"x": shapes((1, 3), (1, 3), (4, 3))},)


def test_range_with_preferred_size_is_one_profile() -> None:
    profiles, notes = profiles_of(model_of(x=("batch", 3)), batch="1..32@8")
    assert profiles == ({"x": shapes((1, 3), (8, 3), (32, 3))},)
    assert notes == ()


def test_listed_sizes_are_one_profile_each_with_the_preferred_one_first() -> None:
    profiles, _ = profiles_of(model_of(x=(1, "length")), length="32,64,128@64")
    assert [profile["x"].opt for profile in profiles] == [(1, 64), (1, 32), (1, 128)]
    assert all(profile["x"].min == profile["x"].opt == profile["x"].max for profile in profiles)


def test_dimensions_are_combined() -> None:
    profiles, _ = profiles_of(model_of(x=("batch", "length")), batch="1..8@2", length="16,32")
    assert profiles == (
        {"x": shapes((1, 16), (2, 16), (8, 16))},
        {"x": shapes((1, 32), (2, 32), (8, 32))},
    )


def test_one_symbol_has_one_size_in_all_inputs() -> None:
    profiles, _ = profiles_of(model_of(**TEXT), batch="1..2", length="16,32")
    assert all(profile["ids"] == profile["mask"] for profile in profiles)
    assert len(profiles) == 2


def test_nameless_dimension_is_named_by_input_and_axis() -> None:
    model = model_of(x=(1, None))
    profiles, _ = make_profiles(model, {"x:1": parse_dimension("x:1", "5")}, ())
    assert profiles == ({"x": shapes((1, 5), (1, 5), (1, 5))},)
    with pytest.raises(TargetError, match="'x:1'"):
        profiles_of(model)


def test_batch_is_one_to_eight_when_nothing_is_said() -> None:
    profiles, notes = profiles_of(model_of(x=("batch", 3)))
    assert profiles == ({"x": shapes((1, 3), (1, 3), (8, 3))},)
    assert "'batch' is 1 to 8, tuned for 1" in notes[0]
    assert "--dimension batch=" in notes[0]


def test_batch_of_the_data_is_covered() -> None:
    profiles, _ = profiles_of(model_of(**TEXT), text(16, 7), text(16, 7), text(2, 7))
    assert profiles[0]["ids"] == shapes((1, 7), (16, 7), (16, 7))


def test_other_sizes_are_those_of_the_data_tuned_for_the_most_frequent() -> None:
    samples = [text(1, length) for length in (12, 40, 12, 7)]
    profiles, notes = profiles_of(model_of(**TEXT), *samples)
    assert profiles == (dict.fromkeys(("ids", "mask"), shapes((1, 7), (1, 12), (8, 40))),)
    assert "'length' is 7 to 40, tuned for 12, as in the calibration data" in " ".join(notes)


def test_of_equally_frequent_sizes_the_smallest_is_preferred() -> None:
    profiles, _ = profiles_of(model_of(**TEXT), text(1, 9), text(1, 5))
    assert profiles[0]["ids"].opt == (1, 5)


def test_padded_data_gives_one_size() -> None:
    profiles, notes = profiles_of(model_of(**TEXT), text(1, 128), batch="1")
    assert profiles[0]["ids"] == shapes((1, 128), (1, 128), (1, 128))
    assert "'length' is 128 alone" in notes[0]


def test_given_sizes_win_over_the_data_and_leave_no_note() -> None:
    profiles, notes = profiles_of(model_of(**TEXT), text(1, 12), batch="1", length="1..512@64")
    assert profiles[0]["ids"] == shapes((1, 1), (1, 64), (1, 512))
    assert notes == ()


def test_data_is_not_read_when_everything_is_given() -> None:
    def refuse() -> Any:
        raise AssertionError("read")
        yield

    dimensions = {"batch": parse_dimension("batch", "1..4")}
    make_profiles(model_of(x=("batch", 3)), dimensions, refuse())


def test_unknown_size_is_refused_with_the_option() -> None:
    with pytest.raises(TargetError, match="'length'") as error:
        profiles_of(model_of(**TEXT), batch="1")
    assert error.value.fix is not None
    assert "--dimension length=" in error.value.fix


def test_dimension_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="no dynamic dimension 'width'"):
        profiles_of(model_of(x=("batch", 3)), width="4")
    with pytest.raises(ConfigError, match="no dynamic dimension 'batch'"):
        profiles_of(model_of(x=(1, 3)), batch="4")


def test_input_without_rank_is_refused() -> None:
    with pytest.raises(TargetError, match="'x' has no known number of dimensions"):
        profiles_of(model_of(x=None))
