from __future__ import annotations

import io
import json
import logging
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.calibration.random_inputs import random_inputs
from edgeq.compiler.load import load
from edgeq.errors import MissingExtraError, ModelError, UsageError
from tests.support.loading import Recorder, run

torch = pytest.importorskip("torch")
nn = torch.nn
pytree = torch.utils._pytree


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.9)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


class Chars(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.rnn = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, ids: Any) -> Any:
        return self.head(self.rnn(self.embed(ids))[0])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x: Any, mask: Any) -> Any:
        hidden = self.layer(x, src_key_padding_mask=mask)
        return {"hidden": hidden, "pooled": hidden.mean(1)}


class FixedBatch(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.reshape(2, -1) if x.shape[0] == 2 else x.reshape(x.shape[0], -1) + 1


class DataDependent(nn.Module):
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


def _images(batch: int) -> Any:
    return (torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(batch)),)


def _ids(batch: int) -> Any:
    return (torch.randint(0, 20, (batch, 7), generator=torch.Generator().manual_seed(batch)),)


def _tokens(batch: int) -> Any:
    mask = torch.zeros(batch, 5, dtype=torch.bool)
    mask[0, 3:] = True
    return {"x": torch.randn(batch, 5, 16, generator=torch.Generator().manual_seed(batch)), "mask": mask}


