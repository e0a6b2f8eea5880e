"""What every test gets: the repository root on ``sys.path``, fixed seeds, few threads, the opt-in data."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

# Before anything loads a native thread pool: test workers share the cores, so each one gets one thread.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test talks to a model hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# A loaded machine is no defect of the code under test.
settings.register_profile("edgeq", deadline=None)
settings.load_profile("edgeq")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take whole files unless another order is asked for: each makes a file's fixtures anew."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (for libraries that read the global state)


@pytest.fixture(scope="session")
def edgeq_data() -> Path:
    """The folder of real models and data that ``slow`` tests read; skips where there is none."""
    value = os.environ.get("EDGEQ_DATA")
    if not value:
        pytest.skip("EDGEQ_DATA is not set: real models and data are opt-in")
    folder = Path(value).resolve()
    if not (folder / "models").is_dir():
        pytest.fail(f"EDGEQ_DATA={value} holds no models/ folder")
    return folder
