from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgeq.benchmarks.fresh_process import run_fresh
from edgeq.benchmarks.load_time import load_time
from edgeq.benchmarks.memory import peak_memory
from edgeq.benchmarks.options import BenchOptions
from edgeq.benchmarks.subject import Subject
from edgeq.benchmarks.worker import load_inputs, save_inputs
from edgeq.calibration.types import Array
from edgeq.errors import TargetError
from edgeq.memory import peak_bytes
from edgeq.progress import SilentProgress
from tests.support.bench_models import linear

ONCE = BenchOptions(processes=1, process_runs=1, process_timeout=120)
SILENT = SilentProgress()


def test_large_weights_show_in_memory_and_imports_do_not(tmp_path: Path) -> None:
    small = linear(tmp_path / "small.onnx")
    # 64 MB of weights, which the session holds at least once.
    large = linear(tmp_path / "large.onnx", np.ones((4, 4_000_000), np.float32))
    subjects = [Subject("onnxruntime", path, threads=1) for path in (large, small)]
    inputs: dict[str, Array] = {"x": np.ones((1, 4), np.float32)}
    ours, theirs = run_fresh(subjects, inputs, options=ONCE, progress=SILENT)
    assert isinstance(ours, list)
    assert isinstance(theirs, list)
    assert [len(ours), len(theirs)] == [1, 1]
    assert ours[0].peak > 64e6 > theirs[0].peak
    assert ours[0].peak_process > ours[0].peak + 20e6
    above, process = peak_memory(ours, theirs)
    assert (above.value, above.baseline) == (ours[0].peak, theirs[0].peak)
    assert (process.metric, process.value) == ("peak_memory_process", ours[0].peak_process)
    loading = load_time(ours, None)
    assert (loading.value, loading.baseline, loading.unit) == (ours[0].load, None, "s")


def _failure(subject: Subject, inputs: dict[str, Array], options: BenchOptions = ONCE) -> str:
    """What ended the only process."""
    (found,) = run_fresh([subject], inputs, options=options, progress=SILENT)
    assert isinstance(found, TargetError)
    return str(found)


def test_errors_of_the_process_come_back_in_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    words = _failure(Subject("onnxruntime", broken), {})
    assert re.search(r"broken\.onnx fails in a fresh process: ONNX Runtime cannot load", words)


def test_a_killed_process_is_named(tmp_path: Path) -> None:
    inputs: dict[str, Array] = {"x": np.ones((1, 4), np.float32)}
    for way, words in (
        ("kill", r"it was ended by SIGKILL \(the system may be out of memory\)\."),
        ("exit", r"it exited with 7\."),
        ("defect", r"RuntimeError: a defect\."),
    ):
        subject = Subject(f"tests.support.bench_runners:{way}", tmp_path)
        assert re.search(words, _failure(subject, inputs))


def test_a_slow_process_is_given_up(tmp_path: Path) -> None:
    hasty = BenchOptions(processes=1, process_timeout=0.01)
    assert "in a fresh process took more than 0.01 s" in _failure(Subject("onnxruntime", tmp_path), {}, hasty)


def test_inputs_round_trip(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {
        "a/b.c:0": np.arange(6, dtype=np.int64).reshape(2, 3),
        "flag": np.array(True),
        "half": np.array([1.5], np.float16),
        "text": np.array(["one", "zwei"], dtype=object),
    }
    save_inputs(tmp_path / "inputs.npz", arrays)
    back = load_inputs(tmp_path / "inputs.npz")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_peak_counts_anew_after_a_reset() -> None:
    """Memory that was freed before the reset does not count."""
    script = (
        "import json, numpy as np; from edgeq.memory import *\n"
        "x = np.ones(30_000_000); del x\n"
        "before, peak = reset_peak()\n"
        "print(json.dumps([before, peak, peak_bytes()]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=120)
    before, peak, after = json.loads(done.stdout)
    assert peak > before + 200e6
    if sys.platform == "linux":
        assert after < before + 50e6
    assert peak_bytes() > 10e6
