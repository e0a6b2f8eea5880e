"""Decide what a source is and hand it to its loader."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeq.compiler.load.onnx_file import load_onnx
from edgeq.compiler.model import Model
from edgeq.errors import ModelError, UsageError
from edgeq.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import torch

FORMS = (
    "Accepted are: an ONNX file (model.onnx), a PyTorch factory (package.module:factory), "
    "an exported program of torch.export.save (model.pt2), a local Hugging Face folder (with config.json), "
    "or, from Python, a torch.nn.Module with example_inputs."
)

Kind = Literal["onnx", "pt2", "hf", "factory"]

# Files that hold weights without the code that uses them, or another runtime's format.
_OTHER_FORMATS = frozenset(
    {
        ".pt",
        ".pth",
        ".bin",
        ".safetensors",
        ".ckpt",
        ".h5",
        ".keras",
        ".pb",
        ".tflite",
        ".ort",
        ".gguf",
        ".mlmodel",
    }
)
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Location:
    """A source that was given as text: what it is, and the text as the user wrote it."""

    kind: Kind
    text: str

    @property
    def path(self) -> Path:
        return Path(self.text)


def load(
    source: str | Path | torch.nn.Module,
    *,
    example_inputs: Any = None,
    task: str | None = None,
    progress: Progress | None = None,
) -> Model:
    """Load ``source`` as an ONNX graph.

    ``source`` is an ONNX file of opset 7 to 24 (external data is memory-mapped, never read whole), a
    ``torch.nn.Module``, the text ``package.module:factory``, a ``.pt2`` file of ``torch.export.save``, or a
    local Hugging Face folder. ``example_inputs`` (a tuple of positional or a dict of keyword arguments of
    ``forward``) belongs to a module or a factory; ``task`` belongs to a Hugging Face folder.

    Raises:
        UsageError: ``source`` is none of these, or an argument does not apply to it.
        ModelError: the source cannot be read, is not valid, or cannot be exported.
        MissingExtraError: PyTorch or optimum is needed and not installed.
    """
    progress = progress or SilentProgress()
    if not isinstance(source, str | Path):
        return _load_object(source, example_inputs, task, progress)
    location = recognise(source)
    _check_options(location, example_inputs, task)
    if location.kind == "onnx":
        return load_onnx(location.path, progress)
    if location.kind == "hf":
        from edgeq.compiler.load.hugging_face import load_folder

        return load_folder(location.path, task, progress)
    if location.kind == "pt2":
        from edgeq.compiler.load.exported_program import load_exported_program

        return load_exported_program(location.path, progress)
    from edgeq.compiler.load.torch_module import load_factory

    return load_factory(location.text, example_inputs, progress)


def open_checkpoint(source: Any, task: str | None, progress: Progress) -> Model:
    """A language model as its files, for targets that store checkpoints.

    Raises:
        UsageError: ``source`` is no path, or a task is named.
        ModelError: it is no folder of a causal language model with safetensors files.
    """
    from edgeq.compiler.load.checkpoint import load_checkpoint

    if task is not None:
        raise UsageError("task does not apply to a target that stores checkpoints.", fix="Leave it out.")
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        raise UsageError(
            f"A target for language models takes a local Hugging Face folder, not {str(source)[:80]!r}.",
            fix="Give the folder with config.json and *.safetensors.",
        )
    return load_checkpoint(Path(source), progress)


def _load_object(source: Any, example_inputs: Any, task: str | None, progress: Progress) -> Model:
    # A module object can only exist when torch is imported already, so no import is needed to ask.
    if not any(c.__module__.startswith("torch.nn") and c.__name__ == "Module" for c in type(source).__mro__):
        raise UsageError(
            f"A model cannot be loaded from an object of type {type(source).__name__}.", fix=FORMS
        )
    if task is not None:
        raise UsageError("task applies to a Hugging Face folder only, not to a torch.nn.Module.")
    from edgeq.compiler.load.torch_module import load_module

    return load_module(source, example_inputs, progress)


def recognise(source: str | Path) -> Location:
    """What kind of source a path or text is, from what is on disk first and from its spelling second.

    Raises:
        UsageError: none of the accepted forms.
        ModelError: a path that does not exist, or a folder without ``config.json``.
    """
    text = str(source)
    path = Path(text)
    if not text.strip():
        raise UsageError("The model source is empty.", fix=FORMS)
    if path.is_dir():
        return Location("hf", text)
    if path.suffix == ".pt2":
        return Location("pt2", text)
    if path.suffix.lower() in _OTHER_FORMATS:
        raise UsageError(f"{text!r} is not a kind of model file that can be loaded.", fix=FORMS)
    if path.exists() or path.suffix == ".onnx":
        return Location("onnx", text)
    if isinstance(source, str) and _FACTORY.fullmatch(text):
        return Location("factory", text)
    if isinstance(source, Path) or path.parent != Path():
        raise ModelError(f"The model {text} does not exist here, and nothing is downloaded.", fix=FORMS)
    raise UsageError(f"{text!r} is not a model source.", fix=FORMS)


def _check_options(location: Location, example_inputs: Any, task: str | None) -> None:
    if task is not None and location.kind != "hf":
        raise UsageError(f"task applies to a Hugging Face folder only, not to {location.text}.")
    if example_inputs is not None and location.kind != "factory":
        raise UsageError(f"example_inputs applies to a module or a factory only, not to {location.text}.")
