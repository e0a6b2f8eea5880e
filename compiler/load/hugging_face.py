"""Load a local Hugging Face folder through optimum: offline, and no code from the folder is run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.compiler.load.clean import strip_metadata
from edgeq.compiler.load.digest import files_sha256
from edgeq.compiler.load.onnx_file import load_onnx
from edgeq.compiler.load.pt2_archive import weights_only
from edgeq.compiler.model import Model, Source
from edgeq.errors import MissingExtraError, ModelError
from edgeq.progress import Progress, SilentProgress
from edgeq.quiet import quiet, reason

# LayerNormalization has its own operator since opset 17; optimum's TorchScript export is tested most with 18.
OPSET = 18
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "tokenizer.model", "spiece.model")


@dataclass(frozen=True)
class Folder:
    """What a folder's ``config.json`` says, and its weight files."""

    path: Path
    model_type: str
    architecture: str
    weights: list[Path]

    @property
    def tokenizer(self) -> str | None:
        """The folder that a tokenizer can be loaded from, when it holds one."""
        return str(self.path) if tokenizer_folder(self.path) else None


def tokenizer_folder(path: Path) -> bool:
    """Whether a tokenizer can be loaded from the folder ``path``."""
    return any((path / name).is_file() for name in _TOKENIZERS)


def load_folder(path: Path, task: str | None, progress: Progress) -> Model:
    """Export the model in ``path`` with float32 weights, whatever precision they are stored in.

    ``task`` is one of optimum's tasks; without it the architecture in ``config.json`` decides. Language
    models are exported without past key values: ``input_ids``, ``attention_mask``, ``position_ids`` to
    ``logits``.

    Raises:
        ModelError: no or an unusable ``config.json``, no weights, an unknown architecture, a task that the
            architecture does not have, or an export that fails.
        MissingExtraError: optimum-onnx, transformers or PyTorch is not installed.
    """
    folder = read_folder(path)
    _require_optimum()
    with _offline():
        named = task is not None
        task = _checked_task(folder, task)
        with progress.task(f"Exporting {path.name} for {task}"), tempfile.TemporaryDirectory() as scratch:
            file = _export(folder, task, named, Path(scratch))
            # Weights stay readable after the folder is gone: what is mapped keeps deleted files alive.
            graph = load_onnx(file, SilentProgress()).ir
    strip_metadata(graph)
    files = sorted(folder.weights)
    digest = files_sha256(path / "config.json", files, progress)
    return Model(graph, Source("hf", str(path), digest, _details(folder, task, graph.opset_imports[""])))


def float_module(source: Source, attention: str | None = None) -> Any:
    """The transformers model, in float32, that the graph loaded from ``source`` was exported from.

    ``attention``: the implementation that transformers computes attention with; None: its own choice.

    Raises:
        ModelError: the folder has changed and cannot be loaded any more.
    """
    folder = read_folder(Path(source.location))
    _require_optimum()
    task = str(source.details["task"])
    try:
        with _offline(), quiet(), weights_only():
            named = task != _own_task(folder)
            model, _ = _instantiate(folder, task, named, attention)
    except Exception as error:
        raise ModelError(f"{folder.path} cannot be loaded: {reason(error)}.") from error
    return model.eval()


def _own_task(folder: Folder) -> str | None:
    """The task of the architecture that the folder names; None where that tells none."""
    try:
        return _infer_task(folder, [])
    except ModelError:
        return None


