"""The C++ compiler that PyTorch's compiler needs."""

from __future__ import annotations

import os
import shutil

from edgeq.errors import TargetError


def require_compiler() -> str:
    """The path of the C++ compiler that ``CXX`` names, else of g++.

    Raises:
        TargetError: there is none.
    """
    name = os.environ.get("CXX") or "g++"
    found = shutil.which(name)
    if found is None:
        raise TargetError(
            f"Target 'neural-compressor' compiles models with a C++ compiler, and {name} is not installed.",
            fix="Install one (apt-get install g++), or name another one (CXX=clang++).",
        )
    return found
