from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeq.compiler.load import load
from edgeq.compiler.model import save
from edgeq.errors import EdgeqError, ModelError, UsageError
from tests.support.loading import Recorder, dense_model, external, run, weights, write_text


def _fails(path: Path | str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return caught.value


def _save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


# ---- opsets and domains


@pytest.mark.parametrize("opset", range(7, 29))
def test_every_supported_opset_loads_and_runs(tmp_path: Path, opset: int) -> None:
    w = weights()
    ir_version = 3 if opset < 9 else 10
    proto = dense_model(numpy_helper.from_array(w, "w"), opset, ir_version)
    if ir_version == 3:
        proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    model = load(_save(tmp_path / "m.onnx", proto))
    x = np.ones((5, 4), np.float32)
    np.testing.assert_allclose(run(model, {"x": x})[0], x @ w, rtol=1e-5)
    assert model.source.details["opset"] == opset
    assert [spec.shape for spec in model.inputs] == [("N", 4)]


def test_what_came_with_a_newer_opset_is_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("SwiGLU", ["x"], ["y"], name="gate")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    graph = helper.make_graph([node], "g", [x], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)], ir_version=10)
    error = _fails(_save(tmp_path / "m.onnx", proto))
    assert error.what == (
        "m.onnx uses ONNX opset 28, and its node 'gate' (SwiGLU) is an operator that came after opset 24."
    )


@pytest.mark.parametrize("opset", [1, 6, 29, 99])
def test_other_opsets_are_refused(tmp_path: Path, opset: int) -> None:
    error = _fails(_save(tmp_path / "m.onnx", dense_model(numpy_helper.from_array(weights(), "w"), opset)))
    assert error.what == f"m.onnx uses ONNX opset {opset}; supported are opsets 7 to 28."


def test_a_model_without_an_opset_is_refused(tmp_path: Path) -> None:
    proto = dense_model(numpy_helper.from_array(weights(), "w"))
    del proto.opset_import[:]
    assert _fails(_save(tmp_path / "m.onnx", proto)).what == "m.onnx does not declare an ONNX opset."


def test_the_long_name_of_the_default_domain_is_the_default_domain(tmp_path: Path) -> None:
    proto = dense_model(numpy_helper.from_array(weights(), "w"))
    proto.opset_import[0].domain = "ai.onnx"
    proto.graph.node[0].domain = "ai.onnx"
    proto.opset_import.append(helper.make_opsetid("", 17))
    model = load(_save(tmp_path / "m.onnx", proto))
    assert model.ir.opset_imports == {"": 17}
    assert run(model, {"x": np.ones((1, 4), np.float32)})[0].shape == (1, 3)


@pytest.mark.parametrize("domain", ["ai.onnx.ml", "com.acme", "com.microsoft"])
def test_a_domain_that_no_node_uses_does_not_matter(tmp_path: Path, domain: str) -> None:
    header = f'<ir_version: 8, opset_import: ["":17, "{domain}":2]>'
    path = write_text(tmp_path / "m.onnx", "g (float[N] x) => (float[N] y) { y = Relu(x) }", header)
    assert run(load(path), {"x": np.array([-1, 2], np.float32)})[0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("domain", "node"),
    [
        ("com.microsoft", "com.microsoft.Gelu(x)"),
        ("ai.onnx.ml", "ai.onnx.ml.Scaler<offset=[1.0], scale=[2.0]>(x)"),
    ],
)
def test_operators_of_onnx_runtime_load_and_run(tmp_path: Path, domain: str, node: str) -> None:
    header = f'<ir_version: 8, opset_import: ["":17, "{domain}":1]>'
    path = write_text(tmp_path / "m.onnx", f"g (float[N,3] x) => (float[N,3] y) {{ y = {node} }}", header)
    assert run(load(path), {"x": np.ones((2, 3), np.float32)})[0].shape == (2, 3)


