"""The artefact folder: built beside its place and put there at once, so that it is never half written."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeq.errors import EdgeqError, ModelError, OutputExistsError, TargetError, UsageError
from edgeq.manifest import MANIFEST_FILE, REPORT_FILE, Manifest

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "a file "
         "grows beyond the file size limit"}  # fmt: skip
# Beside the artefacts: what runs that were killed have finished.
WORK = ".edgeq-work"
_BUILDING = ".building-"
_REPLACED = ".replaced-"


@contextmanager
def artefact_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Build an artefact in a temporary sibling folder that takes the place of ``path`` at the end.

    On any error, Ctrl-C included, the temporary folder is removed and what was at ``path`` stays as it was.
    Folders that a killed run left behind are removed by the next one.

    Args:
        path: the artefact folder to be. Its parents are made.
        force: whether an artefact that is already there may be replaced.

    Yields:
        The temporary folder, empty.

    Raises:
        OutputExistsError: something is at ``path`` and ``force`` is not given, or it is no artefact of edgeq.
        UsageError: the place cannot be written to.
        TargetError: the disk is full.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would replace a symbolic link's target
    check_output(path, force=force)
    with _words_for_full_disk(path):
        temporary, lock = _make_temporary(path)
        try:
            yield temporary
            check_output(path, force=force)
            _put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


def check_output(path: Path, *, force: bool = False) -> None:
    """Refuse an output that must not be replaced, before any work starts.

    Raises:
        OutputExistsError: see :func:`artefact_folder`.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir() and path.samefile(Path.cwd()):
        raise OutputExistsError(f"{path} is the current folder.", fix="Give a folder of its own.")
    if path.is_symlink() or not path.is_dir():
        raise OutputExistsError(f"{path} is there and is no folder.", fix="Give another output folder.")
    entries = sorted(entry.name for entry in path.iterdir())
    if not entries:
        return
    if MANIFEST_FILE not in entries:
        raise OutputExistsError(
            f"{path} is there and is no edgeq artefact (it has no {MANIFEST_FILE}).",
            fix="Give another output folder; --force replaces artefacts only.",
        )
    if not force:
        raise OutputExistsError(f"{path} is there.", fix="Give --force to replace it, or another folder.")
    _refuse_foreign_files(path)


def _refuse_foreign_files(path: Path) -> None:
    """``--force`` deletes what edgeq wrote, nothing else."""
    try:
        manifest = Manifest.read(path)
    except ModelError as error:
        raise OutputExistsError(
            f"{path} is there and its {MANIFEST_FILE} cannot be read, so edgeq does not replace it.",
            fix="Delete the folder yourself, or give another one.",
        ) from error
    written = {entry.path for entry in (*manifest.files, *manifest.evidence)}
    known = written | {MANIFEST_FILE, REPORT_FILE}
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    foreign = sorted(found - known)
    if foreign:
        raise OutputExistsError(
            f"{path} holds files that edgeq did not write: {', '.join(foreign[:3])}.",
            fix="Move them away, or give another output folder.",
        )


def _make_temporary(path: Path) -> tuple[Path, int]:
    """A new sibling folder, and the lock that says that this process still builds in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = path.with_name(f".{path.name}{_BUILDING}{secrets.token_hex(4)}")
        temporary.mkdir()
        return temporary, locked(temporary)
    except OSError as error:
        if _full(error) is not None:
            raise
        raise UsageError(
            f"{path} cannot be made: {error.strerror} ({error.filename}).", fix="Give another output folder."
        ) from error


def check_writable(folder: Path) -> None:
    """Refuse an artefact whose manifest and report cannot be replaced, before minutes of measuring.

    Raises:
        UsageError: naming what cannot be written.
    """
    for path in (folder, folder / REPORT_FILE):
        effective = os.access in os.supports_effective_ids
        if path.exists() and not os.access(path, os.W_OK, effective_ids=effective):
            raise UsageError(
                f"{path} cannot be written, and what is measured is kept there.",
                fix="Measure a copy of the artefact, or change the permissions.",
            )


def locked(folder: Path) -> int:
    """Lock ``folder`` until the descriptor is closed or the process ends, however it ends.

    Raises:
        BlockingIOError: another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(path: Path) -> None:
    """Remove what killed runs left; a folder whose builder still lives is locked and stays.

    A run killed between the two renames of :func:`_put_in_place` left the old artefact aside: it comes back.
    """
    for folder in path.parent.glob(f".{_escaped(path.name)}{_REPLACED}*"):
        if path.exists():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.rename(path)
    remove_unlocked(path.parent.glob(f".{_escaped(path.name)}{_BUILDING}*"))


def remove_unlocked(folders: Iterable[Path]) -> None:
    """Remove those of ``folders`` that no living process has :func:`locked`."""
    for folder in folders:
        # The lock is another's, or the folder has just gone.
        with suppress(OSError):
            descriptor = locked(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; an old artefact moves aside first and comes back if that fails."""
    if not path.is_dir() or not any(path.iterdir()):
        temporary.replace(path)
        return
    aside = temporary.with_name(temporary.name.replace(_BUILDING, _REPLACED))
    path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _words_for_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except EdgeqError:
        raise
    except OSError as error:
        reason = _full(error)
        if reason is None:
            raise
        free = shutil.disk_usage(_existing(path)).free
        raise TargetError(
            f"{path} was not written: {reason} ({free / 1e6:.0f} MB are free). {_left(path)}",
            fix="Make room, or give an output folder on another disk.",
        ) from error


def _left(path: Path) -> str:
    """What a run that failed has left on the disk."""
    work = path.parent / WORK
    if not (work.is_dir() and any(work.iterdir())):
        return "Nothing was left behind."
    size = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    return (
        f"{work} keeps the weights that were quantized ({size / 1e6:.0f} MB): the same command goes on with "
        "them, and removes them when it is done."
    )


def _full(error: OSError) -> str | None:
    if error.errno in _FULL:
        return _FULL[error.errno]
    # ndarray.tofile on a full disk: "N requested and M written", without an errno.
    return _FULL[errno.ENOSPC] if error.errno is None and "requested and" in str(error) else None


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
