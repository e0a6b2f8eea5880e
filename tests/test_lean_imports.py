from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

_CHILD = """
import sys
from edgeq.lean_imports import import_transformers
import_transformers()
from transformers.models.llama import modeling_llama
assert "sklearn" not in sys.modules
assert "scipy.optimize" not in sys.modules
from transformers.generation import candidate_generator
from transformers.utils import is_sklearn_available
from transformers.utils import is_scipy_available
assert is_sklearn_available() and is_scipy_available()
from transformers.loss import loss_for_object_detection
print([int(x) for x in loss_for_object_detection.linear_sum_assignment([[1, 0], [0, 1]])[1]])
print([float(x) for x in candidate_generator.roc_curve([0, 1], [0.1, 0.9])[1]])
"""


@pytest.mark.slow
def test_scikit_learn_and_scipy_are_loaded_when_they_are_asked_for() -> None:
    for package in ("transformers", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1, 0]\n[0.0, 1.0, 1.0]"
