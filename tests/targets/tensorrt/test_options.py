"""Options of the target from texts: what is understood, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.cli.options import target_options_from
from edgeq.errors import ConfigError
from edgeq.targets.tensorrt.options import TensorRTOptions, parse_options


@pytest.mark.parametrize("text", ["86,120", "120,86,86", "SM86,sm_120", "8.6, 12.0"])
def test_compute_capabilities_are_a_set(text: str) -> None:
    assert parse_options({"sm": text}).sm == (86, 120)


def test_compute_capabilities_given_apart_are_all_built_for() -> None:
    given = target_options_from(None, None, None, None, ["120", "86,89"])
    assert parse_options(given).sm == (86, 89, 120)


@pytest.mark.parametrize("text", ["", "86,", "70", "90", "86.0", "86 89", "new"])
def test_other_compute_capabilities_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="'sm'"):
        parse_options({"sm": text})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("backend", "trt"),
        ("precision", "fp8"),
        ("optimization_level", "6"),
        ("optimization_level", "²"),  # a digit that is no number
        ("workspace_mb", "0"),
        ("workspace_mb", str(2**43)),  # its bytes do not fit into a signed number of 64 bits
        ("weight_streaming", "yes"),
        ("timing_cache", ""),
        ("dimension.N", "1..4@²"),
        ("dimensions.N", "1"),
        ("dimension", "1"),
    ],
)
def test_what_is_no_value_is_refused_by_name(key: str, text: str) -> None:
    name = key.removeprefix("dimension.")
    with pytest.raises(ConfigError, match=f"'{name}'"):
        parse_options({key: text})


@pytest.mark.parametrize(
    "given", [{"sm": 86}, {"sm": ["86"]}, {"weight_streaming": True}, {86: "sm"}, {"dimension.N": 1}, "sm=86"]
)
def test_what_is_no_text_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"text|type str"):
        parse_options(given)


def test_both_spellings_of_an_option_are_one_option() -> None:
    assert parse_options({"workspace-mb": "64"}) == TensorRTOptions(workspace_mb=64)
    with pytest.raises(ConfigError, match="'workspace_mb' is given twice"):
        parse_options({"workspace-mb": "64", "workspace_mb": "32"})


@pytest.mark.parametrize("scheme", ["fp32", "fp16"])
def test_the_precision_of_the_rest_is_refused_where_there_is_no_rest(scheme: str) -> None:
    with pytest.raises(ConfigError, match="'precision' has no effect"):
        parse_options({"precision": "bf16"}).refuse_unused(scheme)
