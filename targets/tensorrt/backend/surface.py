"""Every name, enum member and signature of TensorRT's Python API that is used here, checked against a module.

``python -m edgeq.targets.tensorrt.backend.surface tensorrt`` prints what is missing or differs, a line each.
Modules are imported in a process of their own. Read with the bindings of TensorRT 10.0 to 11.4 and of
TensorRT for RTX 1.7.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.names import PROPERTY, SHARED, SINCE, WITH_RTX, Names

_SECONDS = 120
_RTX = "tensorrt_rtx"


@dataclass(frozen=True)
class _Signature:
    """Arguments of one overload, ``required`` of them without a default."""

    arguments: tuple[str, ...]
    required: int

    def takes(self, used: tuple[str, ...]) -> bool:
        return self.arguments[: len(used)] == used and self.required <= len(used)


def check_surface(module: str) -> list[str]:
    """What ``module`` (``tensorrt`` or ``tensorrt_rtx``) lacks, found out in another process.

    Raises:
        TargetError: the module cannot be imported, or crashes.
    """
    command = [sys.executable, "-m", "edgeq.targets.tensorrt.backend.surface", module]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"Importing {module} took more than {_SECONDS} s.") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise TargetError(f"{module} cannot be imported: {last}.")
    return done.stdout.splitlines()


def surface_problems(module: Any) -> list[str]:
    """What an imported module lacks of the API that is used here, a sentence each; empty: it fits."""
    version = tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:2])
    rtx = module.__name__ == _RTX
    used: dict[str, Names] = {owner: dict(names) for owner, names in SHARED.items()}
    for owner, names in WITH_RTX.items() if rtx else ():
        used.setdefault(owner, {}).update(names)
    return [
        problem
        for owner, names in used.items()
        for name, arguments in names.items()
        if rtx or version >= SINCE.get(f"{owner}.{name}", SINCE.get(owner, (0, 0)))
        for problem in _problems(module, owner, name, arguments)
    ]


def _problems(module: Any, owner: str, name: str, arguments: tuple[str, ...] | None) -> Iterator[str]:
    found = getattr(getattr(module, owner, None) if owner else module, name, None)
    title = f"{owner}.{name}" if owner else name
    if found is None:
        yield f"{title} is missing in {module.__name__} {module.__version__}."
    elif arguments is PROPERTY and callable(found) and not isinstance(found, type):
        yield f"{title} is a method."
    elif arguments is not PROPERTY:
        overloads = list(_signatures(name, found.__doc__ or ""))
        if not any(overload.takes(arguments) for overload in overloads):
            says = " or ".join(f"({', '.join(overload.arguments)})" for overload in overloads)
            yield f"{title} takes {says}, and is called with ({', '.join(arguments)})."


def _signatures(name: str, documentation: str) -> Iterator[_Signature]:
    """The overloads in a docstring of pybind11, without ``self``."""
    for line in documentation.splitlines():
        found = re.match(rf"(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", line.strip())
        if found:
            parameters = re.findall(r"(?:^|, )(\w+): ([^,]*)", found[1])
            own = [(argument, rest) for argument, rest in parameters if argument != "self"]
            required = sum(" = " not in rest for _, rest in own)
            yield _Signature(tuple(argument for argument, _ in own), required)


if __name__ == "__main__":
    print("\n".join(surface_problems(import_module(sys.argv[1]))), end="")  # noqa: T201
