"""``edgeq.toml``: one model, its data, and every target that it must be built for, with budgets.

Relative paths are relative to the file. Unknown keys are errors.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeq.benchmarks.budgets import Budget, parse_budget
from edgeq.benchmarks.metric_info import is_custom
from edgeq.benchmarks.options import BenchOptions, Part
from edgeq.calibration.data.options import DataOptions
from edgeq.calibration.preprocess import PRESETS, Preprocessing, parse_preprocessing
from edgeq.candidates import candidates
from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, EdgeqError
from edgeq.recipes import exclusions, make_recipe
from edgeq.targets.registry import split_targets
from edgeq.validation import config_error, first_problem, key_text


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessSection(Preprocessing):
    """``[data.preprocess]``: a preset and the fields that differ from it."""

    preset: str | None = None


class DataSection(DataOptions):
    """``[data]``: calibration and evaluation data, and how they are read."""

    calibration: str | None = None
    evaluation: str | None = None
    metrics: tuple[str, ...] = ()
    # A union would make pydantic explain why each alternative failed; the right one is validated by hand.
    preprocess: str | dict[str, Any] | None = None


class ReportSection(_Section):
    """``[report]``: the files that ``edgeq check`` writes; None writes none."""

    junit: Path | None = None
    json_file: Path | None = Field(default=None, alias="json")


class BenchSection(_Section):
    """``[bench]``: how thorough to measure; the fields of :class:`BenchOptions` that people change."""

    quick: bool = False
    parts: tuple[Part, ...] | None = Field(default=None, min_length=1)
    batch_size: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1)
    min_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    processes: int | None = Field(default=None, ge=1)
    prompt_tokens: int | None = Field(default=None, ge=1)
    new_tokens: int | None = Field(default=None, ge=1)
    lm_eval_tasks: tuple[str, ...] = ()

    def options(self, folder: Path) -> BenchOptions:
        """The options, with the fields that the file does not set at their defaults.

        Tasks are relative to ``folder``.
        """
        base = BenchOptions.quick() if self.quick else BenchOptions()
        given = self.model_dump(exclude_none=True, exclude={"quick", "lm_eval_tasks"})
        return replace(base, **given, tasks=tuple(str(folder / path) for path in self.lm_eval_tasks))


class TargetSection(Recipe):
    """One ``[[targets]]``: a target or several, a recipe, and the budgets that only they have."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    # A union would make pydantic explain why each alternative failed.
    target: Any = "onnxruntime"
    budgets: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    strict: bool | None = None


class File(_Section):
    """The whole file, as written."""

    model: str
    output: str | None = None
    overwrite: bool = False
    strict: bool = False
    threads: int | None = Field(default=None, ge=1)
    task: str | None = None
    budgets: tuple[str, ...] = ()
    data: DataSection = DataSection()
    bench: BenchSection = BenchSection()
    report: ReportSection = ReportSection()
    targets: tuple[TargetSection, ...] = Field(min_length=1)


@dataclass(frozen=True)
class TargetEntry:
    """One build: ``output`` is what :func:`edgeq.compile` appends the target's name to."""

    name: str
    target: str
    recipe: Recipe
    budgets: tuple[Budget, ...]
    output: Path
    strict: bool
    options: Mapping[str, str]


@dataclass(frozen=True)
class Config:
    """``edgeq.toml`` with its paths resolved and every value checked."""

    path: Path
    model: str
    targets: tuple[TargetEntry, ...]
    calibration: str | None
    evaluation: str | None
    metrics: tuple[str, ...]
    preprocessing: Preprocessing | None
    data_options: DataOptions
    bench: BenchOptions
    overwrite: bool
    threads: int | None
    task: str | None
    junit: Path | None
    json_file: Path | None


def load_config(path: Path) -> Config:
    """Read and check ``edgeq.toml``.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds something that is not allowed; the
            message names the file, the key and what is allowed there.
        UsageError: an unknown scheme, or a recipe key that the scheme does not read.
    """
    data = _read_toml(path)
    try:
        file = File.model_validate(data)
    except ValidationError as error:
        raise config_error(error, where=path.name, allowed=_allowed(error)) from error
    return _Resolved(path, file).config()


def read_preprocessing(value: str, base: Path = Path()) -> Preprocessing:
    """Preprocessing from a preset, ``field=value`` words, or a ``.json`` or ``.toml`` file of fields.

    Raises:
        ConfigError: none of these, or a value that is not valid.
    """
    if value.endswith((".json", ".toml")):
        return _preprocessing_file(base / value)
    return parse_preprocessing(value)


def _preprocessing_file(path: Path) -> Preprocessing:
    return _from_table(_read_toml(path) if path.suffix == ".toml" else _read_json(path), path.name)


def _from_table(table: Any, where: str) -> Preprocessing:
    try:
        section = PreprocessSection.model_validate(table)
    except ValidationError as error:
        raise config_error(error, where=where, allowed=list(PreprocessSection.model_fields)) from error
    fields = section.model_dump(exclude_unset=True, exclude={"preset"})
    if section.preset is None:
        return Preprocessing.model_validate(fields)
    if section.preset not in PRESETS:
        raise ConfigError(
            f"{where}: unknown preset {section.preset!r}.", fix=f"Known presets: {', '.join(PRESETS)}."
        )
    return Preprocessing.model_validate(PRESETS[section.preset].model_dump() | fields)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        fix = "Write one with: edgeq init MODEL" if path.name == "edgeq.toml" else "Check the path."
        raise ConfigError(f"{path} does not exist.", fix=fix) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", fix="Give a readable UTF-8 file.") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is no valid TOML: {error}.", fix="Correct that place.") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path.name} is no valid JSON: {error}.", fix="Correct that place.") from error


