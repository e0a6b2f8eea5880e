"""The manifest ``edgeq.json``: what an artefact is, how it was made, and what was measured.

Everything outside ``measured`` depends on the inputs, the recipe, the versions and the machine alone: no
times, no temporary paths. So the same compile gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgeq import __version__
from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.benchmarks.verdicts import Verdict
from edgeq.compiler.model import Source
from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.findings import Diagnosis
from edgeq.errors import ConfigError, ModelError
from edgeq.machine import Machine
from edgeq.targets.base import Check, NodeResult

MANIFEST_FILE = "edgeq.json"
REPORT_FILE = "report.html"
FORMAT_VERSION = 1

_CHUNK = 1 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class FileEntry(_Strict):
    """A file that ships: its path relative to the artefact folder, its size in bytes and its SHA-256."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Compiling(_Strict):
    """What compiling has cost, from the loaded model to the written files.

    ``peak_memory`` is the largest resident set of edgeq's process and its children (compilers) meanwhile,
    ``added_memory`` what it grew by, in bytes; None where the system does not tell.
    """

    seconds: float
    peak_memory: int | None
    added_memory: int | None

    def then(self, next_step: Compiling) -> Compiling:
        """The cost of both steps, one after the other."""
        return Compiling(
            seconds=self.seconds + next_step.seconds,
            peak_memory=_largest(self.peak_memory, next_step.peak_memory),
            added_memory=_largest(self.added_memory, next_step.added_memory),
        )


def _largest(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else max(first, second)


class Measured(_Strict):
    """What was measured, on which machine, with which options, and the verdicts: may change on every run.

    ``evaluation`` describes the data (as ``DataSource.describe``), ``runner`` says what ran the artefact,
    ``compiling`` what making it has cost.
    """

    measurements: list[Measurement] = Field(default_factory=list)
    failures: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    findings: list[str] = Field(default_factory=list)
    verdicts: list[Verdict] = Field(default_factory=list)
    machine: Machine
    options: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] | None = None
    runner: str = "runtime"
    compiling: Compiling | None = None

    @classmethod
    def of(
        cls,
        measurements: Measurements,
        verdicts: Sequence[Verdict],
        *,
        machine: Machine,
        options: Mapping[str, Any],
        evaluation: Mapping[str, Any] | None = None,
        runner: str = "runtime",
        compiling: Compiling | None = None,
    ) -> Self:
        """The section made of what :func:`edgeq.benchmarks.harness.measure` and ``judge`` returned."""
        return cls(
            measurements=list(measurements.values()),
            failures=dict(measurements.failures),
            notes=list(measurements.notes),
            findings=list(measurements.findings),
            verdicts=list(verdicts),
            machine=machine,
            options=dict(options),
            evaluation=None if evaluation is None else dict(evaluation),
            runner=runner,
            compiling=compiling,
        )

    def as_measurements(self) -> Measurements:
        """The measurements by metric name."""
        result = Measurements({}, dict(self.failures), list(self.notes), list(self.findings))
        result.add(*self.measurements)
        return result


