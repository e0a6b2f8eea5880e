from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.compiler.load import load
from edgeq.errors import MissingExtraError, ModelError, UsageError
from tests.support.loading import Recorder, run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    fast.save_pretrained(folder)


def _bert(folder: Path) -> Path:
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=3,
    )
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).half().save_pretrained(folder)
    _tokenizer(folder)
    return folder


def _llama(folder: Path) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).half().save_pretrained(folder)
    _tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every attempt to reach the network fails and is remembered; the variables that forbid it are unset."""
    attempts: list[Any] = []

    def refuse(*args: Any, **_kwargs: Any) -> Any:
        attempts.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    yield attempts
    assert attempts == []


def _feed(model: Any, batch: int, length: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch)
    ids = rng.integers(5, len(WORDS), (batch, length))
    mask = np.ones_like(ids)
    mask[0, length - 2 :] = 0
    known = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
        "position_ids": np.broadcast_to(np.arange(length), ids.shape).copy(),
    }
    return {spec.name: known[spec.name] for spec in model.inputs}


def _agree(model: Any, reference: Any) -> None:
    for batch, length in [(1, 5), (3, 9), (4, 16)]:
        feed = _feed(model, batch, length)
        with torch.no_grad():
            wanted = reference.eval()(**{name: torch.from_numpy(array) for name, array in feed.items()})
        ours = run(model, feed)[0]
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, wanted.logits.numpy(), rtol=1e-4, atol=1e-5)


def test_a_classifier(bert: Path, no_network: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    said = Recorder()
    model = load(bert, progress=said)
    assert capfd.readouterr() == ("", "")
    assert said.notes == []
    assert model.source.kind == "hf"
    assert model.source.location == str(bert)
    details = model.source.details
    assert details["task"] == "text-classification"
    assert details["architecture"] == "BertForSequenceClassification"
    assert details["tokenizer"] == str(bert)
    assert [spec.name for spec in model.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [spec.shape for spec in model.outputs] == [("batch_size", 3)]
    reference = transformers.BertForSequenceClassification.from_pretrained(bert, dtype=torch.float32)
    _agree(model, reference)


def test_a_language_model_has_no_past(tmp_path: Path, no_network: list[Any]) -> None:
    model = load(str(_llama(tmp_path / "llama")))
    assert model.source.details["task"] == "text-generation"
    assert [spec.name for spec in model.inputs] == ["input_ids", "attention_mask", "position_ids"]
    assert [spec.name for spec in model.outputs] == ["logits"]
    reference = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)
    _agree_where_attended(model, reference)


def _agree_where_attended(model: Any, reference: Any) -> None:
    feed = _feed(model, 3, 9)
    with torch.no_grad():
        wanted = reference.eval()(**{name: torch.from_numpy(array) for name, array in feed.items()}).logits
    attended = feed["attention_mask"].astype(bool)
    np.testing.assert_allclose(run(model, feed)[0][attended], wanted.numpy()[attended], rtol=1e-4, atol=1e-5)


def test_the_same_folder_gives_the_same_bytes_and_leaves_nothing(bert: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(scratch))
        first, second = load(bert), load(bert)
    assert list(scratch.iterdir()) == []
    assert {name: os.environ.get(name) for name in before} == before
    ours, theirs = (ir.to_proto(m.ir).SerializeToString(deterministic=True) for m in (first, second))
    assert ours == theirs
    assert first.source.sha256 == second.source.sha256
    assert str(tmp_path).encode() not in ours
    assert b"site-packages" not in ours


def test_a_task_may_be_named(bert: Path) -> None:
    model = load(bert, task="feature-extraction")
    assert model.source.details["task"] == "feature-extraction"
    assert [spec.name for spec in model.outputs] == ["last_hidden_state"]


def _fails(path: Path, task: str | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path, task=task)
    assert "\n" not in str(caught.value)
    return caught.value


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_tasks_that_do_not_exist(bert: Path) -> None:
    error = _fails(bert, "text-generation")
    assert error.what == "A bert model cannot be exported for the task 'text-generation'."
    assert str(error.fix).startswith("Tasks of this model type: feature-extraction, fill-mask,")
    assert _fails(bert, "juggling").what == "A bert model cannot be exported for the task 'juggling'."


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert _fails(folder).what == f"The folder {folder} has no config.json, so it is no Hugging Face model."
    (folder / "model.onnx").write_bytes(b"")
    assert _fails(folder).fix == f"Give the ONNX file itself: {folder / 'model.onnx'}."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "does not name a model_type"),
        ("{}", "does not name a model_type"),
    ],
)
def test_a_broken_config(folder: Path, text: str, says: str) -> None:
    (folder / "config.json").write_text(text)
    assert says in _fails(folder).what


def test_missing_and_broken_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert f"{folder} cannot be exported for text-classification: " in _fails(folder).what
    weights.unlink()
    assert _fails(folder).what == f"The folder {folder} has no weights (*.safetensors or pytorch_model*.bin)."


def test_weights_that_a_task_needs_and_the_folder_lacks(folder: Path) -> None:
    what = _fails(folder, "fill-mask").what
    assert what.startswith(f"{folder} has no weights for cls.predictions.")
    assert what.endswith("which the task fill-mask needs.")


def test_unknown_architectures_and_types(folder: Path) -> None:
    _config(folder, architectures=["BertForJuggling"])
    assert _fails(folder).what == f"{folder} has the unknown architecture 'BertForJuggling'."
    _config(folder, architectures=[])
    assert "names no architecture to infer a task from" in _fails(folder).what
    _config(folder, architectures=["BertForPreTraining"])
    assert "No task can be inferred from the architecture 'BertForPreTraining'" in _fails(folder).what
    _config(folder, model_type="juggler")
    assert "a model of type 'juggler', which optimum cannot export to ONNX" in _fails(folder).what


def test_a_quantized_folder_is_refused(folder: Path) -> None:
    _config(folder, quantization_config={"quant_method": "gptq"})
    assert _fails(folder).what == f"{folder} is already quantized."


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(proof)!r}).touch()\n"
    (folder / "modeling_custom.py").write_text(code)
    _config(folder, auto_map={"AutoModelForSequenceClassification": "modeling_custom.Model"})
    load(folder)
    assert not proof.exists()


def test_pickled_weights_are_restricted_to_tensors(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (proof,)

    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    _fails(folder)
    assert not proof.exists()


def test_a_decoder_that_classifies_needs_a_pad_token(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=16)
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt2")
    what = _fails(tmp_path / "gpt2").what
    assert "it needs a pad_token_id, which neither config.json nor a tokenizer in the folder has" in what
    _tokenizer(tmp_path / "gpt2")
    assert load(tmp_path / "gpt2").source.details["task"] == "text-classification"


def test_without_optimum_the_extra_is_named(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx.model_configs", None)
    with pytest.raises(MissingExtraError) as caught:
        load(bert)
    assert str(caught.value.fix) == "Install it with: pip install 'edgeq[hf]'"


def test_example_inputs_do_not_apply(bert: Path) -> None:
    with pytest.raises(UsageError, match="example_inputs applies to a module or a factory only"):
        load(bert, example_inputs=(1,))


@pytest.mark.slow
@pytest.mark.skipif("EDGEQ_DATA" not in os.environ, reason="needs EDGEQ_DATA")
@pytest.mark.parametrize(
    ("name", "auto"),
    [("minilm-sst2", "AutoModelForSequenceClassification"), ("books-llama", "AutoModelForCausalLM")],
)
def test_real_folders(name: str, auto: str) -> None:
    path = Path(os.environ["EDGEQ_DATA"]) / "models" / name
    model = load(path)
    reference = getattr(transformers, auto).from_pretrained(path, dtype=torch.float32).eval()
    feed = _feed(model, 3, 11)
    with torch.no_grad():
        wanted = reference(**{key: torch.from_numpy(array) for key, array in feed.items()}).logits.numpy()
    where = feed["attention_mask"].astype(bool) if wanted.ndim == 3 else slice(None)
    np.testing.assert_allclose(run(model, feed)[0][where], wanted[where], rtol=1e-3, atol=1e-4)