def test_an_unknown_domain_is_refused_by_name(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["":17, "com.acme":1]>'
    path = write_text(tmp_path / "m.onnx", "g (float[N] x) => (float[N] y) { y = com.acme.Warp(x) }", header)
    assert (
        _fails(path).what == "m.onnx: node 'y' (Warp) is an operator Warp of the unknown domain 'com.acme'."
    )


def test_an_operator_that_onnx_runtime_does_not_have_is_refused(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["":17, "com.microsoft":1]>'
    path = write_text(
        tmp_path / "m.onnx", "g (float[N] x) => (float[N] y) { y = com.microsoft.Warp(x) }", header
    )
    assert "an operator Warp that ONNX Runtime does not have in the domain com.microsoft" in _fails(path).what


def test_an_unknown_domain_inside_a_branch_is_found(tmp_path: Path) -> None:
    graph = """g (float[N] x, bool c) => (float[N] y) {
        y = If (c) <then_branch = a () => (float[N] p) { p = com.acme.Warp(x) },
                    else_branch = b () => (float[N] q) { q = Relu(x) }>
    }"""
    path = write_text(tmp_path / "m.onnx", graph, '<ir_version: 8, opset_import: ["":17, "com.acme":1]>')
    assert "unknown domain 'com.acme'" in _fails(path).what


def test_local_functions_are_known(tmp_path: Path) -> None:
    text = """g (float[N] x) => (float[N] y) { y = local.Twice(x) }
    <domain: "local", opset_import: ["":17]> Twice (a) => (b) { b = Add(a, a) }"""
    path = write_text(tmp_path / "m.onnx", text, '<ir_version: 8, opset_import: ["":17, "local":1]>')
    assert run(load(path), {"x": np.array([3], np.float32)})[0].tolist() == [6]


# ---- external data


def _with_external(folder: Path, tensor: TensorProto, content: bytes | None = None) -> Path:
    if content is not None:
        (folder / "m.data").write_bytes(content)
    return _save(folder / "m.onnx", dense_model(tensor))


def test_external_data_gives_the_same_model_as_raw_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = weights()
    content = b"\0" * 8 + w.tobytes() + b"tail"
    path = _with_external(tmp_path, external("w", [4, 3], location="m.data", offset=8, length=48), content)
    monkeypatch.chdir(tmp_path)
    x = np.ones((2, 4), np.float32)
    for where in (path, Path("m.onnx"), "m.onnx"):
        model = load(where)
        np.testing.assert_allclose(run(model, {"x": x})[0], x @ w, rtol=1e-5)
    assert model.source.details["external_data"] == ["m.data"]
    assert model.source.sha256 == hashlib.sha256(path.read_bytes() + content).hexdigest()


def test_the_result_does_not_need_the_files_any_more(tmp_path: Path) -> None:
    w = weights()
    path = _with_external(tmp_path, external("w", [4, 3], location="m.data"), w.tobytes())
    model = load(path)
    path.unlink()
    (tmp_path / "m.data").unlink()
    assert save(model, tmp_path / "again.onnx") == [tmp_path / "again.onnx"]
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(run(load(tmp_path / "again.onnx"), {"x": x})[0], x @ w, rtol=1e-5)


def test_many_tensors_of_one_file_hold_one_descriptor(tmp_path: Path) -> None:
    count = 300
    (tmp_path / "m.data").write_bytes(np.arange(count, dtype=np.float32).tobytes())
    tensors = [external(f"w{i}", [1], location="m.data", offset=4 * i, length=4) for i in range(count)]
    nodes = [helper.make_node("Sum", [t.name for t in tensors], ["y"])]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    proto = helper.make_model(helper.make_graph(nodes, "g", [], [y], tensors), ir_version=8)
    proto.opset_import[0].version = 17
    path = _save(tmp_path / "m.onnx", proto)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    model = load(path)
    if before:
        assert len(list(descriptors.iterdir())) <= before + 2
    assert run(model, {})[0].item() == sum(range(count))


def test_external_data_inside_branches_and_constants(tmp_path: Path) -> None:
    (tmp_path / "m.data").write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    graph = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = a () => (float[2] p) { k = Constant<value = float[2] {0.0, 0.0}>()
                                                         p = Add(x, k) },
                    else_branch = b () => (float[2] q) { q = Add(x, w) }>
    }"""
    path = write_text(tmp_path / "m.onnx", graph.replace("w)", "x)"))
    proto = onnx.load(path)
    then, other = (attribute.g for attribute in proto.graph.node[0].attribute)
    then.node[0].attribute[0].t.CopyFrom(external("", [2], location="m.data", offset=0, length=8))
    other.initializer.append(external("w", [2], location="m.data", offset=8, length=8))
    other.node[0].input[1] = "w"
    model = load(_save(path, proto))
    (tmp_path / "m.data").unlink()
    x = np.zeros(2, np.float32)
    assert run(model, {"x": x, "c": np.array(True)})[0].tolist() == [1, 2]
    assert run(model, {"x": x, "c": np.array(False)})[0].tolist() == [3, 4]


@pytest.mark.parametrize(
    "dtype",
    [
        np.float16,
        np.float64,
        np.int8,
        np.int64,
        np.bool_,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.int4,
    ],
)
def test_external_data_of_every_width(tmp_path: Path, dtype: Any) -> None:
    array = np.array([0, 1, -2, 3, 1], np.float32).astype(dtype)
    inline = numpy_helper.from_array(array, "w")
    (tmp_path / "m.data").write_bytes(inline.raw_data)
    tensor = external("w", [5], inline.data_type, location="m.data")
    y = helper.make_tensor_value_info("y", inline.data_type, [5])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [tensor])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    loaded = load(_save(tmp_path / "m.onnx", proto)).ir.graph.initializers["w"].const_value
    assert loaded is not None
    assert loaded.tobytes() == inline.raw_data
    np.testing.assert_array_equal(loaded.numpy(), array)


@pytest.mark.parametrize(
    "location",
    ["../secret", "sub/../../secret", "/etc/hostname", "..\\secret", "C:\\secret", "link", "folder/secret"],
)
def test_external_data_outside_the_folder_is_refused_before_it_is_opened(
    tmp_path: Path, location: str, opened: list[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(weights().tobytes())
    (home / "link").symlink_to(secret)
    (home / "folder").symlink_to(tmp_path)
    path = _with_external(home, external("w", [4, 3], location=location))
    opened.clear()
    error = _fails(path)
    assert error.what == (
        f"m.onnx: tensor 'w' has its external data at {location!r}, outside the model's folder."
    )
    assert not [name for name in opened if "secret" in name or "hostname" in name or "link" in name]


def test_a_link_that_stays_in_the_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(weights().tobytes())
    (tmp_path / "link").symlink_to("real")
    assert load(_with_external(tmp_path, external("w", [4, 3], location="link")))


_EVENTS: list[list[str]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _EVENTS:
        _EVENTS[-1].append(str(args[0]))


@pytest.fixture
def opened() -> Any:
    """The names of all files opened during the test."""
    if not hasattr(sys, "_edgeq_audit"):
        sys.addaudithook(_audit)
        sys._edgeq_audit = True  # type: ignore[attr-defined]
    _EVENTS.append([])
    yield _EVENTS[-1]
    _EVENTS.clear()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"location": "gone.data"},
            "m.onnx: tensor 'w' has its external data in 'gone.data', which does not exist.",
        ),
        (
            {"location": "sub"},
            "m.onnx: tensor 'w' has its external data in 'sub', which is not a regular file.",
        ),
        (
            {"location": "m.data", "offset": 8},
            "m.onnx: tensor 'w' needs 48 bytes from offset 8 of its external data file 'm.data', "
            "which has only 48 bytes.",
        ),
        (
            {"location": "m.data", "length": 44},
            "m.onnx: tensor 'w' needs 48 bytes, but its external data entry says 44.",
        ),
        ({"location": "m.data", "offset": -4}, "m.onnx: tensor 'w' has a bad external data offset '-4'."),
        ({"offset": 0}, "m.onnx: tensor 'w' is external data without a location."),
    ],
)
def test_bad_external_data_names_tensor_and_file(
    tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    (tmp_path / "sub").mkdir()
    path = _with_external(tmp_path, external("w", [4, 3], **entries), weights().tobytes())
    assert _fails(path).what == message


def test_more_than_two_gigabytes_are_mapped_not_read(tmp_path: Path) -> None:
    rows = (1 << 31) // 4096 + 1
    tensor = external("w", [rows, 1024], location="m.data")
    i = helper.make_tensor_value_info("i", TensorProto.INT64, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1024])
    graph = helper.make_graph([helper.make_node("Gather", ["w", "i"], ["y"])], "g", [i], [y], [tensor])
    _save(
        tmp_path / "m.onnx",
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
    )
    with (tmp_path / "m.data").open("wb") as stream:  # sparse: takes a page of disk
        stream.truncate(rows * 4096)
        stream.seek(4096 * (rows - 1))
        stream.write(np.arange(1024, dtype=np.float32).tobytes())
    # In a fresh process: the peak of this one may be high already.
    code = """if True:
        import resource, sys
        import edgeq.compiler.load as loading
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        model = loading.load(sys.argv[1])
        weight = model.ir.graph.initializers["w"].const_value.numpy()
        print(peak() - before, weight.nbytes, weight[-1, 1000])"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True
    )
    grown, nbytes, last = result.stdout.split()
    assert float(last) == 1000
    assert int(nbytes) > 1 << 31
    assert int(grown) * (1 if sys.platform == "darwin" else 1024) < 64 << 20


