"""A language model as transformers builds it, without its weights: one decoder layer is loaded at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.compiler.load.activation import refuse_unknown_activation
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.weights.planning import LinearLayer
from edgeq.compiler.weights.spec import Floats
from edgeq.errors import MissingExtraError, ModelError, TargetError
from edgeq.lean_imports import import_transformers
from edgeq.quiet import quiet, reason

Ids = npt.NDArray[np.int64]
ReadTensor = Callable[[str], Array]
# Rows of a table by their numbers: a table is never read whole.
ReadRows = Callable[[str, Ids], Array]


@dataclass(frozen=True)
class LayerCall:
    """What the model gives a decoder layer besides its hidden states: masks, position embeddings.

    ``keyword``: the name that the hidden states are passed by, None: as the first argument.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keyword: str | None


# By the shape of a batch of token ids.
LayerCalls = dict[tuple[int, int], LayerCall]

# What a model raises whose layers return another form than it expects.
_NOT_TAKEN = (RuntimeError, IndexError, TypeError, ValueError, AttributeError)

# What transformers raises for configurations that hold other things than it expects.
_UNREADABLE = (
    OSError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _AllSeenError(Exception):
    """Ends a forward of which nothing more is needed."""


class Decoder:
    """The modules of a checkpoint's model; weights are on PyTorch's meta device unless they are loaded."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Build the modules.

        Raises:
            MissingExtraError: PyTorch or transformers is not installed.
            ModelError: configuration and tensors do not fit.
            TargetError: the model has no list of decoder layers.
        """
        self.checkpoint = checkpoint
        self.model = _skeleton(checkpoint)
        self._names: dict[int, str] = {id(module): name for name, module in self.model.named_modules()}
        self.prefix, self._layers = self._decoder_layers()
        head = self.model.get_output_embeddings()
        # Whether the output layer multiplies by the table of embeddings.
        self.tied = head is not None and head.weight is self.model.get_input_embeddings().weight
        self._check_names()

    @property
    def depth(self) -> int:
        """The number of decoder layers."""
        return len(self._layers)

    @property
    def embedding(self) -> str:
        """The name of the table of token embeddings."""
        return self._names[id(self.model.get_input_embeddings())]

    @property
    def head(self) -> str | None:
        """The name of the output layer; None where it shares the table of embeddings."""
        module = self.model.get_output_embeddings()
        return None if module is None or self.tied else self._names[id(module)]

    def unit(self, index: int) -> str:
        """The name of a decoder layer: ``model.layers.3``."""
        return f"{self.prefix}.{index}"

    def linear_layers(self) -> list[LinearLayer]:
        """The layers that multiply by a matrix, in the order of the checkpoint's tensors."""
        found = {layer.name: layer for layer in self._matrices()}
        order = [name.removesuffix(".weight") for name in self.checkpoint.tensors]
        return [found[name] for name in order if name in found]

    def _matrices(self) -> Iterator[LinearLayer]:
        import torch

        table, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        rows, width = table.weight.shape
        yield LinearLayer(self.embedding, rows, width, "Embedding")
        for name, module in self.model.named_modules():
            if not isinstance(module, torch.nn.Linear) or (self.tied and module is head):
                continue
            kind = "Router" if self._is_router(name, module) else "Linear"
            yield LinearLayer(name, module.out_features, module.in_features, kind, head=name == self.head)

    def _is_router(self, name: str, module: Any) -> bool:
        """Whether a linear layer chooses among experts, or weighs a shared one."""
        parent = self.model.get_submodule(name.rpartition(".")[0])
        experts = getattr(parent, "experts", None)
        if experts is None:
            return False
        count = len(experts) if hasattr(experts, "__len__") else 1
        return module.out_features in (count, 1)

    def layer(self, index: int) -> Any:
        """The module of a decoder layer."""
        return self._layers[index]

    @contextmanager
    def loaded(self, name: str, read: ReadTensor) -> Iterator[Any]:
        """The module ``name`` with its weights, in float32, as long as the block lasts."""
        module = self.model.get_submodule(name)
        keys = [key for key, _ in module.named_parameters()]
        try:
            _load(module, keys, f"{name}.", read)
            yield module
        finally:
            _unload(module, keys)

    def begin(self, ids: Ids, read: ReadTensor, rows: ReadRows) -> tuple[Any, list[LayerCall]]:
        """The hidden states [batch, tokens, hidden] that the first decoder layer gets, and all layers' calls.

        Raises:
            TargetError: the decoder cannot be run layer by layer.
        """
        for form in (False, True):
            found = self._caught(ids, read, rows, form)
            if found is not None:
                return found
        raise self._not_layerwise()

    def _caught(
        self, ids: Ids, read: ReadTensor, rows: ReadRows, tuples: bool
    ) -> tuple[Any, list[LayerCall]] | None:
        """What :meth:`begin` returns; ``tuples``: whether the model expects them of its layers."""
        states: list[Any] = []
        calls: list[LayerCall] = []

        def catch(*args: Any, **kwargs: Any) -> Any:
            hidden, call = _taken(args, kwargs)
            states.append(hidden)
            calls.append(call)
            if len(calls) == self.depth:
                raise _AllSeenError
            return (hidden,) if tuples else hidden

        with self._replaced(catch):
            try:
                self._run_base(ids, read, rows)
            except _AllSeenError:
                return states[0], calls
            except _NOT_TAKEN:
                return None
        return None

    def _not_layerwise(self) -> TargetError:
        return TargetError(
            f"The decoder of {self.checkpoint.architecture} cannot be run layer by layer.",
            fix="Choose the method rtn, which runs no layer.",
        )

    def end(self, ids: Ids, hidden: Any, read: ReadTensor, rows: ReadRows) -> Any:
        """What the output layer reads, where the last decoder layer returned ``hidden``."""
        for form in (False, True):
            with self._replaced(lambda *_, form=form, **__: (hidden,) if form else hidden):
                try:
                    found = self._run_base(ids, read, rows)[0]
                except _NOT_TAKEN:
                    continue
            if found.shape == hidden.shape:
                return found
        raise self._not_layerwise()

    def run(self, index: int, hidden: Any, call: LayerCall) -> Any:
        """What decoder layer ``index``, which is loaded, makes of ``hidden``."""
        args = call.args if call.keyword else (hidden, *call.args)
        kwargs = {**call.kwargs, call.keyword: hidden} if call.keyword else call.kwargs
        found = self._layers[index](*args, **kwargs)
        return found[0] if isinstance(found, tuple) else found

    def calls(self, index: int, batches: Sequence[Ids], read: ReadTensor, rows: ReadRows) -> LayerCalls:
        """What decoder layer ``index`` is called with for batches of these shapes; raises TargetError."""
        found: LayerCalls = {}
        for ids in batches:
            if ids.shape not in found:
                found[(len(ids), ids.shape[1])] = self.begin(ids, read, rows)[1][index]
        return found

    def passes(self, index: int, states: Iterable[Floats], calls: LayerCalls) -> Iterator[Callable[[], Any]]:
        """Decoder layer ``index``, which is loaded, on one batch of ``states`` after the other."""
        import torch

        for hidden in states:
            call = calls[(hidden.shape[0], hidden.shape[1])]
            yield partial(self.run, index, torch.from_numpy(hidden), call)

    def _run_base(self, ids: Ids, read: ReadTensor, rows: ReadRows) -> Any:
        import torch

        base = self.model.get_submodule(self._base)
        table = self.model.get_input_embeddings()
        # Only the rows that occur are read; the ids count them.
        used, positions = np.unique(ids, return_inverse=True)
        outside = [key for key, _ in base.named_parameters() if not self._is_inside(key)]
        try:
            _load(base, outside, f"{self._base}.", read)
            table.weight = _parameter(rows(f"{self.embedding}.weight", used))
            return base(input_ids=torch.from_numpy(positions.reshape(ids.shape)), use_cache=False)
        finally:
            _unload(base, outside)
            _unload(table, ["weight"])

    @property
    def _base(self) -> str:
        """The name of the model without its output layer."""
        return self.prefix.partition(".")[0]

    def _is_inside(self, key: str) -> bool:
        """Whether a parameter of the base model is a decoder layer's, or the table of embeddings."""
        name = f"{self._base}.{key}"
        return name.startswith(f"{self.prefix}.") or name == f"{self.embedding}.weight"

    @contextmanager
    def _replaced(self, forward: Callable[..., Any]) -> Iterator[None]:
        """All decoder layers compute ``forward`` instead; attributes that the model asks for stay."""
        for layer in self._layers:
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward

    def _decoder_layers(self) -> tuple[str, Any]:
        import torch

        depth = getattr(self.model.config, "num_hidden_layers", None)
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
                return name, module
        raise TargetError(
            f"{self.checkpoint.architecture} has no list of decoder layers, one of which could be "
            "quantized after the other."
        )

    def _check_names(self) -> None:
        wanted = {name for name, _ in self.model.named_parameters()}
        shared = {name for name, _ in self.model.named_parameters(remove_duplicate=False)} - wanted
        there = set(self.checkpoint.tensors)
        buffers = {name for name, _ in self.model.named_buffers()}
        wrong = sorted(wanted - there) + sorted(there - wanted - shared - buffers)
        if wrong:
            what = f"{wrong[0]!r} is missing" if wrong[0] in wanted else f"it has no {wrong[0]!r}"
            raise _unfit(self.checkpoint, what)
        for name, parameter in self.model.named_parameters():
            stored = self.checkpoint.tensors[name].shape
            if stored != tuple(parameter.shape):
                raise _unfit(self.checkpoint, f"{name!r} is {list(stored)}, not {list(parameter.shape)}")


def _unfit(checkpoint: Checkpoint, what: str) -> ModelError:
    return ModelError(
        f"The tensors of {checkpoint.path} do not fit its configuration: {what}.",
        fix="Download or save the model again.",
    )


def _taken(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, LayerCall]:
    """The hidden states and the rest of a decoder layer's arguments."""
    if args:
        return args[0], LayerCall(tuple(args[1:]), dict(kwargs), None)
    rest = dict(kwargs)
    return rest.pop("hidden_states"), LayerCall((), rest, "hidden_states")


def _skeleton(checkpoint: Checkpoint) -> Any:
    """The model without weights; what its modules compute of themselves (rotary tables) is there."""
    try:
        with quiet():
            import_transformers()
            import transformers
            from transformers.modeling_utils import no_init_weights
    except ImportError as error:
        raise MissingExtraError("Quantizing a language model", "llm") from error
    try:
        config = transformers.AutoConfig.from_pretrained(str(checkpoint.path), local_files_only=True)
        refuse_unknown_activation(checkpoint.path, config)
        with quiet(), _empty_on_meta(), no_init_weights():
            import torch

            model = getattr(transformers, checkpoint.architecture)._from_config(config, dtype=torch.float32)
            model.tie_weights()
    except _UNREADABLE as error:
        raise ModelError(f"{checkpoint.path} cannot be loaded: {reason(error)}.") from error
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            raise ModelError(f"{checkpoint.architecture} computes {name!r} from weights when it is built.")
    return model.eval().requires_grad_(False)


def _empty_on_meta() -> Any:
    """Tensors made by ``torch.empty``, which weights are, take no memory."""
    import torch
    from torch.overrides import TorchFunctionMode

    class EmptyOnMeta(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.empty:
                return func(*args, **{**(kwargs or {}), "device": "meta"})
            return func(*args, **(kwargs or {}))

    return EmptyOnMeta()


def _parameter(values: Array) -> Any:
    import torch

    floats = np.ascontiguousarray(values, np.float32)
    return torch.nn.Parameter(torch.from_numpy(floats), requires_grad=False)


def _load(module: Any, keys: Sequence[str], prefix: str, read: ReadTensor) -> None:
    for key in keys:
        owner, _, name = key.rpartition(".")
        setattr(module.get_submodule(owner), name, _parameter(read(prefix + key)))


def _unload(module: Any, keys: Sequence[str]) -> None:
    import torch

    for key in keys:
        owner, _, name = key.rpartition(".")
        value = getattr(module.get_submodule(owner), name)
        empty = torch.nn.Parameter(torch.empty_like(value, device="meta"), requires_grad=False)
        setattr(module.get_submodule(owner), name, empty)
