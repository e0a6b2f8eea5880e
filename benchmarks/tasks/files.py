"""Task files: YAML as lm-eval documents it, with data in local files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import ConfigError, DataError, MissingExtraError

# Readers of local files that the package datasets has; any other name would be a data set of the hub.
_READERS = ("json", "csv", "text", "parquet", "arrow")
_EXAMPLE = "dataset_path: json with dataset_kwargs: {data_files: {test: questions.jsonl}}"


@dataclass(frozen=True)
class TaskFile:
    """A task: its name, its file, and its ``dataset_kwargs`` with absolute paths."""

    name: str
    path: Path
    dataset: Mapping[str, Any]


def require_lm_eval() -> None:
    """Raises MissingExtraError where lm-eval is not installed."""
    try:
        import datasets  # noqa: F401
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Running tasks of lm-eval", "eval") from error


def read_task(path: Path) -> TaskFile:
    """Read and check a task file.

    Raises:
        ConfigError: it cannot be read, describes no single task, or its data is not in local files.
        DataError: a data file is missing.
        MissingExtraError: lm-eval is not installed.
    """
    require_lm_eval()
    content = _content(path, seen=())
    name = content.get("task")
    if not isinstance(name, str) or not name or "/" in name or any(c.isspace() for c in name):
        raise ConfigError(
            f"{path} is no task of lm-eval: its key 'task' is {name!r}.",
            fix="Give one task per file, with task: NAME; groups are given as their tasks.",
        )
    kwargs = dict(content.get("dataset_kwargs") or {})
    if "custom_dataset" in content:
        return TaskFile(name, path, kwargs)
    return TaskFile(name, path, _local(path, content.get("dataset_path"), kwargs))


def tasks_sha256(paths: Iterable[Path]) -> str:
    """The hash of tasks, their data, and the Python beside them, whose functions they may name.

    Raises:
        EdgeqError: see :func:`read_task`.
    """
    found = hashlib.sha256()
    for path in paths:
        task = read_task(path)
        content = json.dumps([_content(path, seen=()), task.dataset], sort_keys=True, default=str)
        found.update(content.encode())
        for file in (*_files(task.dataset.get("data_files")), *sorted(path.parent.glob("*.py"))):
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _files(named: object) -> Iterator[Path]:
    """The data files that :func:`_absolute` has found."""
    if isinstance(named, str):
        yield Path(named)
    elif isinstance(named, (Mapping, list)):
        for inner in named.values() if isinstance(named, Mapping) else named:
            yield from _files(inner)


def _content(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """What the file says, over what it includes."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Functions are named here, and imported by lm-eval."""

    Loader.add_constructor("!function", lambda loader, node: str(node.value))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The task file {path} cannot be read: {error}.", fix="Check the path.") from error
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{path} is no valid YAML: {said}.", fix="Correct that place.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no task of lm-eval.", fix=f"Write task: NAME, {_EXAMPLE} and so on.")
    included = content.get("include")
    if not isinstance(included, str):
        return content
    base = (path.parent / included).resolve()
    if base in seen:
        raise ConfigError(f"{path} includes itself.", fix="Correct the key include.")
    return {**_content(base, (*seen, base)), **content}


def _local(path: Path, reader: object, kwargs: dict[str, Any]) -> dict[str, Any]:
    """``kwargs`` of a data set in local files, with paths relative to the task file made absolute."""
    if reader not in _READERS:
        raise ConfigError(
            f"{path} takes its data from {reader!r}, and tasks never use the network.",
            fix=f"Write {_EXAMPLE}.",
        )
    if not kwargs.get("data_files"):
        raise ConfigError(f"{path} names no data files.", fix=f"Write {_EXAMPLE}.")
    return {**kwargs, "data_files": _absolute(path, kwargs["data_files"])}


def _absolute(path: Path, files: object) -> Any:
    if isinstance(files, Mapping):
        return {split: _absolute(path, inner) for split, inner in files.items()}
    if isinstance(files, list):
        return [_absolute(path, inner) for inner in files]
    if not isinstance(files, str) or "://" in files:
        raise ConfigError(
            f"{path} names {files!r} as data, which is no local file.", fix=f"Write {_EXAMPLE}."
        )
    found = (path.parent / files).resolve()
    if not found.is_file():
        raise DataError(f"{found}, data of the task file {path}, does not exist.", fix="Correct data_files.")
    return str(found)
