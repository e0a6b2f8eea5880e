"""The package's inputs and outputs: sizes, images, class labels."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.coreml.frontend.signature import Port, Signature
from edgeq.targets.coreml.options import CoreMLOptions, ImageInput, read_class_labels
from edgeq.targets.coreml.toolkit import coremltools
from edgeq.targets.dimensions import Dimension

# Core ML's limit of EnumeratedShapes
_MOST_SHAPES = 128


def input_types(program: Any, signature: Signature, options: CoreMLOptions, ios: int) -> tuple[Any, ...]:
    """One ``TensorType`` or ``ImageType`` per input of the program, with the sizes it may have.

    Raises:
        TargetError: sizes or images that Core ML cannot have.
    """
    images = _images(signature, options)
    _refuse_several_enumerations(signature, options, ios)
    placeholders = program.functions["main"].inputs
    return tuple(
        _input_type(port, placeholders[port.package_name], options.dimensions, images.get(port.name))
        for port in signature.inputs
    )


def classifier_config(program: Any, signature: Signature, options: CoreMLOptions) -> Any | None:
    """The ``ClassifierConfig`` of the class labels, None without them.

    Raises:
        TargetError: the labels do not fit the output.
    """
    if options.class_labels is None:
        return None
    port = _probabilities(signature, options)
    labels = read_class_labels(options.class_labels)
    output = next(o for o in program.functions["main"].outputs if o.name == port.package_name)
    classes = output.shape[-1] if output.rank else None
    if classes != len(labels) or any(size != 1 for size in output.shape[:-1]):
        raise TargetError(
            f"Core ML: {len(labels)} class labels do not fit the output {port.name!r} of shape "
            f"{_text(output.shape)}.",
            fix="Give one label per value of the output, and fix its batch size to 1.",
        )
    _refuse_taken_name(signature, port, options.predicted_feature_name)
    return coremltools().ClassifierConfig(
        list(labels), options.predicted_feature_name, predicted_probabilities_output=port.package_name
    )


def _refuse_taken_name(signature: Signature, labelled: Port, feature: str) -> None:
    others = [port for port in (*signature.inputs, *signature.outputs) if port is not labelled]
    taken = next((p for p in others if p.package_name in (feature, f"{feature}_probs")), None)
    if taken is not None:
        raise TargetError(
            f"Core ML: the model already has {taken.name!r}, and the predicted class is called {feature!r}.",
            fix="Choose another predicted-feature-name.",
        )


def _probabilities(signature: Signature, options: CoreMLOptions) -> Port:
    names = ", ".join(port.name for port in signature.outputs)
    if options.probabilities_output is None:
        if len(signature.outputs) != 1:
            raise TargetError(
                f"Core ML: class labels were given and the model has several outputs ({names}).",
                fix="Say which one they belong to: probabilities-output=NAME.",
            )
        return signature.outputs[0]
    found = next((p for p in signature.outputs if p.name == options.probabilities_output), None)
    if found is None:
        raise TargetError(
            f"Core ML: the model has no output {options.probabilities_output!r}.", fix=f"It has: {names}."
        )
    return found


def _images(signature: Signature, options: CoreMLOptions) -> Mapping[str, ImageInput]:
    names = [port.name for port in signature.inputs]
    for image in options.image_input:
        if image.name not in names:
            raise TargetError(
                f"Core ML: the model has no input {image.name!r} that could be an image.",
                fix=f"It has: {', '.join(names)}.",
            )
    return {image.name: image for image in options.image_input}


def _input_type(
    port: Port, placeholder: Any, dimensions: Mapping[str, Dimension], image: ImageInput | None
) -> Any:
    ct = coremltools()
    shape = _shape(port, placeholder, dimensions)
    if image is None:
        return ct.TensorType(name=port.package_name, shape=shape)
    _check_image(port, placeholder, image)
    gray = image.color == "grayscale"
    bias = list(image.bias) or [0.0] * image.channels
    return ct.ImageType(
        name=port.package_name,
        shape=shape,
        scale=image.scale,
        bias=bias[0] if gray else bias,
        color_layout=ct.colorlayout.GRAYSCALE if gray else getattr(ct.colorlayout, image.color),
        channel_first=True,
    )


def _check_image(port: Port, placeholder: Any, image: ImageInput) -> None:
    sizes = placeholder.shape
    fits = len(sizes) == 4 and sizes[0] == 1 and sizes[1] == image.channels
    if not fits or not port.dtype.startswith("float"):
        raise TargetError(
            f"Core ML: the input {port.name!r} ({port.dtype}, shape {_text(sizes)}) cannot be a "
            f"{image.color} image, which is a float tensor of shape [1, {image.channels}, height, width].",
            fix="Fix its batch size to 1, and choose the color that fits its channels.",
        )


def _shape(port: Port, placeholder: Any, dimensions: Mapping[str, Dimension]) -> Any:
    """A plain shape, one with ``RangeDim``, or ``EnumeratedShapes``."""
    ct = coremltools()
    flexible = _flexible(port, dimensions)
    if not flexible:
        return ct.Shape([int(size) for size in placeholder.shape])
    initial = [d.initial if d else int(s) for d, s in _axes(placeholder, flexible)]
    if not any(dimension.choices for dimension in flexible.values()):
        sizes = [_range(d) if d else int(s) for d, s in _axes(placeholder, flexible)]
        return ct.Shape(sizes, default=initial)
    if not all(dimension.choices for dimension in flexible.values()):
        raise TargetError(
            f"Core ML: the input {port.name!r} has a dimension with a range and one with single sizes.",
            fix="Give both a range (1..128), or both single sizes (32,64).",
        )
    shapes = list(product(*(d.choices if d else (int(s),) for d, s in _axes(placeholder, flexible))))
    if len(shapes) > _MOST_SHAPES:
        raise TargetError(
            f"Core ML: the input {port.name!r} would have {len(shapes)} shapes; {_MOST_SHAPES} are allowed.",
            fix="Give fewer sizes, or a range (1..128).",
        )
    # the first shape listed is the default
    shapes.sort(key=lambda shape: (list(shape) != initial, shape))
    return ct.EnumeratedShapes([list(shape) for shape in shapes], default=initial)


def _axes(placeholder: Any, flexible: Mapping[int, Dimension]) -> list[tuple[Dimension | None, Any]]:
    return [(flexible.get(axis), size) for axis, size in enumerate(placeholder.shape)]


def _range(dimension: Dimension) -> Any:
    return coremltools().RangeDim(dimension.smallest, dimension.largest, default=dimension.initial)


def _flexible(port: Port, dimensions: Mapping[str, Dimension]) -> dict[int, Dimension]:
    """Axis → sizes, for the axes that have more than one."""
    found = {}
    for axis, size in enumerate(port.shape):
        if isinstance(size, int):
            continue
        dimension = dimensions.get(size or f"{port.name}:{axis}")
        if dimension is not None and dimension.fixed is None:
            found[axis] = dimension
    return found


def _refuse_several_enumerations(signature: Signature, options: CoreMLOptions, ios: int) -> None:
    """Before iOS 18 a package takes single sizes for one input only."""
    names = [
        port.name
        for port in signature.inputs
        if any(d.choices for d in _flexible(port, options.dimensions).values())
    ]
    if ios < 18 and len(names) > 1:
        raise TargetError(
            f"Core ML: the inputs {names[0]!r} and {names[1]!r} both list single sizes, which needs iOS18.",
            fix="Give a range (1..128), or the deployment target iOS18.",
        )


def _text(sizes: Any) -> str:
    return "[" + ", ".join(str(int(s)) if isinstance(s, int) else "?" for s in sizes) + "]"
