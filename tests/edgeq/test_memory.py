"""The peak of a block is its own: not what was before, and with the compilers that it runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgeq.memory import watched_peak

SIZE = 200_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="children and resets need /proc")


def test_what_a_block_takes_and_frees_counts() -> None:
    with watched_peak() as found:
        block = np.ones(SIZE // 8)
        del block
    assert found.added is not None
    assert found.added > 0.9 * SIZE


@linux
def test_what_was_before_does_not_count() -> None:
    block = np.ones(SIZE // 8)
    del block
    with watched_peak() as found:
        pass
    assert found.added is not None
    assert found.added < 0.5 * SIZE


@linux
def test_children_count() -> None:
    script = f"import time; block = bytearray(b'1') * {SIZE}; time.sleep(0.5)"
    with watched_peak() as found:
        subprocess.run([sys.executable, "-c", script], check=True)
    assert found.added is not None
    assert found.added > 0.9 * SIZE
