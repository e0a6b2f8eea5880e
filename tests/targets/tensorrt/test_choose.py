"""Which compiler builds, for which GPUs, on machines of all kinds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.architectures import DEFAULT_SM
from edgeq.targets.tensorrt.backend import choose as module
from edgeq.targets.tensorrt.backend.choose import availability, choose, compute_capabilities, prefers_classic
from edgeq.targets.tensorrt.gpu import device
from edgeq.targets.tensorrt.gpu.device import Device
from edgeq.targets.tensorrt.options import Backend, TensorRTOptions
from tests.support.tensorrt import needs_rtx

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with these compilers, and a GPU of this compute capability."""

    def make(*compilers: str, sm: int | None = None) -> None:
        gpu = None if sm is None else Device("GPU", sm, 8000.0)
        monkeypatch.setattr(device, "device", lambda: gpu)
        monkeypatch.setattr(module, "importable", lambda backend: backend in compilers)

    return make


def options(backend: Backend = "auto", *sm: int, cache: str = "") -> TensorRTOptions:
    return TensorRTOptions(backend=backend, sm=sm, timing_cache=Path(cache) if cache else None)


def test_tensorrt_builds_where_it_has_a_gpu(machine: Machine) -> None:
    machine("tensorrt", "tensorrt-rtx", sm=90)
    assert choose(options()) == ("tensorrt", ())
    assert choose(options("tensorrt")) == ("tensorrt", ())
    assert choose(options("auto", 90)) == ("tensorrt", ())
    assert compute_capabilities(options()) == (90,)


def test_tensorrt_for_rtx_builds_ahead_of_time(machine: Machine) -> None:
    machine("tensorrt", "tensorrt-rtx")
    assert choose(options()) == ("tensorrt-rtx", DEFAULT_SM)
    assert choose(options("auto", 86)) == ("tensorrt-rtx", (86,))
    machine("tensorrt-rtx", sm=89)
    assert choose(options()) == ("tensorrt-rtx", (89,))
    assert choose(options("auto", 86, 120)) == ("tensorrt-rtx", (86, 120))


def test_other_gpus_than_this_one_are_built_for_by_tensorrt_for_rtx(machine: Machine) -> None:
    machine("tensorrt", "tensorrt-rtx", sm=89)
    assert choose(options("auto", 86)) == ("tensorrt-rtx", (86,))
    assert choose(options("tensorrt-rtx")) == ("tensorrt-rtx", (89,))
    assert prefers_classic(options("auto", 89))
    assert not prefers_classic(options("auto", 86))


@pytest.mark.parametrize(
    ("compilers", "sm", "asked", "what", "fix"),
    [
        ((), None, options(), "RTX, which builds .* is not installed", "pip install 'edgeq"),
        (("tensorrt",), None, options(), "builds on the GPU .* machine has none", "--gpus all"),
        (("tensorrt-rtx",), 89, options("tensorrt"), "'tensorrt' is not installed", "container"),
        (("tensorrt",), None, options("tensorrt"), "builds on the GPU .* machine has none", "tensorrt-rtx"),
        (("tensorrt",), 90, options("tensorrt", 86), "alone, which is SM90", "Leave --sm out"),
        (("tensorrt-rtx",), 90, options(), "does not build for .* SM90", "--sm 86,89,120"),
        (("tensorrt-rtx",), None, options(cache="times"), "'timing_cache' has no effect", "Leave it out"),
    ],
)
def test_what_cannot_be_built_is_refused(
    compilers: tuple[str, ...], sm: int | None, asked: TensorRTOptions, what: str, fix: str, machine: Machine
) -> None:
    machine(*compilers, sm=sm)
    with pytest.raises(TargetError, match=what) as error:
        choose(asked)
    assert error.value.fix is not None
    assert fix in error.value.fix


def test_availability_says_what_is_here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("tensorrt", "tensorrt-rtx", sm=90)
    found = availability()
    assert found.ready
    assert "TensorRT for the GPU of this machine (SM90)" in found.detail
    assert "SM86" in found.detail
    machine("tensorrt")
    assert not availability().ready
    assert availability().fix == "pip install 'edgeq[tensorrt-rtx]'"
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert "macOS" in availability().detail
    assert availability().fix is None


@needs_rtx
def test_this_machine_is_ready_without_importing_a_compiler() -> None:
    script = (
        "import sys; from edgeq.targets.tensorrt.backend.choose import availability; found = availability()\n"
        "print(found.ready, found.detail, 'tensorrt_rtx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True ")
    assert "TensorRT for RTX 1." in done.stdout
    assert done.stdout.endswith("False\n")
