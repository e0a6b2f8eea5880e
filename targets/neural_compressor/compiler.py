"""The C++ compiler that PyTorch's compiler needs."""

from __future__ import annotations

import os
import shutil
import subprocess

from edgeq.errors import TargetError

_FIX = "Install one (apt-get install g++), or name another one (CXX=clang++)."
# Needs the standard library's headers, which may be missing where the compiler is there.
_PROGRAM = b"#include <vector>\nstd::vector<int> numbers;\n"


def require_compiler() -> str:
    """The path of the C++ compiler that ``CXX`` names, else of g++.

    Raises:
        TargetError: there is none, or it compiles nothing.
    """
    name = os.environ.get("CXX") or "g++"
    found = shutil.which(name)
    if found is None:
        raise TargetError(
            f"Target 'neural-compressor' compiles models with a C++ compiler, and {name} is not installed.",
            fix=_FIX,
        )
    command = [found, "-x", "c++", "-fsyntax-only", "-"]
    tried = subprocess.run(command, input=_PROGRAM, capture_output=True, check=False)
    # A program that compiles nothing may succeed all the same; PyTorch's compiler tells then.
    if tried.returncode:
        raise TargetError(
            f"Target 'neural-compressor' compiles models with a C++ compiler, and {name} cannot compile.",
            fix=_FIX,
        )
    return found
