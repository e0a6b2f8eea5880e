"""The decorator of loops that numba compiles; importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """``function`` as machine code, cached on disk, without the interpreter lock."""
    return cast(_F, njit(cache=True, nogil=True)(function))
