"""Packages in use: inputs that do not fit, threads, other machines, damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeq.calibration.types import Array
from edgeq.errors import DataError, ModelError, TargetError, UsageError
from edgeq.targets.neural_compressor.files import MODEL, SETTINGS
from edgeq.targets.neural_compressor.runner import PackageRunner, open_runner
from tests.support.neural_compressor import Artefact, Grid, grid_inputs, layers_inputs, outputs, seeded

X = layers_inputs(3)["x"]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "The input 'x' is missing."),
        ({"x": X, "y": X}, "The model has no input 'y'."),
        ({"x": X.astype(np.float64)}, "The input 'x' is float64, the model wants float32."),
        ({"x": X[:, :23]}, "The input 'x' has the shape [3, 23], the model wants [batch, 24]."),
        ({"x": X[0]}, "The input 'x' has the shape [24], the model wants [batch, 24]."),
        ({"x": X[:0]}, "The dimension 'batch' is 0 in the input 'x'; the package is compiled for 1 or more."),
    ],
    ids=["missing", "unknown", "dtype", "shape", "rank", "empty"],
)
def test_inputs_that_do_not_fit_are_refused(dynamic: Artefact, inputs: dict[str, Array], told: str) -> None:
    with PackageRunner(dynamic.folder, threads=1) as runner, pytest.raises(DataError) as caught:
        runner.run(inputs)
    assert caught.value.what.replace("s0", "batch") == told


def test_inputs_must_agree_about_their_batch(static: Artefact) -> None:
    inputs = grid_inputs(3) | {"gray": grid_inputs(2)["gray"]}
    with (
        PackageRunner(static.folder, threads=1) as runner,
        pytest.raises(DataError, match="is 3 in the input"),
    ):
        runner.run(inputs)


@pytest.mark.parametrize("token", [-1, 1200], ids=["negative", "beyond the table"])
def test_tokens_beyond_the_table_are_refused_where_the_code_would_end_the_process(
    static: Artefact, token: int
) -> None:
    inputs = grid_inputs(3)
    inputs["tokens"][1, 2] = token
    with PackageRunner(static.folder, threads=1) as runner, pytest.raises(DataError) as caught:
        runner.run(inputs)
    assert (
        caught.value.what
        == f"The input 'tokens' has the value {token}; the model's table has rows 0 to 1199."
    )


@pytest.mark.parametrize(
    "form",
    [np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2], lambda x: x[::-1][::-1], np.copy],
    ids=["columns first", "with gaps", "reversed twice", "plain"],
)
def test_the_form_in_memory_does_not_matter(dynamic: Artefact, form: Callable[[Array], Array]) -> None:
    given = form(X)
    given.flags.writeable = False
    with PackageRunner(dynamic.folder, threads=1) as runner:
        (found,) = runner.run({"x": given}).values()
        (plain,) = runner.run({"x": X.copy()}).values()
    assert np.array_equal(found, plain)


def test_samples_do_not_depend_on_their_batch(static: Artefact) -> None:
    inputs = grid_inputs(5, seed=3)
    with open_runner(static.folder, threads=2) as runner:
        together = runner.run(inputs)
        alone = [runner.run({n: a[i : i + 1] for n, a in inputs.items()}) for i in range(5)]
    for name, found in together.items():
        assert np.allclose(np.concatenate([each[name] for each in alone]), found, atol=1e-5), name


def test_numbers_are_close_to_the_float_model(static: Artefact) -> None:
    inputs = grid_inputs(8, seed=4)
    with open_runner(static.folder, threads=1) as runner:
        found = list(runner.run(inputs).values())
    for wanted, got in zip(outputs(seeded(Grid), inputs), found, strict=True):
        noise = float(np.square(got - wanted).sum() / np.square(wanted).sum())
        assert noise < 0.01


def test_threads_of_the_process_are_left_alone(dynamic: Artefact) -> None:
    before = torch.get_num_threads()
    with PackageRunner(dynamic.folder, threads=before + 1) as runner:
        runner.run({"x": X})
        assert torch.get_num_threads() == before
    with pytest.raises(UsageError):
        PackageRunner(dynamic.folder, threads=0)
    with pytest.raises(TargetError, match="closed"):
        runner.run({"x": X})


def _edit(folder: Path, **changed: Any) -> None:
    path = folder / SETTINGS
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["interface"] |= changed
    path.write_text(json.dumps(settings), encoding="utf-8")


def test_a_cpu_without_the_instructions_is_refused(damaged: Path) -> None:
    _edit(damaged, cpu=["avx2", "avx1024"])
    with pytest.raises(TargetError) as caught:
        PackageRunner(damaged)
    assert caught.value.what == (
        "The package was compiled for CPUs with avx2, avx1024, and this one lacks avx1024."
    )


def test_another_pytorch_is_refused(damaged: Path) -> None:
    _edit(damaged, torch="2.1.0")
    with pytest.raises(TargetError, match=r"compiled with PyTorch 2\.1\.0, and this is") as caught:
        PackageRunner(damaged)
    assert "torch==2.1.0" in str(caught.value.fix)


def test_damaged_packages_are_refused(damaged: Path) -> None:
    (damaged / MODEL).write_bytes((damaged / MODEL).read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        PackageRunner(damaged)
    (damaged / SETTINGS).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        PackageRunner(damaged)
