"""Arrays into and out of ``MLModel.predict``: images become pictures, class probabilities become arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import MissingExtraError, TargetError
from edgeq.targets.coreml.frontend.signature import Signature
from edgeq.targets.coreml.ports import from_package, to_package


def features(spec: Any, signature: Signature, inputs: Arrays) -> dict[str, Any]:
    """What ``MLModel.predict`` takes for ``inputs``, arrays of the ONNX model. ``spec`` is the package's.

    Raises:
        DataError: an input is missing, unknown, or has the wrong dtype, shape or range.
    """
    given = to_package(signature, inputs)
    layouts = _image_layouts(spec)
    return {
        name: _picture(array, layouts[name]) if name in layouts else array for name, array in given.items()
    }


def arrays(spec: Any, signature: Signature, outputs: Mapping[str, Any]) -> dict[str, Array]:
    """What ``MLModel.predict`` returned as arrays of the ONNX model."""
    return from_package(signature, _without_dictionaries(spec, signature, outputs))


def _image_layouts(spec: Any) -> dict[str, str]:
    """Name of an image input → its color layout."""
    images = [f for f in spec.description.input if f.type.WhichOneof("Type") == "imageType"]
    return {f.name: f.type.imageType.ColorSpace.Name(f.type.imageType.colorSpace) for f in images}


def _picture(array: Array, layout: str) -> Any:
    """A Pillow image of the pixels [1, channels, height, width] in the package's channel order."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("An image input", "image") from error
    pixels = array[0].astype(np.uint8)
    if layout == "GRAYSCALE":
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    if layout not in ("RGB", "BGR"):
        raise TargetError(f"Core ML: an image input in {layout} cannot be run by edgeq.")
    # Core ML takes RGB pictures and turns the channels around for BGR inputs
    ordered = pixels if layout == "RGB" else pixels[::-1]
    return Image.fromarray(np.ascontiguousarray(ordered.transpose(1, 2, 0)))


def _without_dictionaries(spec: Any, signature: Signature, outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Probabilities by class label as the array that the ONNX model has."""
    result: dict[str, Array] = {}
    for port in signature.outputs:
        if port.package_name in outputs:
            result[port.package_name] = np.asarray(outputs[port.package_name])
        else:
            by_label = _probabilities(spec, port.name, outputs)
            values = np.array([by_label[label] for label in class_labels(spec)], np.float64)
            result[port.package_name] = values.reshape([1] * (len(port.shape) - 1) + [-1])
    return result


def _probabilities(spec: Any, name: str, outputs: Mapping[str, Any]) -> Mapping[Any, float]:
    found = outputs.get(spec.description.predictedProbabilitiesName)
    if not isinstance(found, Mapping):
        raise TargetError(f"Core ML returned no output for {name!r}; it returned: {', '.join(outputs)}.")
    return found


def class_labels(spec: Any) -> list[str]:
    """The class labels in the order of the probabilities (MIL ``classify``, parameter ``classes``)."""
    for function in spec.mlProgram.functions.values():
        for operation in function.block_specializations[function.opset].operations:
            if operation.type == "classify":
                labels = operation.inputs["classes"].arguments[0].value.immediateValue.list.values
                return [label.immediateValue.tensor.strings.values[0] for label in labels]
    raise TargetError("Core ML: the package has no class labels.")
