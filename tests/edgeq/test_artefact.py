from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from edgeq.artefact import WORK, artefact_folder, check_output, check_writable
from edgeq.errors import DataError, OutputExistsError, TargetError, UsageError
from tests.support.cli import hear_interrupts
from tests.support.manifests import write_artefact


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(folder: Path, error: BaseException) -> NoReturn:
    (folder / "half").write_bytes(b"x")
    raise error


def test_appears_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model-onnxruntime"
    with artefact_folder(path) as folder:
        assert folder.parent == path.parent
        write_artefact(folder)
        assert not path.exists()
    assert names(path) == ["edgeq.json", "model.onnx", "report.html"]
    assert names(path.parent) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [DataError("no"), ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failed_build_leaves_nothing_and_keeps_the_old_artefact(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "artefact"
    with pytest.raises(type(error)), artefact_folder(path) as folder:
        write_half(folder, error)
    assert names(tmp_path) == []
    write_artefact(path, b"old")
    with pytest.raises(type(error)), artefact_folder(path, force=True) as folder:
        write_half(folder, error)
    assert names(tmp_path) == ["artefact"]
    assert (path / "model.onnx").read_bytes() == b"old"


def test_replaces_with_force_only(tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    write_artefact(path, b"old")
    with pytest.raises(OutputExistsError) as caught, artefact_folder(path):
        raise AssertionError("not reached")
    assert str(caught.value) == f"{path} is there. Give --force to replace it, or another folder."
    with artefact_folder(path, force=True) as folder:
        write_artefact(folder, b"new")
        assert (path / "model.onnx").read_bytes() == b"old"
    assert (path / "model.onnx").read_bytes() == b"new"
    assert names(tmp_path) == ["artefact"]


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    path.mkdir()
    with artefact_folder(path) as folder:
        write_artefact(folder)
    assert "edgeq.json" in names(path)


def test_never_replaces_what_is_no_artefact(tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    path.mkdir()
    (path / "chapter1.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=r"is no edgeq artefact \(it has no edgeq\.json\)"):
        check_output(path, force=True)
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    with pytest.raises(OutputExistsError, match="is no folder"):
        check_output(file, force=True)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OutputExistsError, match="is no folder"):
        check_output(link, force=True)


def test_never_deletes_files_that_are_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    write_artefact(path)
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=r"holds files that edgeq did not write: notes\.txt"):
        check_output(path, force=True)
    (path / "notes.txt").unlink()
    check_output(path, force=True)
    (path / "edgeq.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=r"its edgeq\.json cannot be read"):
        check_output(path, force=True)


def test_never_replaces_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputExistsError, match="is the current folder"), artefact_folder(Path()):
        raise AssertionError("not reached")


def test_an_output_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    with pytest.raises(OutputExistsError), artefact_folder(path):
        write_artefact(path, b"first")
    assert (path / "model.onnx").read_bytes() == b"first"
    assert names(tmp_path) == ["artefact"]


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be made"), artefact_folder(tmp_path / "file" / "artefact"):
        raise AssertionError("not reached")


BUILD = """
import sys, time
from pathlib import Path
from typing import NoReturn
from edgeq.artefact import WORK, artefact_folder
with artefact_folder(Path(sys.argv[1]), force=True) as folder:
    (folder / "model.onnx").write_bytes(b"x" * int(sys.argv[2]))
    print("building", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def build(path: Path, size: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(path), str(size), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, preexec_fn=hear_interrupts)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    with build(path, 10, 600) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        (left,) = names(tmp_path)
        with artefact_folder(path) as folder:
            # The builder still lives, so that its folder stays.
            assert left in names(tmp_path)
            write_artefact(folder)
        process.kill()
    assert left in names(tmp_path)
    with artefact_folder(path, force=True) as folder:
        write_artefact(folder)
    assert names(tmp_path) == ["artefact"]


def test_a_run_killed_while_replacing_gives_the_old_artefact_back(tmp_path: Path) -> None:
    write_artefact(tmp_path / ".artefact.replaced-1234", b"old")
    with pytest.raises(OutputExistsError), artefact_folder(tmp_path / "artefact") as folder:
        write_artefact(folder, b"new")
    assert names(tmp_path) == ["artefact"]
    assert (tmp_path / "artefact" / "model.onnx").read_bytes() == b"old"


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with build(tmp_path / "artefact", 10, 600) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert names(tmp_path) == []


def test_file_size_limit_is_said_in_words(tmp_path: Path) -> None:
    """The closest to a full disk that needs no privileges."""
    path = tmp_path / "artefact"
    write_artefact(path, b"old")
    script = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n{BUILD}"
    command = [sys.executable, "-c", script, str(path), "100000", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "TargetError" in done.stderr
    assert "was not written: a file grows beyond the file size limit" in done.stderr
    assert names(tmp_path) == ["artefact"]
    assert (path / "model.onnx").read_bytes() == b"old"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (OSError("8000 requested and 1000 written"), "the disk is full"),
    ],
)
def test_full_disk_is_said_in_words(tmp_path: Path, error: OSError, words: str) -> None:
    with pytest.raises(TargetError, match=words) as caught, artefact_folder(tmp_path / "artefact"):
        raise error
    assert caught.value.fix == "Make room, or give an output folder on another disk."
    assert names(tmp_path) == []


def test_a_full_disk_says_what_a_run_has_left_to_go_on_with(tmp_path: Path) -> None:
    kept = tmp_path / WORK / "key" / "model.layers.0.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(3_000_000))
    with pytest.raises(TargetError) as caught, artefact_folder(tmp_path / "artefact"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "Nothing was left behind" not in caught.value.what
    assert f"{tmp_path / WORK} keeps the weights that were quantized (3 MB): the same command goes on" in (
        caught.value.what
    )
    assert kept.is_file()


@pytest.mark.parametrize("name", ["", "report.html"])
def test_what_cannot_be_written_is_refused_before_measuring(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o777)
        (path / "report.html").write_text("")
        (path / "report.html").chmod(0o666)
        check_writable(path)
        (path / name).chmod(0o555)
        root = os.geteuid() == 0
        if root:  # whom permissions do not bind
            os.seteuid(65534)
        try:
            with pytest.raises(
                UsageError, match=f"{re.escape(str(path / name))} cannot be written, and what"
            ):
                check_writable(path)
        finally:
            if root:
                os.seteuid(0)
            path.chmod(0o777)


def test_other_errors_of_the_system_are_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), artefact_folder(tmp_path / "artefact"):
        (tmp_path / "nowhere" / "file").write_text("x", encoding="utf-8")