# ---- files that are no models


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"just some text, not a model at all", "is not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"<!DOCTYPE html>", "an HTML or XML page"),
        (b"\x18\x00\x00\x00ORTM....", "ONNX Runtime's own .ort format"),
        (b"\x08\x08", "is not an ONNX model"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert says in _fails(path).what


def test_truncated_at_any_place_is_refused(tmp_path: Path) -> None:
    whole = dense_model(numpy_helper.from_array(weights(), "w")).SerializeToString()
    path = tmp_path / "m.onnx"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        _fails(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_never_raise_anything_else(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(dense_model(numpy_helper.from_array(weights(), "w")).SerializeToString())
    for place, value in flips:
        content[place % len(content)] = value
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with contextlib.suppress(EdgeqError):
        load(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert _fails(tmp_path / "gone.onnx").what == f"The model file {tmp_path / 'gone.onnx'} does not exist."
    assert "does not exist" in _fails("some/where/model").what
    (tmp_path / "x.onnx").mkdir()
    assert "has no config.json" in _fails(tmp_path / "x.onnx").what


@pytest.mark.parametrize(
    "source", ["", "resnet50", "weights.pt", "model.safetensors", "model.tflite", "a:b:c", "my-hub/"]
)
def test_what_is_no_source_lists_what_is(source: str) -> None:
    with pytest.raises((UsageError, ModelError)) as caught:
        load(source)
    assert "Accepted are: an ONNX file" in str(caught.value)


def test_objects_and_options_that_do_not_apply(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an object of type int"):
        load(3)  # type: ignore[arg-type]
    path = _save(tmp_path / "m.onnx", dense_model(numpy_helper.from_array(weights(), "w")))
    with pytest.raises(UsageError, match="task applies to a Hugging Face folder only"):
        load(path, task="text-classification")
    with pytest.raises(UsageError, match="example_inputs applies to a module or a factory only"):
        load(path, example_inputs=(1,))


# ---- every form of initializer and constant


def _typed(array: np.ndarray[Any, Any]) -> TensorProto:
    """The same tensor in its typed field instead of raw_data."""
    raw = numpy_helper.from_array(array, "w")
    if raw.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        entries = array.view(np.uint16).ravel().tolist()
    elif raw.data_type == TensorProto.INT4:
        entries = list(raw.raw_data)
    else:
        entries = array.astype(np.uint8 if array.dtype == np.bool_ else array.dtype).ravel().tolist()
    tensor = TensorProto(name="w", data_type=raw.data_type, dims=array.shape)
    getattr(tensor, helper.tensor_dtype_to_field(raw.data_type)).extend(entries)
    return tensor


@pytest.mark.parametrize("form", [numpy_helper.from_array, _typed], ids=["raw", "typed"])
@pytest.mark.parametrize(
    "dtype",
    [
        *(np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.int4, np.bool_),
        *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    ],
)
def test_typed_and_raw_initializers(tmp_path: Path, form: Any, dtype: Any) -> None:
    array = np.array([[0, 1, 2], [3, 1, 0]], np.float32).astype(dtype)
    tensor = form(array)
    tensor.name = "w"
    y = helper.make_tensor_value_info("y", tensor.data_type, [2, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [tensor])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    loaded = load(_save(tmp_path / "m.onnx", proto)).ir.graph.initializers["w"].const_value
    assert loaded is not None
    np.testing.assert_array_equal(loaded.numpy(), array)


def _sparse(dense: np.ndarray[Any, Any], coordinates: bool) -> onnx.SparseTensorProto:
    places = np.argwhere(dense) if coordinates else np.flatnonzero(dense)
    values = numpy_helper.from_array(dense[dense != 0], "w")
    indices = numpy_helper.from_array(places.astype(np.int64), "w_indices")
    return helper.make_sparse_tensor(values, indices, list(dense.shape))


@pytest.mark.parametrize("coordinates", [True, False])
@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_sparse_tensors_become_dense(tmp_path: Path, coordinates: bool, place: str) -> None:
    w = weights() * (weights(1) > 0)
    proto = dense_model(numpy_helper.from_array(w, "w"))
    del proto.graph.initializer[:]
    if place == "initializer":
        proto.graph.sparse_initializer.append(_sparse(w, coordinates))
    else:
        constant = helper.make_node("Constant", [], ["w"], sparse_value=_sparse(w, coordinates))
        proto.graph.node.insert(0, constant)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(run(load(_save(tmp_path / "m.onnx", proto)), {"x": x})[0], x @ w, rtol=1e-5)


def test_sparse_tensors_with_bad_indices_are_refused(tmp_path: Path) -> None:
    proto = dense_model(numpy_helper.from_array(weights(), "w"))
    del proto.graph.initializer[:]
    sparse = _sparse(weights(), False)
    sparse.dims[0] = 2
    proto.graph.sparse_initializer.append(sparse)
    what = _fails(_save(tmp_path / "m.onnx", proto)).what
    assert what == "m.onnx: sparse tensor 'w' has an index outside its shape [2, 3]."
    sparse.dims[0] = 1 << 40
    proto.graph.sparse_initializer[0].CopyFrom(sparse)
    assert "larger than 2 GiB" in _fails(_save(tmp_path / "m.onnx", proto)).what


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        ("value_float = 2.5", 2.5),
        ("value_floats = [2.5, 3.5]", [2.5, 3.5]),
        ("value = float {2.5}", 2.5),
        ("value = float[2] {2.5, 3.5}", [2.5, 3.5]),
    ],
)
def test_constant_nodes(tmp_path: Path, constant: str, expected: Any) -> None:
    graph = f"g (float[2] x) => (float[2] y) {{ k = Constant<{constant}>()  y = Add(x, k) }}"
    y = run(load(write_text(tmp_path / "m.onnx", graph)), {"x": np.zeros(2, np.float32)})[0]
    np.testing.assert_array_equal(y, np.broadcast_to(np.array(expected, np.float32), 2))


@pytest.mark.parametrize("constant", ["value_int = 3", "value_ints = [3]", "value = int64[1] {3}"])
def test_integer_constant_nodes(tmp_path: Path, constant: str) -> None:
    graph = f"g (int64[1] x) => (int64[1] y) {{ k = Constant<{constant}>()  y = Add(x, k) }}"
    assert run(load(write_text(tmp_path / "m.onnx", graph)), {"x": np.array([1])})[0].tolist() == [4]


def test_a_weight_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    for tensor in (
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], raw_data=b"\0" * 44),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 300], raw_data=b"\0" * 44),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], float_data=[1.0]),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4, 3], float_data=[1.0]),
        TensorProto(name="w", data_type=99, dims=[4, 3], raw_data=b"\0" * 48),
    ):
        assert "m.onnx: tensor 'w'" in _fails(_save(tmp_path / "m.onnx", dense_model(tensor))).what


