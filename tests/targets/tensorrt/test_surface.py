"""The Python API of TensorRT that is used, against every module that can be imported."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgeq.targets.tensorrt.backend as backend
from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.build import build_engine
from edgeq.targets.tensorrt.backend.names import SHARED, WITH_RTX
from edgeq.targets.tensorrt.backend.request import BuildRequest
from edgeq.targets.tensorrt.backend.surface import check_surface, surface_problems
from tests.support.classic_bindings import unpack
from tests.support.tensorrt import needs_rtx

BINDINGS = os.environ.get("EDGEQ_TENSORRT_BINDINGS", "")
SOURCES = Path(backend.__file__).parent.parent


@needs_rtx
def test_tensorrt_for_rtx_has_everything_that_is_used() -> None:
    assert check_surface("tensorrt_rtx") == []


@pytest.mark.skipif(find_spec("tensorrt") is None, reason="TensorRT (10 or 11) is not installed")
def test_tensorrt_has_everything_that_is_used() -> None:
    assert check_surface("tensorrt") == []


@pytest.mark.skipif(
    not BINDINGS, reason="EDGEQ_TENSORRT_BINDINGS names no folder of tensorrt_cu*_bindings wheels"
)
def test_bindings_of_tensorrt_have_everything_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the worker starts with them: their library is none, so that no builder can be made."""
    wheels = sorted(Path(BINDINGS).glob("tensorrt_cu*_bindings-*.whl"))
    assert wheels
    for wheel in wheels:
        folder = tmp_path / wheel.stem
        unpack(wheel, folder)
        with monkeypatch.context() as changed:
            changed.setenv("LD_LIBRARY_PATH", str(folder))
            changed.setenv("PYTHONPATH", str(folder))
            changed.syspath_prepend(folder)
            assert (wheel.name, check_surface("tensorrt")) == (wheel.name, [])
            with pytest.raises(TargetError, match="does not start without an NVIDIA GPU"):
                build_engine(BuildRequest(backend="tensorrt", model=tmp_path / "m.onnx", engine=None, sm=()))


def test_module_that_cannot_be_imported_is_an_error() -> None:
    with pytest.raises(TargetError, match=r"no_such_module cannot be imported: .*No module named"):
        check_surface("no_such_module")


class Builder:
    """A compiler of another age."""

    def create_network(self) -> None:
        """create_network(self: a.Builder, strict: bool, flags: int = 0) -> a.INetworkDefinition"""

    def create_builder_config(self) -> None:
        """Overloaded function.

        1. create_builder_config(self: a.Builder, kind: str) -> a.IBuilderConfig

        2. create_builder_config(self: a.Builder, kind: str = 'usual', size: int = 1) -> a.IBuilderConfig
        """


class IHostMemory:
    def nbytes(self) -> None:
        """nbytes(self: a.IHostMemory) -> int"""


def test_differences_are_found() -> None:
    module = SimpleNamespace(
        __name__="tensorrt", __version__="10.0.1", Builder=Builder, IHostMemory=IHostMemory
    )
    problems = surface_problems(module)
    assert "Builder.create_network takes (strict, flags), and is called with (flags)." in problems
    assert not [problem for problem in problems if problem.startswith("Builder.create_builder_config")]
    assert "Builder.create_optimization_profile is missing in tensorrt 10.0.1." in problems
    assert "IHostMemory.nbytes is a method." in problems
    assert not [problem for problem in problems if "ComputeCapability" in problem]


def test_what_came_later_is_asked_of_later_versions_only() -> None:
    def missing(version: str) -> set[str]:
        module = SimpleNamespace(__name__="tensorrt", __version__=version)
        return {problem.split()[0] for problem in surface_problems(module)}

    later = missing("10.13.0") - missing("10.12.4")
    assert later == {"IStreamWriter.write", "Builder.build_serialized_network_to_stream"}
    module = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1")
    rtx = {problem.split()[0] for problem in surface_problems(module)}
    assert rtx > missing("11.4.0")


def trees() -> Iterator[ast.Module]:
    for part in ("backend", "gpu"):
        for path in (SOURCES / part).glob("*.py"):
            if path.name not in ("names.py", "surface.py"):
                yield ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_everything_that_is_read_of_the_module_is_in_the_table() -> None:
    """``trt.BuilderFlag.REFIT`` in the code needs ``BuilderFlag`` with ``REFIT`` in the table."""
    chains = {dotted(node) for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    prefixes = ("trt.", "self._trt.", "self.trt.")
    read = {chain[len(prefix) :] for chain in chains for prefix in prefixes if chain.startswith(prefix)}
    known = {owner: {*SHARED.get(owner, {}), *WITH_RTX.get(owner, {})} for owner in {*SHARED, *WITH_RTX}}
    assert len(read) > 10
    for name in sorted(read - {"__version__", *known[""]}):
        owner, _, member = name.partition(".")
        assert owner in known, name
        first = member.partition(".")[0]
        assert not first or first in known[owner] or first.startswith("__"), name


def test_the_table_holds_nothing_that_is_not_used() -> None:
    nodes = [node for tree in trees() for node in ast.walk(tree)]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    methods = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    members = {name for names in (*SHARED.values(), *WITH_RTX.values()) for name in names}
    by_number = {name for name in members if name.startswith("SM")}
    assert members - by_number - {"__init__"} <= attributes | methods | texts
