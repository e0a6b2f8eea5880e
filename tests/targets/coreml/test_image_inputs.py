"""Packages that take images: verified on pixels, also where no data was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.errors import DataError
from edgeq.targets.coreml.verification.foreign import verify_package
from edgeq.targets.reference import load_samples
from edgeq.verify import verify
from tests.support.coreml_artefacts import PACKAGE, compile_net, conv_net, images

OPTIONS = {"image_input": "x: color=BGR scale=1/127.5 bias=-1,-0.9,-1.1"}


def test_without_data_the_samples_are_pixels(tmp_path: Path) -> None:
    model = conv_net(tmp_path / "net.onnx")
    folder = compile_net(model, "fp16", tmp_path / "net", target_options=OPTIONS)
    bias = np.array([-1, -0.9, -1.1]).reshape(3, 1, 1)
    for sample in load_samples(folder):
        pixels = (sample["x"] - bias) * 127.5
        assert np.abs(pixels - np.rint(pixels)).max() < 1e-2
        assert pixels.min() > -0.5
        assert pixels.max() < 255.5
    assert verify(folder).passed
    _, checks = verify_package(folder / PACKAGE, model)
    assert all(check.passed for check in checks)


def test_data_that_no_pixels_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is an image, and the data is not what scale"):
        compile_net(
            conv_net(tmp_path / "net.onnx"),
            "int8-static",
            tmp_path / "net",
            calibration=images(),
            target_options=OPTIONS,
        )