def test_inputs_with_initializers_are_constants(tmp_path: Path) -> None:
    proto = dense_model(numpy_helper.from_array(weights(), "w"))
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    said = Recorder()
    model = load(_save(tmp_path / "new.onnx", proto), progress=said)
    assert [v.name for v in model.ir.graph.inputs] == ["x"]
    assert said.notes == ["1 inputs with default values are compiled as constants: w"]
    proto.ir_version = 3
    proto.opset_import[0].version = 8
    said = Recorder()
    model = load(_save(tmp_path / "old.onnx", proto), progress=said)
    assert [v.name for v in model.ir.graph.inputs] == ["x"]
    assert said.notes == []


# ---- validity


@pytest.mark.parametrize(
    ("graph", "what"),
    [
        (
            "g (float[N] x) => (float[N] y) { y = Add(x, z) }",
            "m.onnx is not a valid ONNX model: node 'y' (Add) reads 'z', which is neither an input, "
            "an initializer nor any node's output.",
        ),
        (
            "g (float[N] x) => (float[N] y) { y = Add(x, z)  z = Relu(y) }",
            "m.onnx is not a valid ONNX model: its nodes form a cycle through 'y' (Add).",
        ),
        (
            "g (float[N] x) => (float[N] y) { y = Relu(x)  y = Neg(x) }",
            "m.onnx is not a valid ONNX model: Graph must be in single static assignment (SSA) form, however "
            "'y' has been used as output names multiple times.",
        ),
        (
            "g (float[N] x) => (float[N] z) { y = Relu(x) }",
            "m.onnx is not a valid ONNX model: Graph output 'z' is not an output of any node in graph.",
        ),
        (
            "g (float[N] x) => (float[N] y) { y = Warp(x) }",
            "m.onnx is not a valid ONNX model: No Op registered for Warp with domain_version of 17 in "
            "Bad node spec for node. Name: OpType: Warp.",
        ),
        (
            "g (float[N] x) => (float[N] y) { y = Relu<speed = 3>(x) }",
            "m.onnx is not a valid ONNX model: Unrecognized attribute: speed for operator Relu in "
            "Bad node spec for node. Name: OpType: Relu.",
        ),
        (
            "g (float[N] x, int64[N] i) => (float[N] y) { y = Add(x, i) }",
            "m.onnx is not a valid ONNX model: (op_type:Add): B has inconsistent type tensor(int64).",
        ),
        (
            "g (float[N] x) => (int64[N] y) { y = Relu(x) }",
            "m.onnx is not a valid ONNX model: (op_type:Relu): Inferred elem type differs from existing elem "
            "type: (1) vs (7).",
        ),
        (
            """g (float[N] x, bool c) => (float[N] y) {
                y = If (c) <then_branch = a () => (float[N] p) { p = Relu(gone) },
                            else_branch = b () => (float[N] q) { q = Relu(x) }> }""",
            "m.onnx is not a valid ONNX model: node 'p' (Relu) reads 'gone', which is neither an input, "
            "an initializer nor any node's output.",
        ),
    ],
)
def test_invalid_graphs_say_what_is_wrong(tmp_path: Path, graph: str, what: str) -> None:
    assert _fails(write_text(tmp_path / "m.onnx", graph)).what == what


