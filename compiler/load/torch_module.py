"""Load a ``torch.nn.Module``: given as an object, or built by a factory named ``package.module:factory``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.compiler.load.torch_export import export_module
from edgeq.compiler.model import Model
from edgeq.errors import MissingExtraError, ModelError, UsageError
from edgeq.progress import Progress

if TYPE_CHECKING:
    import torch

CONVENTION = (
    "A factory takes no arguments and returns (module, example_inputs), or a torch.nn.Module with an "
    "attribute example_inputs: a tuple of positional or a dict of keyword arguments of forward."
)


def load_module(module: torch.nn.Module, example_inputs: Any, progress: Progress) -> Model:
    """Export ``module`` with a dynamic batch. Its weights are shared with the result, not copied.

    Raises:
        UsageError: ``example_inputs`` is missing or not a tuple or dict that holds a tensor.
        ModelError: PyTorch cannot export the module.
    """
    if example_inputs is None:
        example_inputs = getattr(module, "example_inputs", None)
    name = type(module).__name__
    args, kwargs = _arguments(example_inputs, name)
    return export_module(module, args, kwargs, name, progress)


def load_factory(text: str, example_inputs: Any, progress: Progress) -> Model:
    """Import ``package.module:factory`` (the working folder is on the path), call it, export what it returns.

    Raises:
        ModelError: the module or the attribute is not there, fails, or returns something else (see
            ``CONVENTION``), or PyTorch cannot export the module.
        MissingExtraError: PyTorch is not installed.
    """
    _require_torch()
    with _working_folder_importable():
        built = _call(_resolve(text), text)
    module, found = _unpack(built, text)
    if example_inputs is None:
        example_inputs = found
    if example_inputs is None:
        raise ModelError(f"The factory {text} returned a module without example inputs.", fix=CONVENTION)
    args, kwargs = _arguments(example_inputs, text)
    return export_module(module, args, kwargs, text, progress)


def _require_torch() -> None:
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Loading a PyTorch model", "torch") from error


@contextlib.contextmanager
def _working_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _resolve(text: str) -> Any:
    module_name, _, attribute = text.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ModelError(
                f"The module {error.name} of {text} was not found.",
                fix="Run in the folder that holds it, or install its package.",
            ) from error
        raise ModelError(f"Importing {module_name} failed: {error}.") from error
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ModelError(f"Importing {module_name} failed: {_said(error)}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ModelError(f"{module_name} has no attribute {attribute!r}, which {text} names.")
        found = getattr(found, part)
    return found


def _call(factory: Any, text: str) -> Any:
    import torch

    if isinstance(factory, torch.nn.Module):
        return factory
    if not callable(factory):
        raise ModelError(f"{text} is a {type(factory).__name__} and cannot be called.", fix=CONVENTION)
    try:
        return factory()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ModelError(f"The factory {text} failed: {_said(error)}.", fix=CONVENTION) from error


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _unpack(built: Any, text: str) -> tuple[torch.nn.Module, Any]:
    import torch

    pair = isinstance(built, tuple) and len(built) == 2
    module, inputs = built if pair else (built, getattr(built, "example_inputs", None))
    if not isinstance(module, torch.nn.Module):
        what = (
            f"a pair whose first part is a {type(module).__name__}" if pair else f"a {type(built).__name__}"
        )
        raise ModelError(f"The factory {text} returned {what}, not a torch.nn.Module.", fix=CONVENTION)
    return module, inputs


def _arguments(example_inputs: Any, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments."""
    import torch
    from torch.utils import _pytree as pytree

    fix = "Give a tuple of positional or a dict of keyword arguments of forward, with at least one tensor."
    if example_inputs is None:
        raise UsageError(f"{name} needs example_inputs to be exported.", fix=fix)
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, Mapping | tuple | list):
        raise UsageError(f"example_inputs of {name} is a {type(example_inputs).__name__}.", fix=fix)
    leaves: Sequence[Any] = pytree.tree_leaves(
        dict(example_inputs) if isinstance(example_inputs, Mapping) else tuple(example_inputs)
    )
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise UsageError(f"example_inputs of {name} hold no torch.Tensor.", fix=fix)
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return tuple(example_inputs), {}
