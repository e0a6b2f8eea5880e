"""Reading packages: blobs, types, interface, and what is said about malformed ones."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError, ModelError
from edgeq.targets.coreml.interpreter.blobs import SUB_BYTE, BlobFile, unpack_bits
from edgeq.targets.coreml.interpreter.engine import Interpreter
from edgeq.targets.coreml.interpreter.program import read_package
from edgeq.targets.coreml.interpreter.structure import MilProgram
from edgeq.targets.coreml.toolkit import builder, coremltools, mil_types
from tests.support.mil_cases import in_function, write

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
BOUNDS = {"int4": (-8, 8), **{f"uint{bits}": (0, 2**bits) for bits in (1, 2, 3, 4, 6)}}
WRITERS = {"float32": "float", "float16": "fp16"}


def writer(path: Path) -> Any:
    """coremltools' own writer of weights files: C++, nothing of ours."""
    coremltools()
    from coremltools.libmilstoragepython import _BlobStorageWriter

    return _BlobStorageWriter(str(path))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_blobs_are_read_as_coremltools_writes_them(
    tmp_path: Path, data: st.DataObject, sizes: list[int]
) -> None:
    path = tmp_path / "weight.bin"
    path.unlink(missing_ok=True)
    out, written = writer(path), []
    kinds = ["float32", "float16", "int8", "uint8", "int16", "uint16", "int32", *BOUNDS]
    for size in sizes:
        dtype = data.draw(st.sampled_from(kinds))
        values = random_values(dtype, size, data.draw(st.integers(0, 99)))
        stored = values.view(np.uint16) if dtype == "float16" else as_mil(values, dtype)
        written.append((getattr(out, f"write_{WRITERS.get(dtype, dtype)}_data")(stored), dtype, values))
    del out
    for offset, dtype, values in written:
        found = BlobFile(path).read(offset, dtype, values.size)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def random_values(dtype: str, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(size=size).astype(dtype)
    low, high = BOUNDS.get(dtype) or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return rng.integers(low, high, size).astype(
        np.int8 if dtype == "int4" else "uint8" if dtype in BOUNDS else dtype
    )


def as_mil(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype not in BOUNDS:
        return values
    types = mil_types()
    return values.astype(types.nptype_from_builtin(types.string_to_builtin(dtype)))


@pytest.mark.parametrize("dtype", sorted(BOUNDS))
def test_bits_are_little_endian_and_keep_their_sign(dtype: str) -> None:
    low, high = BOUNDS[dtype]
    values, bits = np.arange(low, high), SUB_BYTE[dtype]
    whole = sum((int(value) & (2**bits - 1)) << (bits * i) for i, value in enumerate(values))
    packed = np.frombuffer(whole.to_bytes(-(-len(values) * bits // 8), "little"), np.uint8)
    np.testing.assert_array_equal(unpack_bits(packed, dtype, len(values)), values)


def example(path: Path, *, opset: int = 18) -> MilProgram:
    """Blobs, immediate values, a list of values, an op with two outputs."""
    mb, types = builder(), mil_types()
    int4 = types.nptype_from_builtin(types.string_to_builtin("int4"))

    def make(function: Any) -> list[Any]:
        x = function.inputs["x"]
        weight = mb.constexpr_blockwise_shift_scale(
            data=np.tile(np.arange(-8, 8), 16).reshape(16, 16).astype(int4),
            scale=np.full((16, 1), 0.5, np.float32),
            name="weight",
        )
        y = mb.linear(x=x, weight=weight, name="y")
        first, second = mb.split(x=y, num_splits=2, axis=-1, name="halves")
        joined = mb.concat(values=[first, mb.relu(x=second, name="r")], axis=-1, name="joined")
        return [mb.gelu(x=joined, mode="TANH_APPROXIMATION", name="out")]

    write(in_function(make, {"x": mb.placeholder((2, 16))}, opset), path, opset=opset)
    return read_package(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "example.mlpackage"
    example(path)
    return path


@pytest.fixture
def package(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy.mlpackage"))


def test_the_program_is_plain_data(package: Path) -> None:
    program = read_package(package)
    operations = {operation.name: operation for operation in program.main.block.walk()}
    assert (program.entry, program.main.opset) == ("main", 18)
    assert [f.name for f in program.inputs] == ["x"]
    assert (program.inputs[0].shape, program.inputs[0].dtype) == ((2, 16), "float32")
    assert program.main.block.outputs == ("out",)
    assert operations["joined"].inputs["values"] == (operations["halves"].outputs[0].name, "r")
    assert [r.type.shape for r in operations["halves"].outputs] == [(2, 8), (2, 8)]
    data = operations["weight"].inputs["data"][0]
    assert not isinstance(data, str)
    assert (data.type.dtype, data.type.shape, data.blob) == ("int4", (16, 16), True)
    np.testing.assert_array_equal(data.decode(), np.tile(np.arange(-8, 8), 16).reshape(16, 16))
    assert program.metadata["com.github.apple.coremltools.source"] == "milinternal"


def test_constexpr_arguments_of_ios16_are_inputs_too(tmp_path: Path) -> None:
    mb = builder()

    def make(function: Any) -> list[Any]:
        weight = mb.constexpr_affine_dequantize(
            quantized_data=np.arange(200, dtype=np.uint8).reshape(2, 100),
            zero_point=np.uint8(100),
            scale=np.float32(0.5),
            axis=np.int32(0),
            name="weight",
        )
        return [mb.add(x=function.inputs["x"], y=weight, name="out")]

    path = tmp_path / "m.mlpackage"
    write(in_function(make, {"x": mb.placeholder((2, 100))}, 16), path, opset=16)
    (weight,) = [o for o in read_package(path).main.block.walk() if o.type.startswith("constexpr")]
    assert set(weight.inputs) == {"quantized_data", "zero_point", "scale", "axis"}


def test_flexible_shapes_and_images_come_from_the_description(tmp_path: Path) -> None:
    ct, mb = coremltools(), builder()
    program = in_function(
        lambda f: [mb.relu(x=f.inputs["image"], name="a"), mb.relu(x=f.inputs["x"], name="b")],
        {"image": mb.placeholder((1, 3, 8, 10)), "x": mb.placeholder((symbol(), 4))},
        17,
    )
    ports = [
        ct.ImageType(name="image", shape=(1, 3, 8, 10), color_layout=ct.colorlayout.BGR),
        ct.TensorType(name="x", shape=(ct.RangeDim(1, 7, default=2), 4)),
    ]
    write(program, tmp_path / "m.mlpackage", opset=17, inputs=ports)
    image, x = read_package(tmp_path / "m.mlpackage").inputs
    assert (image.kind, image.color_layout, image.shape) == ("image", "BGR", (1, 3, 8, 10))
    assert (x.kind, x.shape, x.ranges) == ("array", (2, 4), ((1, 7), (4, 4)))


def symbol() -> Any:
    from coremltools.converters.mil.mil import get_new_symbol

    return get_new_symbol()


# --- malformed packages -----------------------------------------------------------------------------------


def change_model(package: Path, change: Callable[[Any], None]) -> None:
    """Parse, change and write the model file."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())


def block(model: Any) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML8"]


def drop(model: Any, op_type: str) -> None:
    operations = block(model).operations
    del operations[next(i for i, operation in enumerate(operations) if operation.type == op_type)]


def patch(package: Path, offset: int, content: bytes) -> None:
    whole = bytearray((package / WEIGHTS).read_bytes())
    whole[offset : offset + len(content)] = content
    (package / WEIGHTS).write_bytes(whole)


def cut(package: Path, size: int) -> None:
    (package / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:size])


def repeat_operation(model: Any) -> None:
    last = block(model).operations[-1]
    block(model).operations.add().CopyFrom(last)


def escape(package: Path) -> None:
    content = json.loads((package / "Manifest.json").read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = "../../../etc/passwd"
    (package / "Manifest.json").write_text(json.dumps(content))


def blob_outside(model: Any) -> None:
    for operation in block(model).operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.value.WhichOneof("value") == "blobFileValue":
                    binding.value.blobFileValue.fileName = "@model_path/../../../secret"


def blob_without_a_name(model: Any) -> None:
    for operation in block(model).operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.value.WhichOneof("value") == "blobFileValue":
                    binding.value.blobFileValue.fileName = "@model_path/weights/\0"


MALFORMED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no package": (shutil.rmtree, "no Manifest.json that can be read"),
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), "no Manifest.json that can be read"),
    "manifest of another kind": (lambda p: (p / "Manifest.json").write_text("[]"), "does not name the model"),
    "manifest is no JSON": (lambda p: (p / "Manifest.json").write_text("{"), "does not name the model"),
    "model outside": (escape, "outside the package"),
    "no model": (lambda p: (p / MODEL).unlink(), "cannot be read"),
    "model is no protobuf": (lambda p: (p / MODEL).write_bytes(b"\xff" * 99), "not a protobuf"),
    "model is empty": (lambda p: (p / MODEL).write_bytes(b""), "expected an ML program"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), "cannot be read"),
    "no header": (lambda p: cut(p, 10), "truncated"),
    "header only": (lambda p: cut(p, 64), "behind the end of the file"),
    "data cut off": (lambda p: cut(p, (p / WEIGHTS).stat().st_size - 20), "is truncated"),
    "storage version": (lambda p: patch(p, 4, b"\x01"), "storage version 1"),
    "sentinel": (lambda p: patch(p, 64, b"\xaa"), "the sentinel"),
    "blob of another type": (lambda p: patch(p, 68, struct.pack("<I", 3)), "the program says int4"),
    "blob of another size": (lambda p: patch(p, 72, struct.pack("<Q", 64)), "need another size"),
    "blob outside": (lambda p: change_model(p, blob_outside), "outside the package"),
    "blob with a null": (lambda p: change_model(p, blob_without_a_name), "which is no file"),
    "operation dropped": (lambda p: change_model(p, lambda m: drop(m, "linear")), "which nothing computes"),
    "output dropped": (lambda p: change_model(p, lambda m: drop(m, "gelu")), "which nothing computes"),
    "computed twice": (lambda p: change_model(p, repeat_operation), "computed twice"),
    "no function": (lambda p: change_model(p, lambda m: m.mlProgram.functions.clear()), "no function 'main'"),
    "no input": (
        lambda p: change_model(p, lambda m: m.description.ClearField("input")),
        "describes the inputs",
    ),
    "opset": (
        lambda p: change_model(p, lambda m: setattr(m.mlProgram.functions["main"], "opset", "CoreML99")),
        "the opset 'CoreML99'",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_packages_are_refused_in_one_sentence(name: str, package: Path) -> None:
    break_it, message = MALFORMED[name]
    break_it(package)
    with pytest.raises(ModelError) as error:
        read_package(package)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_packages_are_refused_or_run(written: Path, package: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([MODEL, WEIGHTS]))
    content = bytearray((written / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (package / name).write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    with contextlib.suppress(EdgeqError):
        found = Interpreter(read_package(package)).run({"x": np.ones((2, 16), np.float32)})
        assert [value.dtype for value in found.values()] == [np.dtype(np.float32)]
    shutil.copy(written / name, package / name)
