"""One image: bytes → pixels in the declared size, channels and layout."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeq.calibration.preprocess import (
    Layout,
    Preprocessing,
    Size,
    input_channels,
    input_layout,
    input_size,
    normalize,
)
from edgeq.calibration.types import Array, TensorSpec
from edgeq.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

# Of Pillow's modes, those with more than 8 bits per channel, which a conversion to RGB would clip silently.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class ImageDecoder:
    """Turns encoded images into samples of one model input, as ``preprocessing`` declares.

    Images are used as stored: an EXIF orientation is not applied (like torchvision and timm).

    Raises:
        MissingExtraError: Pillow is not installed.
        DataError: layout or size cannot be told from the model's input and were not declared.
    """

    def __init__(self, spec: TensorSpec, preprocessing: Preprocessing) -> None:
        require_pillow()
        self._spec = spec
        self._preprocessing = preprocessing
        self._layout: Layout = preprocessing.layout or input_layout(spec)
        self._mode = self._channel_mode()
        uses_model_size = preprocessing.resize in ("cover", "model") or preprocessing.crop == "model"
        self._model_size = input_size(spec, self._layout) if uses_model_size else None

    def decode(self, encoded: bytes | Path, name: str) -> Array:
        """One sample [1, ...] in the input's layout, before conversion to the input's dtype.

        Raises:
            DataError: it is no image, is damaged, or has more than 8 bits per channel.
        """
        pixels = self._pixels(encoded, name)
        if self._preprocessing.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        batch = pixels[None] if self._layout == "nhwc" else pixels.transpose(2, 0, 1)[None]
        axis = 1 if self._layout == "nchw" else -1
        return normalize(batch, self._preprocessing, axis, self._spec)

    def _channel_mode(self) -> str:
        channels = self._preprocessing.channels
        count = input_channels(self._spec, self._layout)
        if channels is None:
            return "L" if count == 1 else "RGB"
        wanted = 1 if channels == "gray" else 3
        if count is not None and count != wanted:
            raise DataError(
                f"Preprocessing declares {channels} images, but input {self._spec.name!r} "
                f"has {count} channels.",
                fix="Correct channels in the preprocessing.",
            )
        return "L" if wanted == 1 else "RGB"

    def _pixels(self, encoded: bytes | Path, name: str) -> Array:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
                _refuse_deep(image, name)
                sized = self._sized(image.convert(self._mode), name)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise DataError(
                f"{name} does not decode as an image: {error}.", fix="Remove or replace the file."
            ) from error
        except Image.DecompressionBombError as error:
            raise DataError(f"{name} is too large an image: {error}.", fix="Scale it down.") from error
        pixels = np.asarray(sized)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def _sized(self, image: Image, name: str) -> Image:
        image = self._resized(image)
        crop = self._preprocessing.crop
        if crop is None:
            return image
        height, width = self._model_size if crop == "model" and self._model_size else _square(crop)
        if height > image.height or width > image.width:
            raise DataError(
                f"{name}: {image.height}x{image.width} is too small for a crop of {height}x{width}.",
                fix="Declare a larger resize in the preprocessing.",
            )
        # Rounded half to even, as torchvision's center_crop.
        top = round((image.height - height) / 2.0)
        left = round((image.width - width) / 2.0)
        return image.crop((left, top, left + width, top + height))

    def _resized(self, image: Image) -> Image:
        from PIL import Image as Pillow

        size = self._target_size(image.height, image.width)
        if size is None or size == (image.height, image.width):
            return image
        filters = {
            "nearest": Pillow.Resampling.NEAREST,
            "bilinear": Pillow.Resampling.BILINEAR,
            "bicubic": Pillow.Resampling.BICUBIC,
            "lanczos": Pillow.Resampling.LANCZOS,
        }
        return image.resize((size[1], size[0]), filters[self._preprocessing.interpolation])

    def _target_size(self, height: int, width: int) -> Size | None:
        resize = self._preprocessing.resize
        if resize is None or isinstance(resize, tuple):
            return resize
        if isinstance(resize, int):
            return _shorter_side(height, width, resize)
        wanted = self._model_size or (height, width)
        return wanted if resize == "model" else _cover(height, width, wanted)


def _square(size: int | Size | str) -> Size:
    if isinstance(size, tuple):
        return size
    return int(size), int(size)


def _shorter_side(height: int, width: int, size: int) -> Size:
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _cover(height: int, width: int, wanted: Size) -> Size:
    factor = max(wanted[0] / height, wanted[1] / width)
    return max(wanted[0], round(height * factor)), max(wanted[1], round(width * factor))


def _refuse_deep(image: Image, name: str) -> None:
    if image.mode in _DEEP_MODES:
        raise DataError(
            f"{name} has more than 8 bits per channel (mode {image.mode}), which converting would clip.",
            fix="Convert it to 8 bits, or give arrays (.npz).",
        )


def require_pillow() -> None:
    """Raise MissingExtraError unless Pillow can be imported."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Reading images", "image") from error
