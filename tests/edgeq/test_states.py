from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeq.states import states_beside

CHECKPOINT: Any = SimpleNamespace(is_checkpoint=True)
GRAPH: Any = SimpleNamespace(is_checkpoint=False)


def there(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "build").iterdir())


def test_the_folder_goes_whatever_happens_inside(tmp_path: Path) -> None:
    def interrupted() -> None:
        with states_beside(tmp_path / "build" / "net", CHECKPOINT, 2) as folder:
            assert folder is not None
            (folder / "a.npy").write_bytes(b"x")
            assert there(tmp_path) == [folder]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert there(tmp_path) == []


@pytest.mark.parametrize(("original", "artefacts"), [(GRAPH, 2), (CHECKPOINT, 1), (CHECKPOINT, 0)])
def test_nothing_is_made_where_nothing_is_gained(tmp_path: Path, original: Any, artefacts: int) -> None:
    with states_beside(tmp_path / "build" / "net", original, artefacts) as folder:
        assert folder is None
        assert not (tmp_path / "build").exists()


def test_two_runs_have_two_folders_and_a_killed_ones_goes(tmp_path: Path) -> None:
    place = tmp_path / "build" / "net"
    killed = (
        "import os, signal, sys; from pathlib import Path; from types import SimpleNamespace; "
        "from edgeq.states import states_beside\n"
        "with states_beside(Path(sys.argv[1]), SimpleNamespace(is_checkpoint=True), 2) as folder:\n"
        "    (folder / 'a.npy').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(place)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    (left,) = there(tmp_path)
    with states_beside(place, CHECKPOINT, 2) as first, states_beside(place, CHECKPOINT, 2) as second:
        assert there(tmp_path) == sorted([first, second])  # type: ignore[type-var]
        assert left not in (first, second)
    assert there(tmp_path) == []


def test_a_place_where_nothing_can_be_made_has_none(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")
    with states_beside(tmp_path / "build" / "net", CHECKPOINT, 2) as folder:
        assert folder is None