def test_nodes_in_another_order_are_sorted(tmp_path: Path) -> None:
    graph = """g (float[N] x, bool c) => (float[N] y) {
        y = If (c) <then_branch = a () => (float[N] p) { p = Relu(n)  n = Neg(m) },
                    else_branch = b () => (float[N] q) { q = Relu(m) }>
        m = Neg(x)
    }"""
    model = load(write_text(tmp_path / "m.onnx", graph))
    x = np.array([-1, 2], np.float32)
    assert run(model, {"x": x, "c": np.array(True)})[0].tolist() == [0, 2]
    assert [node.op_type for node in model.ir.graph] == ["Neg", "If"]


def test_the_progress_counts_bytes(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", dense_model(numpy_helper.from_array(weights(), "w")))
    said = Recorder()
    load(path, progress=said)
    assert said.steps == {"Reading m.onnx": path.stat().st_size}


def test_loading_twice_gives_identical_bytes(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.onnx", dense_model(numpy_helper.from_array(weights(), "w")))
    first, second = (ir.to_proto(load(path).ir).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.skipif("EDGEQ_DATA" not in os.environ, reason="needs EDGEQ_DATA")
def test_real_models_of_many_exporters_load() -> None:
    folder = Path(os.environ["EDGEQ_DATA"])
    files = sorted([*folder.glob("models/*.onnx"), *folder.glob("zoo/*.onnx")])
    assert len(files) >= 20
    for file in files:
        model = load(file)
        assert model.inputs
        assert model.source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
