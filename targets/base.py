"""What a target is: capabilities as data, a build step, a verifier and a runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from edgeq.calibration.types import Array, Arrays, DataSource, TensorSpec
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.capabilities import QUANTIZED, Capabilities

# Only types: a fresh process that opens a runner must not pay for importing the compiler.
if TYPE_CHECKING:
    from edgeq.benchmarks.measurement import Measurement
    from edgeq.benchmarks.options import BenchOptions
    from edgeq.compiler.model import Model
    from edgeq.compiler.plan import Plan
    from edgeq.compiler.quantize.dispatch import Request
    from edgeq.compiler.quantize.result import Quantized
    from edgeq.compiler.recipe import Recipe, Scheme
    from edgeq.compiler.weights.store import WeightStore


@dataclass(frozen=True)
class Availability:
    """Whether this machine can build for (and run) a target, else the one command that makes it ready."""

    ready: bool
    detail: str
    fix: str | None = None


# What a node may be besides a precision: without a kernel of its own; float arithmetic on weights that are
# stored in INT8; planned quantized, and nothing tells.
REMOVED, STORED_INT8, UNPROVEN = "removed", "int8-weight", "unproven"


@dataclass(frozen=True)
class NodeResult:
    """What the runtime really does with a node: ``planned`` against ``actual`` precision, and the kernel.

    ``actual`` is a precision, :data:`REMOVED`, :data:`STORED_INT8` or :data:`UNPROVEN`.
    """

    name: str
    op_type: str
    planned: str
    actual: str
    kernel: str
    reason: str
    asked: bool = False

    @property
    def missed(self) -> bool:
        """Planned quantized, but runs in float, or nothing proves that it does not."""
        return self.planned in QUANTIZED and self.actual in ("fp32", "fp16", "bf16", UNPROVEN)


Outcome = Literal["fails", "wrong", "float", "slow", "note"]


@dataclass(frozen=True)
class Finding:
    """What a linter says of one node of a quantized model, before anything is built.

    ``outcome``: the build ``fails``; the node runs in ``float`` although it is quantized; results are
    ``wrong`` without a message; it is ``slow``; or only a ``note``. ``mend`` says what to do about it.
    """

    rule: str
    outcome: Outcome
    node: str
    op_type: str
    what: str
    mend: str


@dataclass(frozen=True)
class Check:
    """One statement about an artefact that was put to the test.

    ``passed`` None: it could not be tried, for the reason in ``found``; it counts neither way.
    """

    name: str
    passed: bool | None
    found: str
    wanted: str


@dataclass(frozen=True)
class BuildJob:
    """Everything that a build may need.

    ``model`` is the quantized ONNX model, ``options`` what :meth:`Target.options` returned. ``samples`` are
    real inputs of single inferences to compare numbers on, empty without data; ``sampled_from`` says whose.
    ``data`` is the whole of that data, for what needs more than a few samples. ``original`` is the model as
    it was loaded; ``weights`` are the quantized ones of a checkpoint; ``calibration`` and ``evaluation`` are
    the data as given, for targets that quantize themselves.
    """

    model: Model
    plan: Plan
    recipe: Recipe
    options: Any = None
    samples: tuple[Arrays, ...] = ()
    sampled_from: str = ""
    data: DataSource | None = None
    original: Model | None = None
    weights: WeightStore | None = None
    calibration: DataSource | None = None
    evaluation: DataSource | None = None
    threads: int | None = None
    progress: Progress = field(default_factory=SilentProgress)


@dataclass(frozen=True)
class BuildResult:
    """Files written (relative to the artefact folder) and what the application must know to load them.

    ``files`` ship; ``evidence`` stays with the artefact so that it can be verified again. ``checks`` are what
    the build has proved of the written files, and ``proved_by`` says in words what ran them. ``plan`` is what
    a build planned that quantizes by itself, None: it kept the job's.
    """

    files: tuple[str, ...]
    load_hints: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    proved_by: str = ""
    plan: Plan | None = None


@dataclass(frozen=True)
class Measurable:
    """Which parts of the harness this machine can measure of a target, and why not the others."""

    parts: frozenset[str]
    reason: str = ""


@dataclass(frozen=True)
class DeviceReport:
    """What a runner has measured on a device of its own (a GPU); ``findings`` are shown in red."""

    measurements: tuple[Measurement, ...]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Runner(Protocol):
    """Runs an artefact: dict of arrays in, dict of arrays out."""

    @property
    def inputs(self) -> list[TensorSpec]: ...

    @property
    def outputs(self) -> list[TensorSpec]: ...

    def run(self, inputs: Arrays) -> dict[str, Array]: ...

    def close(self) -> None: ...


@runtime_checkable
class DeviceRunner(Protocol):
    """A runner with a device that has a clock of its own."""

    def measure_device(
        self, original: Path | None, feeds: Sequence[Arrays], options: BenchOptions, progress: Progress
    ) -> DeviceReport:
        """Time the artefact beside float versions of ``original``: the FP32 model or a folder with it."""


@runtime_checkable
class RecallingRunner(Runner, Protocol):
    """A runner that can keep what it computes on the disk, for later runners of the same model."""

    def recalling(self, folder: Path) -> Runner:
        """The same model in a runner that answers inputs it has seen from ``folder``, bit for bit alike.

        Its times mean nothing. It is to be closed as well.
        """


@runtime_checkable
class GeneratingRunner(Runner, Protocol):
    """A language model's runner with a cache, so that it can go on token by token."""

    def start(self, prompt: Array, new_tokens: int) -> Array:
        """Forget what was read before and read ``prompt``, int64 [tokens].

        ``new_tokens``: so many steps follow at most, for engines that set memory aside.

        Returns:
            The logits that predict the next token, float32 [vocabulary].

        Raises:
            TargetError: the runner is closed, or the engine fails.
        """

    def step(self, token: int) -> Array:
        """Read one token more; the logits that predict the next one, float32 [vocabulary].

        Raises:
            TargetError: nothing was started, or the engine fails.
        """


