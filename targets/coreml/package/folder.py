"""The folder ``….mlpackage``: same content, same bytes; and never half a package."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.coreml.toolkit import coremltools

# Apple's layout of a package: Data/<author>/…, listed in Manifest.json
_AUTHOR = "com.apple.CoreML"
_MODEL = "model.mlmodel"
_WEIGHTS = "weights"
_NAMESPACE = uuid.UUID("6f1f4c1e-3c57-5b0e-9d0c-0b1f8f2b7a11")
# Protobuf's own limit; weights are not in it
_LARGEST_SPEC = 2**31 - 1


@contextlib.contextmanager
def unfinished_package(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to fill; it becomes ``path`` (replacing what is there) if nothing is raised.

    Raises:
        TargetError: the disk is full or not writable.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary.chmod(0o755)
        weights_folder(temporary).mkdir(parents=True)
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        raise TargetError(
            f"The package cannot be written to {path}: {error.strerror or error}.",
            fix="Free space there, or choose another output folder.",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def weights_folder(package: Path) -> Path:
    """Where the weights of a package lie."""
    return package / "Data" / _AUTHOR / _WEIGHTS


def model_folder(package: Path) -> Path:
    """The folder of the program, which ``@model_path`` stands for in it."""
    return package / "Data" / _AUTHOR


def write_spec(package: Path, spec: Any) -> None:
    """Write the protobuf ``spec`` and the manifest; the weights are there already."""
    content = spec.SerializeToString(deterministic=True)
    if len(content) > _LARGEST_SPEC:
        raise TargetError("The package's program is larger than 2 GB.", fix="Split the model.")
    (package / "Data" / _AUTHOR / _MODEL).write_bytes(content)
    (package / "Manifest.json").write_text(json.dumps(_manifest(), indent=4, sort_keys=True) + "\n")


def read_spec(path: Path) -> Any:
    """The protobuf spec of the package at ``path``.

    Raises:
        TargetError: there is no readable package.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    spec = coremltools().proto.Model_pb2.Model()
    try:
        spec.ParseFromString(_model_file(path).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, DecodeError) as error:
        raise TargetError(f"{path} is no readable Core ML package ({type(error).__name__}).") from error
    return spec


def _model_file(path: Path) -> Path:
    manifest = json.loads((path / "Manifest.json").read_text())
    root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    return path / "Data" / str(root["path"])


def _manifest() -> dict[str, Any]:
    model, weights = f"{_AUTHOR}/{_MODEL}", f"{_AUTHOR}/{_WEIGHTS}"
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            _identifier(model): _item(model, "CoreML Model Specification"),
            _identifier(weights): _item(weights, "CoreML Model Weights"),
        },
        "rootModelIdentifier": _identifier(model),
    }


def _item(path: str, description: str) -> dict[str, str]:
    name = path.rpartition("/")[2]
    return {"author": _AUTHOR, "description": description, "name": name, "path": path}


def _identifier(path: str) -> str:
    """Identifiers are unique inside one manifest only, so they may be the same in every package."""
    return str(uuid.uuid5(_NAMESPACE, path)).upper()


def _replace(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        return
    old = Path(mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.rename(old / path.name)
    try:
        temporary.rename(path)
    except OSError:
        (old / path.name).rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
