"""The one place that imports coremltools: it warns about torch and about macOS libraries on every import."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import Any

from edgeq.errors import MissingExtraError


@cache
def coremltools() -> Any:
    """The module ``coremltools``, imported without its chatter.

    Raises:
        MissingExtraError: it is not installed.
    """
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools as ct
    except ImportError as error:
        raise MissingExtraError("Target 'coreml'", "coreml") from error
    finally:
        logger.setLevel(level)
    return ct


@cache
def builder() -> Any:
    """The MIL builder (``mb``)."""
    coremltools()
    from coremltools.converters.mil import Builder

    return Builder


@cache
def mil_types() -> Any:
    """The MIL types module (``types.fp32``, …)."""
    coremltools()
    from coremltools.converters.mil.mil import types

    return types