# Quantizes the normalized model of a request by other rules than edgeq's.
Quantizer: TypeAlias = "Callable[[Request], Quantized]"


class Target(Protocol):
    """One hardware target. Instances are cheap; heavy imports happen inside the methods."""

    name: str
    title: str
    extra: str | None

    def availability(self) -> Availability: ...

    def capabilities(self, options: Any = None) -> Capabilities:
        """What the target can do; ``options`` (see :meth:`options`) may choose among its forms."""
        ...

    def options(self, given: Mapping[str, str], recipe: Recipe) -> Any:
        """The target's own options from what the user wrote as KEY=VALUE, checked before any work.

        Raises:
            ConfigError: an unknown key or a value that is not valid.
            TargetError: the recipe cannot be built with them.
        """
        ...

    def lint(self, model: Model, options: Any) -> list[Finding] | None:
        """What the target would make of a quantized ONNX model, without building; None: it has no linter."""
        ...

    def check_model(self, model: Model, options: Any) -> None:
        """Refuse, before any work, options that do not fit ``model`` or this machine.

        Raises:
            ConfigError: an option names what the model does not have.
            TargetError: nothing here builds what the options ask for.
        """
        ...

    def quantizer(self, options: Any) -> Quantizer | None:
        """What quantizes in place of edgeq's own methods; None: they do.

        A target whose build quantizes by itself returns the model as it is, and the build the plan.
        """
        ...

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write the native files of the quantized model into ``folder`` (which exists and is empty).

        Raises:
            TargetError: the target cannot express the model, or what was written does not verify.
        """
        ...

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """Say for every planned node in which precision it really runs."""
        ...

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """Prove the artefact in ``folder`` again, from its evidence."""
        ...

    def measurable(self) -> Measurable:
        """What the harness can measure on this machine."""
        ...

    def shares(self, folder: Path) -> Mapping[str, float]:
        """Metric → share (0 to 1) of the operations that run on each kind of processor; empty: unknown."""
        ...

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """Load the artefact with the target's runtime (or its verifier's interpreter)."""
        ...

    def machine_note(self, scheme: Scheme) -> str | None:
        """What this machine's kernels mean for the scheme, measured now; None: nothing to say."""
        ...

    def runner_kind(self) -> str:
        """``runtime`` when :meth:`runner` is the real runtime, else what stands in for it."""
        ...
