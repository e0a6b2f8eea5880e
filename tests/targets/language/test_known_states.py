"""States on the disk give the logits of the whole model, bit for bit, or none are kept."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.targets.language.float_runner import open_float
from edgeq.targets.language.known_states import KnownStates
from edgeq.targets.language.runner import LanguageRunner
from tests.support.tiny_decoders import FAMILIES, tiny_decoder

pytest.importorskip("transformers")

IDS = np.random.default_rng(0).integers(3, 256, (2, 24), dtype=np.int64)
OTHERS = IDS[:, ::-1].copy()


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("models") / request.param
    tiny_decoder(request.param, place)
    return place


@contextmanager
def layers_run(runner: LanguageRunner) -> Iterator[list[int]]:
    """One entry for each time that the first decoder layer runs inside."""
    import torch

    seen: list[int] = []
    layer = next(part[0] for part in runner._model.modules() if isinstance(part, torch.nn.ModuleList))
    handle = layer.register_forward_hook(lambda *_: seen.append(1))
    try:
        yield seen
    finally:
        handle.remove()


def logits(runner: LanguageRunner, ids: np.ndarray = IDS) -> Any:
    return runner.run({"input_ids": ids})["logits"]


def test_the_second_time_only_the_output_layer_runs(folder: Path, tmp_path: Path) -> None:
    with open_float(folder, threads=1) as plain:
        wanted, others = logits(plain), logits(plain, OTHERS)
        (tmp_path / "states").mkdir()
        with plain.recalling(tmp_path / "states") as first:
            np.testing.assert_array_equal(logits(first), wanted)
        with plain.recalling(tmp_path / "states") as again, layers_run(again) as seen:
            np.testing.assert_array_equal(logits(again), wanted)
            assert not seen
            # Other ids, and the same ones in another shape, are other inputs.
            np.testing.assert_array_equal(logits(again, OTHERS), others)
            np.testing.assert_allclose(logits(again, IDS[:1]), wanted[:1], rtol=1e-4, atol=1e-5)
        # The runner it was made from computes, as it may be timed.
        with layers_run(plain) as seen:
            np.testing.assert_array_equal(logits(plain), wanted)
            assert len(seen) == 1


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[LanguageRunner]:
    tiny_decoder("llama", tmp_path / "llama")
    with open_float(tmp_path / "llama", threads=1) as runner:
        yield runner


@pytest.fixture
def states(tmp_path: Path) -> Path:
    folder = tmp_path / "states"
    folder.mkdir()
    return folder


def _array(shape: tuple[int, ...], dtype: type) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [b"", b"\x93NUMPY", b"no array at all", _array((2, 3, 64), np.float32), _array((2, 24, 64), int)],
)
def test_a_damaged_file_is_made_again(llama: LanguageRunner, states: Path, damage: bytes) -> None:
    wanted = logits(llama)
    with llama.recalling(states) as first:
        logits(first)
    (file,) = states.iterdir()
    file.write_bytes(damage)
    with llama.recalling(states) as again:
        np.testing.assert_array_equal(logits(again), wanted)
    assert np.load(file).shape == (*IDS.shape, 64)


def test_nothing_is_kept_where_logits_come_from_more_than_states(llama: LanguageRunner, states: Path) -> None:
    """Logits with something of the embeddings: what the states alone give is not what the model says."""
    model = llama._model
    forward = model.forward

    def both(input_ids: Any, **options: Any) -> Any:
        found = forward(input_ids=input_ids, **options)
        known = "forward" in vars(model.get_decoder())
        found.logits = found.logits + (0 if known else model.get_input_embeddings()(input_ids).sum())
        return found

    model.forward = both
    wanted = logits(llama)
    with llama.recalling(states) as runner, layers_run(runner) as seen:
        for _ in range(3):
            np.testing.assert_array_equal(logits(runner), wanted)
        assert len(seen) == 3
    assert not list(states.iterdir())


def test_a_model_that_reads_more_than_states_is_run_as_it_is(llama: LanguageRunner, states: Path) -> None:
    """``outputs[1]`` of an answer that has states alone: the runner's error is no error of the model."""
    model = llama._model
    forward, decoder = model.forward, model.get_decoder()

    def reading(input_ids: Any, **options: Any) -> Any:
        if "forward" in vars(decoder):
            decoder(input_ids=input_ids)[1]
        return forward(input_ids=input_ids, **options)

    model.forward = reading
    wanted = logits(llama)
    with llama.recalling(states) as runner:
        for _ in range(2):
            np.testing.assert_array_equal(logits(runner), wanted)
    assert not list(states.iterdir())


@pytest.mark.parametrize(
    "more", [{"limit": IDS.size * 64 * 4 + 200}, {"limit": 10**9, "reserve": 2**60}], ids=["limit", "reserve"]
)
def test_no_more_is_kept_than_there_is_room_for(
    llama: LanguageRunner, states: Path, more: dict[str, int]
) -> None:
    """Also of several runners, one after the other."""
    for ids in (IDS, OTHERS, IDS[:, ::2].copy()):
        llama._known = KnownStates(llama._model, states, **more)
        logits(llama, ids)
    assert len(list(states.iterdir())) == (0 if "reserve" in more else 1)


def test_a_disk_that_gets_full_costs_no_results(
    llama: LanguageRunner, states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, others = logits(llama), logits(llama, OTHERS)
    with llama.recalling(states) as runner:
        np.testing.assert_array_equal(logits(runner), wanted)

        def full(place: Path, _states: Any) -> None:
            place.write_bytes(b"the first bytes")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("edgeq.targets.language.known_states.np.save", full)
        np.testing.assert_array_equal(logits(runner, OTHERS), others)
        # What is in the way of artefacts goes.
        assert not list(states.iterdir())
        np.testing.assert_array_equal(logits(runner), wanted)


def test_a_folder_that_is_not_there_costs_no_results(llama: LanguageRunner, tmp_path: Path) -> None:
    wanted = logits(llama)
    with llama.recalling(tmp_path / "nowhere") as runner:
        np.testing.assert_array_equal(logits(runner), wanted)
