"""TensorRT's Python bindings without TensorRT: enough to read names and signatures from, not to call any.

The bindings are on PyPI, their libraries are not. All that the bindings take from the libraries is a handful
of C functions, which small libraries of those names stand in for here.
"""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

_FUNCTIONS = [
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


def unpack(wheel: Path, folder: Path) -> None:
    """Make a wheel ``tensorrt_cu…_bindings`` importable as ``tensorrt`` from ``folder``, libraries too."""
    major = re.search(r"bindings-(\d+)\.", wheel.name)
    assert major
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "tensorrt").symlink_to("tensorrt_bindings")
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major[1]}"
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)