_SECTIONS: dict[str, type[BaseModel]] = {
    "bench": BenchSection,
    "data": DataSection,
    "report": ReportSection,
    "targets": TargetSection,
}


def _allowed(error: ValidationError) -> list[str]:
    """The keys of the section that the first problem is in."""
    location = first_problem(error)["loc"]
    section: type[BaseModel] = _SECTIONS.get(str(location[0]), File) if len(location) > 1 else File
    return [field.alias or name for name, field in section.model_fields.items()]


@dataclass(frozen=True)
class _Resolved:
    """Turns the file as written into checked values."""

    path: Path
    file: File

    @property
    def base(self) -> Path:
        return self.path.resolve().parent

    def config(self) -> Config:
        file, data = self.file, self.file.data
        sections = [self.entries(index, section) for index, section in enumerate(file.targets)]
        self.check_distinct(sections)
        targets = tuple(entry for entries in sections for entry in entries)
        return Config(
            path=self.path,
            model=self.location(file.model),
            targets=targets,
            calibration=None if data.calibration is None else self.location(data.calibration),
            evaluation=None if data.evaluation is None else self.location(data.evaluation),
            metrics=data.metrics,
            preprocessing=self.preprocessing(),
            data_options=self.data_options(),
            bench=file.bench.options(self.base),
            overwrite=file.overwrite,
            threads=file.threads,
            task=file.task,
            junit=self.optional(file.report.junit),
            json_file=self.optional(file.report.json_file),
        )

    def location(self, text: str) -> str:
        """A path relative to the file; ``module:callable`` stays as it is."""
        if is_custom(text) and not (self.base / text).exists():
            return text
        return str(self.base / Path(text).expanduser())

    def optional(self, path: Path | None) -> Path | None:
        return None if path is None else self.base / path

    def entries(self, index: int, section: TargetSection) -> list[TargetEntry]:
        """One for each target of the section."""
        key = key_text(("targets", index))
        given = section.model_dump(exclude_unset=True, include=set(Recipe.model_fields) - {"scheme"})
        if section.exclude:
            given["overrides"] = (*exclusions(section.exclude), *section.overrides)
        with _located(f"{self.path.name}: {key}"):
            recipe = make_recipe(section.scheme, given, where=key)
        name = section.name or section.scheme
        options = {option: self.option(value) for option, value in section.options.items()}
        with _located(f"{self.path.name}: {key}"):
            found = candidates(_targets(section.target), (), options, recipe)
        return [
            TargetEntry(
                name=name,
                target=candidate.target,
                recipe=recipe,
                budgets=self.budgets(key, section),
                output=self.base / f"{self.output}-{name}",
                strict=self.file.strict if section.strict is None else section.strict,
                options=candidate.options,
            )
            for candidate in found
        ]

    def option(self, value: str | float | bool) -> str:
        """A target's option as the command line would give it; files are relative to this file."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str) and value and (self.base / value).is_file():
            return str(self.base / value)
        return str(value)

    @property
    def output(self) -> str:
        if self.file.output is not None:
            return self.file.output
        return f"build/{Path(self.file.model.partition(':')[0]).stem}"

    def budgets(self, key: str, section: TargetSection) -> tuple[Budget, ...]:
        """The file's budgets, then the target's own; its own replace the file's on the same metric."""
        own = self.parsed(f"{key}.budgets", section.budgets)
        metrics = {budget.metric for budget in own}
        common = self.parsed("budgets", self.file.budgets)
        return (*(budget for budget in common if budget.metric not in metrics), *own)

    def parsed(self, key: str, texts: Sequence[str]) -> list[Budget]:
        found = []
        for index, text in enumerate(texts):
            with _located(f"{self.path.name}: {key}[{index + 1}]"):
                found.append(parse_budget(text))
        return found

    def preprocessing(self) -> Preprocessing | None:
        declared = self.file.data.preprocess
        if declared is None:
            return None
        where = f"{self.path.name}: data.preprocess"
        if not isinstance(declared, str):
            return _from_table(declared, where)
        with _located(where):
            return read_preprocessing(declared, self.base)

    def data_options(self) -> DataOptions:
        fields = self.file.data.model_dump(exclude_unset=True, include=set(DataOptions.model_fields))
        if fields.get("tokenizer") is not None:
            fields["tokenizer"] = self.base / fields["tokenizer"]
        return DataOptions.model_validate(fields)

    def check_distinct(self, sections: Sequence[Sequence[TargetEntry]]) -> None:
        """Two entries must not write the same folder."""
        seen: set[tuple[str, str]] = set()
        for index, entry in [(i, entry) for i, entries in enumerate(sections) for entry in entries]:
            if (entry.name, entry.target) in seen:
                raise ConfigError(
                    f"{self.path.name}: {key_text(('targets', index))} is the second target "
                    f"{entry.target!r} called {entry.name!r}.",
                    fix='Give each one its own name, such as name = "int8-minmax".',
                )
            seen.add((entry.name, entry.target))


def _targets(value: Any) -> list[str]:
    """The names in ``target``: a text or a list of texts, families too; the check looks them up."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"The target is {value!r}.", fix='Write "onnxruntime", "all-cpu" or ["onnxruntime", "openvino"].'
        )
    return split_targets(texts)


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Puts the place in the file in front of an error's message."""
    try:
        yield
    except EdgeqError as error:
        raise type(error)(f"{where}: {error.what}", fix=error.fix) from error