def read_folder(path: Path) -> Folder:
    """Read ``config.json`` and find the weights.

    Raises:
        ModelError: either is missing or cannot be used.
    """
    config_file = path / "config.json"
    if not config_file.is_file():
        raise ModelError(
            f"The folder {path} has no config.json, so it is no Hugging Face model.", fix=_other_files(path)
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{config_file} cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{config_file} does not name a model_type.")
    if "quantization_config" in config:
        raise ModelError(f"{path} is already quantized.", fix="Start from the unquantized model.")
    architectures = config.get("architectures") or []
    weights = [file for pattern in _WEIGHTS for file in path.glob(pattern)]
    if not weights:
        raise ModelError(f"The folder {path} has no weights (*.safetensors or pytorch_model*.bin).")
    return Folder(path, config["model_type"], str(architectures[0]) if architectures else "", weights)


def _other_files(path: Path) -> str:
    found = sorted(file.name for file in path.glob("*.onnx"))
    return f"Give the ONNX file itself: {path / found[0]}." if found else "Give a folder of save_pretrained."


def _require_optimum() -> None:
    try:
        # torchao, where it is installed, is loaded too and logs about its parts for GPUs.
        with quiet():
            import optimum.exporters.onnx.model_configs  # noqa: F401 - registers what can be exported
            import torch  # noqa: F401
            import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Loading a Hugging Face folder", "hf") from error


def _checked_task(folder: Folder, task: str | None) -> str:
    """The task to export for: the one asked for, else the architecture's own."""
    from optimum.exporters.tasks import TasksManager

    if folder.model_type not in TasksManager._SUPPORTED_MODEL_TYPE:
        raise ModelError(
            f"{folder.path} is a model of type {folder.model_type!r}, which optimum cannot export to ONNX."
        )
    known = TasksManager.get_supported_tasks_for_model_type(
        folder.model_type, "onnx", library_name="transformers"
    )
    usable = sorted(name for name in known if not name.endswith("-with-past"))
    wanted = _infer_task(folder, usable) if task is None else TasksManager.map_from_synonym(task)
    if wanted not in usable:
        raise ModelError(
            f"A {folder.model_type} model cannot be exported for the task {wanted!r}.",
            fix=f"Tasks of this model type: {', '.join(usable)}.",
        )
    return str(wanted)


def _infer_task(folder: Folder, usable: list[str]) -> str:
    import transformers
    from optimum.exporters.tasks import TasksManager

    fix = f"Name the task; tasks of this model type: {', '.join(usable)}."
    if not folder.architecture:
        raise ModelError(
            f"{folder.path / 'config.json'} names no architecture to infer a task from.", fix=fix
        )
    model_class = getattr(transformers, folder.architecture, None)
    if model_class is None:
        raise ModelError(f"{folder.path} has the unknown architecture {folder.architecture!r}.", fix=fix)
    try:
        return str(TasksManager.infer_task_from_model(model_class))
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"No task can be inferred from the architecture {folder.architecture!r} of {folder.path}.",
            fix=fix,
        ) from error


def _export(folder: Folder, task: str, named: bool, output: Path) -> Path:
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.utils.save_utils import maybe_load_preprocessors

    try:
        with quiet(), weights_only():
            model, missing = _instantiate(folder, task, named)
            if not missing:
                onnx_export_from_model(
                    model,
                    output,
                    task=task,
                    opset=OPSET,
                    monolith=True,
                    no_post_process=True,
                    do_validation=False,
                    preprocessors=maybe_load_preprocessors(folder.path, trust_remote_code=False),
                )
    except Exception as error:
        raise ModelError(f"{folder.path} cannot be exported for {task}: {reason(error)}.") from error
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelError(
            f"{folder.path} has no weights for {names}, which the task {task} needs.",
            fix=f"The folder was saved as {folder.architecture or 'another architecture'}: name its task.",
        )
    files = sorted(output.glob("*.onnx"))
    if len(files) != 1:
        names = ", ".join(file.stem for file in files)
        raise ModelError(f"{folder.path} exports as {len(files)} graphs ({names}) for {task}, not as one.")
    return files[0]


def _instantiate(
    folder: Folder, task: str, named: bool, attention: str | None = None
) -> tuple[Any, list[str]]:
    """The model in float32 without a cache, and the weights that the folder does not have.

    transformers fills those with random numbers and goes on; a compiled model must not.
    """
    import torch
    import transformers
    from optimum.exporters.tasks import TasksManager

    model_class = (
        TasksManager.get_model_class_for_task(task, model_type=folder.model_type, library="transformers")
        if named
        else getattr(transformers, folder.architecture)
    )
    model, info = model_class.from_pretrained(
        str(folder.path),
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **({} if attention is None else {"attn_implementation": attention}),
    )
    model.config.use_cache = False
    if task == "text-classification" and model.config.pad_token_id is None:
        model.config.pad_token_id = _pad_token(folder)
    # Features are taken before the pooler, which many checkpoints lack.
    unused = "pooler" if task == "feature-extraction" else None
    return model, sorted(
        key for key in info["missing_keys"] if unused is None or unused not in key.split(".")
    )


def _pad_token(folder: Folder) -> int:
    import transformers

    token = None
    if folder.tokenizer:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder.path), local_files_only=True)
        token = tokenizer.pad_token_id
    if token is None:
        raise ValueError(
            "it needs a pad_token_id, which neither config.json nor a tokenizer in the folder has"
        )
    return int(token)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep transformers and the hub client off the network, also when they were imported before."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    before = {name: os.environ.get(name) for name in names}
    constants = sys.modules.get("huggingface_hub.constants")
    flag = getattr(constants, "HF_HUB_OFFLINE", None)
    os.environ.update(dict.fromkeys(names, "1"))
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if constants is not None:
            constants.HF_HUB_OFFLINE = flag  # type: ignore[attr-defined]


def _details(folder: Folder, task: str, opset: int) -> dict[str, Any]:
    import torch
    import transformers

    details: dict[str, Any] = {
        "opset": opset,
        "exporter": f"optimum, transformers {transformers.__version__}, torch {torch.__version__}",
        "task": task,
        "architecture": folder.architecture,
        "model_type": folder.model_type,
    }
    if folder.tokenizer:
        details["tokenizer"] = folder.tokenizer
    return details
