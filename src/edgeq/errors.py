"""The exception tree. Every user error is one of these, with its own exit code.

EdgeqError                       5
├── BudgetMissedError            1   a budget was missed
├── UsageError                   2   unknown scheme, target, metric, option
│   ├── ConfigError              2   edgeq.toml, budgets, recipes
│   │   └── UnknownOptionError   2   the target has no option of that name
│   └── OutputExistsError        2   output folder is there and --force was not given
├── ModelError                   3   the model cannot be read, is not valid, or changes when normalized
├── DataError                    3   calibration or evaluation data cannot be used
├── TargetError                  4   the target cannot do it
│   ├── MissingExtraError        4   an optional dependency is not installed
│   └── StrictError              4   --strict: something planned did not happen
└── InternalError                5   a defect of edgeq itself
"""

from __future__ import annotations

from typing import ClassVar


class EdgeqError(Exception):
    """Base of all errors that edgeq raises on purpose.

    The message says what is wrong and where; ``fix`` says what to do about it.
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, what: str, *, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return self.what if self.fix is None else f"{self.what} {self.fix}"


class BudgetMissedError(EdgeqError):
    """A budget was missed."""

    exit_code = 1


class UsageError(EdgeqError):
    """The request itself is wrong: an unknown scheme, target, metric or option value."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file, a budget or a recipe cannot be read."""


class UnknownOptionError(ConfigError):
    """A target has no option of that name."""


class OutputExistsError(UsageError):
    """The output folder exists and overwriting was not asked for."""


class ModelError(EdgeqError):
    """The model cannot be read, is not valid, or would change its results when normalized."""

    exit_code = 3


class DataError(EdgeqError):
    """Calibration or evaluation data cannot be used."""

    exit_code = 3


class TargetError(EdgeqError):
    """The target cannot do what was asked."""

    exit_code = 4


class MissingExtraError(TargetError):
    """An optional dependency is needed and not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional dependency that is not installed.",
            fix=f"Install it with: pip install 'edgeq[{extra}]'",
        )
        self.extra = extra


class StrictError(TargetError):
    """``--strict`` was given and something that was planned did not happen."""


class InternalError(EdgeqError):
    """A defect of edgeq itself."""

    exit_code = 5


def as_edgeq_error(error: Exception) -> EdgeqError:
    """``error`` itself when edgeq raised it on purpose, else the InternalError that it shows."""
    if isinstance(error, EdgeqError):
        return error
    found = InternalError(
        f"Unexpected {type(error).__name__}: {error}", fix="Repeat with --debug for the traceback."
    )
    found.__cause__ = error
    return found
