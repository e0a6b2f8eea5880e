"""Calibration and evaluation data: one source kind per module, opened by :func:`open_data`."""

from edgeq.calibration.data.open import open_data
from edgeq.calibration.data.options import DataOptions

__all__ = ["DataOptions", "open_data"]
