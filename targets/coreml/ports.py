"""Arrays of the ONNX model ↔ arrays of the package: names, integer dtypes and rank 0 differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import DataError, InternalError
from edgeq.targets.coreml.frontend.signature import ImagePort, Port, Signature
from edgeq.targets.inputs import check_inputs

# Preprocessing computes in float32: pixels come back with this error at most.
_PIXEL_TOLERANCE = 0.01


class PortRunner:
    """What every runner of a package is besides running: the ONNX model's ports, and a context manager."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    @property
    def inputs(self) -> list[TensorSpec]:
        return tensor_specs(self.signature.inputs)

    @property
    def outputs(self) -> list[TensorSpec]:
        return tensor_specs(self.signature.outputs)

    def close(self) -> None:
        """Free the model; running is an error from then on."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tensor_specs(ports: Iterable[Port]) -> list[TensorSpec]:
    """The ports as the ONNX model declares them."""
    return [TensorSpec(port.name, np.dtype(port.dtype), port.shape) for port in ports]


def package_dtype(port: Port) -> np.dtype[Any]:
    """The dtype of the package's port: floats keep theirs, integers and booleans are int32."""
    dtype = np.dtype(port.dtype)
    return dtype if dtype.kind == "f" else np.dtype(np.int32)


def to_package(signature: Signature, inputs: Arrays) -> dict[str, Array]:
    """ONNX name → array as package name → array.

    Raises:
        DataError: an unknown or missing name, another dtype or shape, or an integer that int32 cannot hold.
    """
    check_inputs(tensor_specs(signature.inputs), inputs)
    return {port.package_name: _encode(port, np.asarray(inputs[port.name])) for port in signature.inputs}


def from_package(signature: Signature, outputs: Arrays) -> dict[str, Array]:
    """Package name → array as ONNX name → array, in the ONNX model's dtypes and ranks."""
    return {port.name: _decode(port, outputs) for port in signature.outputs}


def with_random_images(inputs: Arrays, images: Mapping[str, ImagePort], seed: int) -> dict[str, Array]:
    """``inputs`` with what random pixels become, by the package's own scale and bias, where images go in."""
    rng = np.random.default_rng(seed)
    found = dict(inputs)
    for name, image in images.items():
        array = np.asarray(found[name])
        bias = np.asarray(image.bias or (0.0,), np.float64).reshape(-1, 1, 1)
        found[name] = (rng.integers(0, 256, array.shape) * image.scale + bias).astype(array.dtype)
    return found


def _encode(port: Port, array: Array) -> Array:
    if array.dtype == np.int64:
        _check_range(port, array)
    if port.image is not None:
        array = _pixels(port, port.image, array)
    # package arrays are read as C order by Core ML, and rank 0 does not exist there
    return np.ascontiguousarray(array, package_dtype(port)).reshape(array.shape or (1,))


def _pixels(port: Port, image: ImagePort, array: Array) -> Array:
    """The image that the package's own scale and bias turn into ``array``, float [1, channels, H, W]."""
    bias = np.asarray(image.bias or (0.0,), np.float64).reshape(-1, 1, 1)
    pixels = (array.astype(np.float64) - bias) / image.scale
    rounded = np.clip(np.rint(pixels), 0, 255)
    if np.abs(pixels - rounded).max(initial=0) > _PIXEL_TOLERANCE:
        raise DataError(
            f"The input {port.name!r} is an image, and the data is not what scale {image.scale:g} and bias "
            f"{list(image.bias)} make of pixels between 0 and 255.",
            fix="Use the preprocessing of the data in --image-input.",
        )
    return rounded.astype(array.dtype)


def _check_range(port: Port, array: Array) -> None:
    bounds = np.iinfo(np.int32)
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        raise DataError(
            f"The input {port.name!r} holds integers outside int32, and Core ML has no int64.",
            fix="Keep its values between -2147483648 and 2147483647.",
        )


def _decode(port: Port, outputs: Arrays) -> Array:
    if port.package_name not in outputs:
        raise InternalError(f"The package returned no output {port.package_name!r} (ONNX {port.name!r}).")
    found = np.asarray(outputs[port.package_name])
    if not port.shape:
        found = found.reshape(())
    return found.astype(np.dtype(port.dtype), copy=False)
