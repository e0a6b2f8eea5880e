"""NNCF as edgeq uses it: silent, without telemetry, and with Python's own state as it was before."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from edgeq.errors import MissingExtraError
from edgeq.quiet import quiet

# NNCF sends what it was called with over the network, and keeps an identity in the home folder, unless it
# runs where these say so when it is imported.
_NO_TELEMETRY = {"NNCF_CI": "1", "CI": "true"}


def require_nncf() -> None:
    """Raise when NNCF is not installed.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    if find_spec("nncf") is None:
        raise MissingExtraError("-O quantizer=nncf", "nncf")


@contextmanager
def silent_nncf() -> Iterator[Any]:
    """The module ``nncf``; what it prints, logs and draws inside is swallowed."""
    nncf = _import_nncf()
    with quiet():
        yield nncf


def _import_nncf() -> Any:
    """Import NNCF without what an import of it leaves behind: a class of loggers, a line on the screen.

    Not under :func:`quiet`: its handler of log records would write into what was swallowed for ever.
    """
    loggers, disabled = logging.getLoggerClass(), logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings(), _environment(_NO_TELEMETRY):
            warnings.simplefilter("ignore")
            return importlib.import_module("nncf")
    finally:
        logging.disable(disabled)
        logging.setLoggerClass(loggers)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
