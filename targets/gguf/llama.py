"""llama.cpp through llama-cpp-python's ctypes functions: loading, running, tokenizing; silent."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.calibration.types import Array
from edgeq.errors import MissingExtraError, ModelError, TargetError

Floats = npt.NDArray[np.float32]

# ggml's level of errors; what is below says how loading goes on.
_ERROR = 4
# The context grows in such steps: a longer sequence needs a new one.
_CONTEXT_STEP = 256
_UBATCH = 512


def is_installed() -> bool:
    """Whether llama-cpp-python is there."""
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None


def installed_version() -> str | None:
    """The version of llama-cpp-python; None: it is not there."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return None


def library() -> Any:
    """The module ``llama_cpp``; raises MissingExtraError."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError("Running GGUF files", "llama-cpp") from error
    return llama_cpp


@contextlib.contextmanager
def silence() -> Iterator[list[str]]:
    """Keep llama.cpp from writing to stderr; the list collects the errors that it would have written."""
    lib = library()
    errors: list[str] = []

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def collect(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        if level == _ERROR:
            errors.append(text.decode("utf-8", "replace").strip())

    before, data = lib.llama_log_callback(), ctypes.c_void_p()
    lib.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    lib.llama_log_set(collect, ctypes.c_void_p(0))
    try:
        yield errors
    finally:
        lib.llama_log_set(before, data)


class LlamaModel:
    """A GGUF file in llama.cpp, mapped into memory, with one context that grows as it must."""

    def __init__(
        self, path: Path, *, threads: int, vocabulary_only: bool = False, exact_cache: bool = False
    ) -> None:
        """Load ``path``; ``exact_cache`` keeps keys and values in float32 (else float16, as users do).

        Raises:
            MissingExtraError: llama-cpp-python is not installed.
            ModelError: llama.cpp refuses the file.
        """
        self._lib = library()
        self._threads = threads
        self._exact = exact_cache
        self._context: Any = None
        self._size = 0
        parameters = self._lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.load_mode = self._lib.LLAMA_LOAD_MODE_MMAP
        parameters.vocab_only = vocabulary_only
        with silence() as errors:
            self._lib.llama_backend_init()
            self._model = self._lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            said = errors[0] if errors else "it does not say why"
            raise ModelError(f"llama.cpp cannot load {path}: {said}.", fix="Compile the model again.")
        self._vocabulary = self._lib.llama_model_get_vocab(self._model)
        self.tokens = int(self._lib.llama_vocab_n_tokens(self._vocabulary))

    def tokenize(self, text: str) -> list[int]:
        """The tokens of ``text`` without those that begin and end it."""
        data = text.encode("utf-8")
        found = (self._lib.llama_token * (len(data) + 16))()
        with silence():
            count = self._lib.llama_tokenize(
                self._vocabulary, data, len(data), found, len(found), False, True
            )
        return list(found[:count])

    def logits(self, tokens: Array) -> Floats:
        """Read int64 ``tokens`` [sequence] from the start: the logits of all [sequence, vocabulary].

        Raises:
            TargetError: llama.cpp fails.
        """
        self.forget(len(tokens))
        return self._decode(tokens, 0, len(tokens))

    def forget(self, size: int) -> None:
        """Empty the cache, and make room for ``size`` tokens."""
        lib = self._lib
        if self._context is not None and size <= self._size:
            lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
            return
        self._free_context()
        parameters = lib.llama_context_default_params()
        self._size = -(-max(size, 1) // _CONTEXT_STEP) * _CONTEXT_STEP
        parameters.n_ctx = parameters.n_batch = self._size
        parameters.n_ubatch = min(self._size, _UBATCH)
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.no_perf = True
        if self._exact:
            # Fused attention rounds to float16 inside.
            parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
            parameters.type_k = parameters.type_v = lib.GGML_TYPE_F32
        with silence() as errors:
            self._context = lib.llama_init_from_model(self._model, parameters)
        if not self._context:
            self._context = None
            said = errors[0] if errors else "it does not say why"
            raise TargetError(f"llama.cpp cannot make a context of {self._size} tokens: {said}.")

    def read(self, tokens: Array, position: int) -> Floats:
        """Read ``tokens`` behind ``position`` others: the logits behind the last one [vocabulary]."""
        return np.asarray(self._decode(tokens, position, 1)[0], np.float32)

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        self._free_context()
        if self._model:
            with silence():
                self._lib.llama_model_free(self._model)
            self._model = None

    def _decode(self, tokens: Array, position: int, outputs: int) -> Floats:
        lib, count = self._lib, len(tokens)
        if position + count > self._size:
            raise TargetError(
                f"{position + count} tokens do not fit into the context of {self._size}.",
                fix="Say with start() how many tokens follow.",
            )
        batch = lib.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for index in range(count):
                batch.token[index] = int(tokens[index])
                batch.pos[index] = position + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = index >= count - outputs
            with silence() as errors:
                status = lib.llama_decode(self._context, batch)
        finally:
            lib.llama_batch_free(batch)
        if status != 0:
            said = errors[0] if errors else f"status {status}"
            raise TargetError(f"llama.cpp fails on {count} tokens: {said}.")
        pointer = lib.llama_get_logits(self._context)
        found: Floats = np.ctypeslib.as_array(pointer, (outputs, self.tokens)).astype(np.float32, copy=True)
        return found

    def _free_context(self) -> None:
        if self._context is not None:
            with silence():
                self._lib.llama_free(self._context)
            self._context = None
            self._size = 0
