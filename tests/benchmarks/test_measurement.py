from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.units import format_difference, format_value

numbers = st.floats(allow_nan=False)
measurements = st.builds(
    Measurement,
    metric=st.text(min_size=1),
    value=numbers,
    baseline=st.none() | numbers,
    unit=st.sampled_from(["bytes", "s", "x", "fraction", "dB", ""]),
    higher_is_better=st.booleans(),
    interval=st.none() | st.tuples(numbers, numbers),
    interval_of=st.sampled_from(["value", "difference"]),
    detail=st.dictionaries(st.text(), st.integers() | st.text()),
)


@given(measurements)
def test_json_round_trip(measurement: Measurement) -> None:
    text = json.dumps(measurement.to_json(), allow_nan=False)
    assert Measurement.from_json(json.loads(text)) == measurement


def test_nan_survives_json() -> None:
    text = json.dumps(Measurement("top1", math.nan).to_json(), allow_nan=False)
    assert math.isnan(Measurement.from_json(json.loads(text)).value)


def test_all_measurements_survive_json() -> None:
    found = Measurements(failures={"f1": "why"}, notes=["a note"])
    found.add(Measurement("size", 1.0), Measurement("top1", 0.5, 0.6, "fraction"))
    assert Measurements.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert list(found) == ["size", "top1"]


def test_difference_and_ratio() -> None:
    found = Measurement("size", 1.0, 4.0)
    assert (found.difference, found.ratio) == (-3.0, 0.25)
    assert Measurement("size", 1.0).ratio is None
    assert Measurement("size", 1.0, 0.0).ratio is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4_952_362, "bytes", "4.952 MB"),
        (999, "bytes", "999 B"),
        (0, "bytes", "0 B"),
        (2e9, "bytes", "2 GB"),
        (0.0123, "s", "12.3 ms"),
        (103.4e-6, "s", "103.4 us"),
        (1.5, "s", "1.5 s"),
        (1.625, "x", "1.62x"),
        (0.73692, "fraction", "73.69 %"),
        (41.23, "dB", "41.23 dB"),
        (20.4, "", "20.4"),
        (0.99987, "", "0.9999"),
        (1.5e-7, "", "1.5e-07"),
        (math.nan, "bytes", "nan"),
        (3.5, "px", "3.5 px"),
    ],
)
def test_values_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_differences_have_a_sign() -> None:
    assert format_difference(-0.0046, "fraction") == "-0.46 points"
    assert format_difference(0.4, "") == "+0.4"
    assert format_difference(-2e6, "bytes") == "-2 MB"