def _module(kind: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return kind()


def _agree(model: Any, module: Any, example: Any) -> None:
    """The loaded graph and the module in eval mode give the same numbers on ``example``."""
    arguments = example if isinstance(example, tuple) else tuple(example.values())
    feed = {spec.name: value.numpy() for spec, value in zip(model.inputs, arguments, strict=True)}
    with torch.no_grad():
        wanted = module.eval()(*arguments)
    wanted = wanted.values() if isinstance(wanted, dict) else [wanted]
    for ours, theirs in zip(run(model, feed), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def _program_agrees(model: Any) -> None:
    """The program that a loaded model keeps takes and gives what the graph does, in its order."""
    feed = random_inputs(model.inputs, seed=3, batch=2)
    with torch.no_grad():
        flat = [torch.from_numpy(feed[spec.name]) for spec in model.inputs]
        arguments, keywords = pytree.tree_unflatten(flat, model.program.call_spec.in_spec)
        found = model.program.module()(*arguments, **keywords)
    found = pytree.tree_leaves(found)
    for wanted, theirs in zip(run(model, feed), found, strict=True):
        np.testing.assert_allclose(theirs.numpy(), wanted, rtol=1e-4, atol=1e-5)


def _shared(model: Any, module: Any) -> bool:
    """Some of the graph's weights lie in the module's own memory."""
    tensors = [value.const_value.numpy() for value in model.ir.graph.initializers.values()]
    weights = [parameter.detach().numpy() for parameter in module.parameters()]
    return any(np.shares_memory(ours, theirs) for ours in tensors for theirs in weights)


def _bytes(model: Any) -> bytes:
    return bytes(ir.to_proto(model.ir).SerializeToString(deterministic=True))


@pytest.mark.parametrize(
    ("kind", "example", "batch", "outputs"),
    [
        (Cnn, _images, 1, ["output"]),
        (Chars, _ids, 3, ["output"]),
        (Encoder, _tokens, 1, ["hidden", "pooled"]),
    ],
)
def test_modules_export_with_a_dynamic_batch(
    kind: Any, example: Any, batch: int, outputs: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    module = _module(kind)
    said = Recorder()
    model = load(module, example_inputs=example(batch), progress=said)
    assert capfd.readouterr() == ("", "")
    assert said.notes == []
    assert model.source.details["batch"] == "dynamic"
    assert all(
        spec.shape is not None and spec.shape[0] == "batch" for spec in [*model.inputs, *model.outputs]
    )
    assert [spec.name for spec in model.outputs] == outputs
    _program_agrees(model)
    assert all(part.training for part in module.modules())
    assert _shared(model, module)
    for other in (1, 2, 5):
        _agree(model, module, example(other))


def test_exports_are_deterministic_and_know_nothing_of_this_machine() -> None:
    first = load(_module(Cnn), example_inputs=_images(2))
    second = load(_module(Cnn), example_inputs=_images(2))
    assert _bytes(first) == _bytes(second)
    assert first.source.sha256 == second.source.sha256
    for path in (Path(__file__).name, str(Path.cwd()), "site-packages"):
        assert path.encode() not in _bytes(first)
    other = _module(Cnn)
    with torch.no_grad():
        other.head.bias[0] += 1
    assert load(other, example_inputs=_images(2)).source.sha256 != first.source.sha256


def test_a_batch_that_cannot_be_dynamic_is_fixed_and_said_so() -> None:
    said = Recorder()
    model = load(FixedBatch(), example_inputs=(torch.ones(2, 3, 4),), progress=said)
    assert model.source.details["batch"] == 2
    assert said.notes == [
        "FixedBatch: the batch is fixed at 2, because a dynamic one cannot be exported: Constraints violated "
        "(batch)! You marked batch as dynamic but your code specialized it to be a constant (2)."
    ]
    assert "specialized" in model.source.details["batch_reason"]
    _agree(model, FixedBatch(), (torch.ones(2, 3, 4),))


def test_what_cannot_be_exported_says_what_torch_said() -> None:
    with pytest.raises(ModelError, match=r"^DataDependent cannot be exported to ONNX: Could not") as caught:
        load(DataDependent(), example_inputs=(torch.ones(2, 3),))
    assert "\n" not in str(caught.value)


def test_example_inputs_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match=r"^Cnn cannot be exported to ONNX: "):
        load(_module(Cnn), example_inputs=(torch.ones(2, 5, 8, 8),))
    with pytest.raises(ModelError, match=r"^Cnn cannot be exported to ONNX: "):
        load(_module(Cnn), example_inputs={"image": torch.ones(2, 3, 8, 8)})


@pytest.mark.parametrize(
    ("example", "what"),
    [
        (None, "Cnn needs example_inputs to be exported."),
        (3, "example_inputs of Cnn is a int."),
        ((), "example_inputs of Cnn hold no torch.Tensor."),
        ({"x": 1}, "example_inputs of Cnn hold no torch.Tensor."),
    ],
)
def test_example_inputs_of_the_wrong_kind(example: Any, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(_module(Cnn), example_inputs=example)
    assert caught.value.what == what


def test_a_task_does_not_apply_to_a_module() -> None:
    with pytest.raises(UsageError, match="task applies to a Hugging Face folder only"):
        load(_module(Cnn), example_inputs=_images(2), task="text-classification")


# ---- factories

FACTORIES = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(4, 2)
    def forward(self, x):
        return self.head(x)

def pair():
    return Net(), (torch.ones(2, 4),)

def with_attribute():
    net = Net()
    net.example_inputs = {"x": torch.ones(2, 4)}
    return net

def bare():
    return Net()

class Holder:
    build = staticmethod(pair)

ready = with_attribute()
number = 3

def returns_number():
    return 3

def returns_pair_of_numbers():
    return 3, 4

def needs_argument(size):
    return Net()

def fails():
    raise RuntimeError("no weights\\nhere")

def leaves():
    raise SystemExit(2)
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder, which is not on the path; its name."""
    name = "edgeq_test_factories"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    (tmp_path / "edgeq_test_broken.py").write_text("import edgeq_test_nowhere")
    (tmp_path / "edgeq_test_syntax.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize("attribute", ["pair", "with_attribute", "Holder.build", "ready"])
def test_factories_in_the_working_folder(factories: str, attribute: str) -> None:
    path = list(sys.path)
    model = load(f"{factories}:{attribute}")
    assert sys.path == path
    assert model.source.location == f"{factories}:{attribute}"
    assert model.inputs[0].shape == ("batch", 4)
    _agree(model, sys.modules[factories].pair()[0], (torch.randn(7, 4),))


def test_example_inputs_of_the_caller_come_first(factories: str) -> None:
    model = load(f"{factories}:pair", example_inputs=(torch.ones(3, 9, 4),))
    assert model.inputs[0].shape == ("batch", 9, 4)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("edgeq_test_gone:build", "The module edgeq_test_gone of edgeq_test_gone:build was not found."),
        (
            "edgeq_test_gone.sub:build",
            "The module edgeq_test_gone of edgeq_test_gone.sub:build was not found.",
        ),
        (
            "edgeq_test_broken:build",
            "Importing edgeq_test_broken failed: No module named 'edgeq_test_nowhere'.",
        ),
        (
            "edgeq_test_syntax:build",
            "Importing edgeq_test_syntax failed: SyntaxError: invalid syntax (edgeq_test_syntax.py, line 1).",
        ),
        (
            "edgeq_test_factories:gone",
            "edgeq_test_factories has no attribute 'gone', which edgeq_test_factories:gone names.",
        ),
        ("edgeq_test_factories:number", "edgeq_test_factories:number is a int and cannot be called."),
        (
            "edgeq_test_factories:returns_number",
            "The factory edgeq_test_factories:returns_number returned a int, not a torch.nn.Module.",
        ),
        (
            "edgeq_test_factories:returns_pair_of_numbers",
            "The factory edgeq_test_factories:returns_pair_of_numbers returned a pair whose first part is a "
            "int, not a torch.nn.Module.",
        ),
        (
            "edgeq_test_factories:bare",
            "The factory edgeq_test_factories:bare returned a module without example inputs.",
        ),
        (
            "edgeq_test_factories:needs_argument",
            "The factory edgeq_test_factories:needs_argument failed: TypeError: needs_argument() missing 1 "
            "required positional argument: 'size'.",
        ),
        (
            "edgeq_test_factories:fails",
            "The factory edgeq_test_factories:fails failed: RuntimeError: no weights here.",
        ),
        ("edgeq_test_factories:leaves", "The factory edgeq_test_factories:leaves failed: SystemExit: 2."),
    ],
)
def test_factories_that_do_not_work(factories: str, source: str, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(source)
    assert caught.value.what == what


# ---- exported programs


def _export(path: Path, dynamic: bool, module: Any = None, example: Any = None) -> Any:
    module = (module or _module(Cnn)).eval()
    example = example or _images(2)
    shapes = ({0: torch.export.Dim("n")},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), path)
    return module


def test_exported_programs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = Recorder()
    module = _export(tmp_path / "m.pt2", dynamic=True)
    model = load(tmp_path / "m.pt2", progress=said)
    assert capfd.readouterr() == ("", "")
    assert said.notes == []
    assert model.inputs[0].shape == ("batch", 3, 8, 8)
    assert model.source.kind == "torch"
    _export(tmp_path / "again.pt2", dynamic=True)
    again = load(tmp_path / "again.pt2")
    (tmp_path / "m.pt2").unlink()
    assert _bytes(again) == _bytes(model)
    assert again.source.sha256 == model.source.sha256
    for batch in (1, 2, 5):
        _agree(model, module, _images(batch))


def test_exported_programs_of_a_fixed_batch_stay_fixed(tmp_path: Path) -> None:
    said = Recorder()
    module = _export(tmp_path / "m.pt2", dynamic=False)
    before = (torch.load, logging.root.manager.disable, sys.stdout, list(warnings.filters))
    model = load(tmp_path / "m.pt2", progress=said)
    assert (torch.load, logging.root.manager.disable, sys.stdout, list(warnings.filters)) == before
    assert said.notes == [f"{tmp_path / 'm.pt2'}: the batch is fixed at 2."]
    assert model.source.details["batch"] == 2
    _agree(model, module, _images(2))


def test_files_that_are_no_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with pytest.raises(ModelError, match="does not exist"):
        load(path)
    for content in (b"", b"text", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is not an exported program, or it is truncated"):
            load(path)
    torch.save(_module(Cnn).state_dict(), path)
    with pytest.raises(ModelError, match="holds no exported program"):
        load(path)
    _export(path, dynamic=True)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="truncated"):
            load(path)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def _rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, change(name, content))


def test_a_program_cannot_run_code_through_its_sample_inputs(tmp_path: Path) -> None:
    path, proof = tmp_path / "m.pt2", tmp_path / "ran"
    _export(path, dynamic=True)
    buffer = io.BytesIO()
    torch.save((Bomb(proof),), buffer)
    _rewrite(path, lambda name, old: buffer.getvalue() if "sample_inputs" in name else old)
    with pytest.raises(ModelError, match="cannot be loaded as an exported program"):
        load(path)
    assert not proof.exists()


def test_a_program_cannot_run_code_through_pickled_weights(tmp_path: Path) -> None:
    path, proof = tmp_path / "m.pt2", tmp_path / "ran"
    _export(path, dynamic=True)
    buffer = io.BytesIO()
    torch.save(Bomb(proof), buffer)

    def change(name: str, old: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            config = json.loads(old)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config).encode()
        return buffer.getvalue() if "data/weights/weight_" in name else old

    _rewrite(path, change)
    with pytest.raises(ModelError, match="cannot be loaded as an exported program"):
        load(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("expr_str", "__import__('os').getcwd()", "shape expression"),
        ("expr_str", "s0.func", "shape expression"),
        ("expr_str", "exec('name')", "shape expression"),
        ("expr_str", "Symbol('a b')", "shape expression"),
        ("expr_str", "Symbol('__a')", "shape expression"),
        ("path_name", "custom_obj_0", "pickled object"),
        ("path_name", "opaque_obj_0", "pickled object"),
    ],
)
def test_a_program_with_objects_or_code_in_its_graph_is_refused(
    tmp_path: Path, key: str, value: str, says: str
) -> None:
    path = tmp_path / "m.pt2"
    _export(path, dynamic=True)

    def change(name: str, old: bytes) -> bytes:
        return json.dumps({**json.loads(old), key: value}).encode() if name.endswith("model.json") else old

    _rewrite(path, change)
    with pytest.raises(ModelError, match=says):
        load(path)


def test_a_program_with_compiled_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    _export(path, dynamic=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/data/aotinductor/model/x.so", b"")
    with pytest.raises(ModelError, match="holds compiled code"):
        load(path)


@pytest.mark.parametrize("source", ["edgeq_test_factories:pair", "m.pt2"])
def test_without_torch_the_extra_is_named(
    factories: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError) as caught:
        load(source)
    assert str(caught.value.fix) == "Install it with: pip install 'edgeq[torch]'"