class Manifest(_Strict):
    """What ``edgeq.json`` holds.

    Attributes:
        format_version: of this file's layout.
        edgeq: the version that wrote it.
        target: the target's name.
        source: where the model came from, with the SHA-256 of its content.
        recipe: scheme, range method and overrides: what was built can be built again from it.
        calibration: the calibration data (``DataSource.describe``), None when the scheme needs none.
        options: the target's own options that were given.
        files: the files that ship.
        evidence: files that stay with the artefact so that it can be verified again.
        checks: what the build has proved of the written files, and ``proved_by`` what ran them.
        libraries: versions of the libraries that have a part in the files' bytes.
        machine: where it was compiled: the verified kernels depend on the CPU.
        nodes: planned against actual precision of every node.
        load_hints: what the application must know to load the artefact.
        notes: decisions and warnings, in words.
        diagnosis: what quantizing has cost each layer of a language model, where calibration text told.
        measured: everything that may change between runs; None when nothing was measured.
    """

    format_version: int = FORMAT_VERSION
    edgeq: str = __version__
    target: str
    source: Source
    recipe: Recipe
    calibration: dict[str, Any] | None = None
    options: dict[str, str] = Field(default_factory=dict)
    files: list[FileEntry]
    evidence: list[FileEntry] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    proved_by: str = ""
    libraries: dict[str, str]
    machine: Machine
    nodes: list[NodeResult] = Field(default_factory=list)
    load_hints: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    diagnosis: Diagnosis | None = None
    measured: Measured | None = None

    @field_validator("recipe", mode="before")
    @classmethod
    def _without_old_default(cls, recipe: Any) -> Any:
        """Before there were methods of weights every recipe had the block size 32, read or not."""
        if not isinstance(recipe, Mapping) or "weight_method" in recipe or recipe.get("block_size") != 32:
            return recipe
        blocks = recipe.get("scheme") == "int4-weight" or recipe.get("accuracy_level") == 4
        return recipe if blocks else {key: recipe[key] for key in recipe if key != "block_size"}

    @property
    def size(self) -> int:
        """Bytes of the files that ship."""
        return sum(entry.bytes for entry in self.files)

    @property
    def missed(self) -> list[NodeResult]:
        """Nodes that were planned quantized and run in float."""
        return [node for node in self.nodes if node.missed]

    def to_text(self) -> str:
        """The file's text: the same manifest gives the same bytes."""
        content = json.loads(self.model_dump_json())
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, folder: Path) -> Path:
        """Write ``edgeq.json`` into ``folder`` at once (never half of it); return its path."""
        path = folder / MANIFEST_FILE
        temporary = folder / f".{MANIFEST_FILE}.{os.getpid()}"
        try:
            temporary.write_text(self.to_text(), encoding="utf-8", newline="\n")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of the artefact in ``folder`` (or the path of the ``edgeq.json`` itself).

        Raises:
            ConfigError: there is no artefact.
            ModelError: the manifest is not JSON, not a manifest, or of another format version.
        """
        path = folder if folder.name == MANIFEST_FILE else folder / MANIFEST_FILE
        return cls.parse(_read_text(path), path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Self:
        """The manifest in ``text``, which came from ``path``; raises like :meth:`read`."""
        content = _json_object(text, path)
        _check_format(content, path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ModelError(
                f"{path} is no valid manifest: {where}: {first['msg']}.", fix="Compile the model again."
            ) from error


def file_entries(folder: Path, files: Iterable[str]) -> list[FileEntry]:
    """Size and SHA-256 of ``files`` (relative to ``folder``), sorted by path.

    Raises:
        ModelError: one of them is not there.
    """
    return [_entry(folder, name) for name in sorted(files)]


def verify_files(manifest: Manifest, folder: Path) -> None:
    """Check that the files in ``folder`` are the ones that the manifest names.

    Raises:
        ModelError: a file is missing, leaves the folder, or has another content.
    """
    for entry in (*manifest.files, *manifest.evidence):
        found = _entry(folder, entry.path)
        if found != entry:
            raise ModelError(
                f"{folder / entry.path} is not the file that edgeq wrote: its SHA-256 is "
                f"{found.sha256[:12]}… and the manifest says {entry.sha256[:12]}….",
                fix="Compile the model again, or restore the file.",
            )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _entry(folder: Path, name: str) -> FileEntry:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ModelError(f"The manifest names {name!r}, which leaves the artefact folder.")
    path = folder / relative
    if not path.is_file():
        raise ModelError(f"{path} is missing.", fix="Compile the model again, or restore the file.")
    return FileEntry(path=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path.parent} is no edgeq artefact: it has no {MANIFEST_FILE}.",
            fix="Give the folder that `edgeq compile` wrote.",
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is no text.", fix="Compile the model again.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error


def _json_object(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}.", fix="Compile the model again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no manifest: it holds no JSON object.", fix="Compile the model again.")
    return content


def _check_format(content: Mapping[str, Any], path: Path) -> None:
    found = content.get("format_version")
    if found == FORMAT_VERSION:
        return
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {found}, and this edgeq {__version__} reads {FORMAT_VERSION}.",
            fix=f"Update edgeq (it was written by {content.get('edgeq', 'a newer one')}).",
        )
    raise ModelError(f"{path} is no manifest: its format_version is {found!r}.", fix="Compile again.")
