from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import ConfigError, EdgeqError, ModelError
from edgeq.machine import library_versions, this_machine
from edgeq.manifest import Manifest, file_entries, verify_files
from tests.support.manifests import manifest, write_artefact


def test_round_trip(tmp_path: Path) -> None:
    written = write_artefact(tmp_path)
    read = Manifest.read(tmp_path)
    assert read.to_text() == written.to_text()
    assert read.nodes == written.nodes
    assert read.source == written.source
    assert read.recipe == written.recipe
    assert read.measured is not None
    assert math.isnan(read.measured.as_measurements()["sqnr"].value)
    assert Manifest.read(tmp_path / "edgeq.json").to_text() == written.to_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["edgeq.json", "model.onnx", "report.html"]


def test_file_is_plain_json_and_the_same_each_time(tmp_path: Path) -> None:
    write_artefact(tmp_path)
    first = (tmp_path / "edgeq.json").read_bytes()
    write_artefact(tmp_path)
    assert (tmp_path / "edgeq.json").read_bytes() == first
    content = json.loads(first, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["format_version"] == 1
    assert content["measured"]["verdicts"][0]["status"] == "pass"


def test_nan_within_details_is_json_too() -> None:
    text = manifest().model_copy(update={"load_hints": {"scale": float("nan")}}).to_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_missed_nodes_and_size(tmp_path: Path) -> None:
    written = write_artefact(tmp_path, b"1234")
    assert [node.name for node in written.missed] == ["resize<1>"]
    assert written.size == 4


@pytest.mark.parametrize(
    ("fields", "kept"), [({"scheme": "int8-weight"}, None), ({"scheme": "int4-weight"}, 32)]
)
def test_block_sizes_that_old_recipes_had_unread(fields: dict[str, Any], kept: int | None) -> None:
    old = {**json.loads(manifest().to_text()), "recipe": {**fields, "block_size": 32, "accuracy_level": 0}}
    assert Manifest.model_validate(old).recipe.block_size == kept


def test_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Manifest.read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no edgeq artefact: it has no edgeq.json. Give the folder that `edgeq compile` wrote."
    )


def changed(**change: Any) -> str:
    return json.dumps({**json.loads(manifest().to_text()), **change})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ('{"format_version": 1', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "it holds no JSON object"),
        ("{}", "its format_version is None"),
        (changed(format_version=99), "has format version 99"),
        (changed(format_version="1"), "its format_version is '1'"),
        (changed(unknown=1), "is no valid manifest: unknown: Extra inputs are not permitted"),
        (changed(recipe={"scheme": "int3"}), "is no valid manifest: recipe.scheme: Input should be"),
        (changed(files=[{"path": "a", "bytes": -1, "sha256": "x"}]), "files.0.bytes"),
    ],
)
def test_corrupt_manifests_are_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "edgeq.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        Manifest.read(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path / "edgeq.json") in str(caught.value)


def test_a_manifest_that_is_no_text_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "edgeq.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="is no text"):
        Manifest.read(tmp_path)
    (tmp_path / "other" / "edgeq.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        Manifest.read(tmp_path / "other")
    with pytest.raises(ConfigError, match="is no edgeq artefact"):
        Manifest.read(tmp_path / "nowhere")


def test_files_are_verified(tmp_path: Path) -> None:
    written = write_artefact(tmp_path)
    verify_files(written, tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"Weights")
    with pytest.raises(ModelError, match=r"model\.onnx is not the file that edgeq wrote: its SHA-256 is"):
        verify_files(written, tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        verify_files(written, tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="leaves the artefact folder"):
        file_entries(tmp_path, [name])


def test_every_error_names_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "edgeq.json").write_text("{}", encoding="utf-8")
    with pytest.raises(EdgeqError) as caught:
        Manifest.read(tmp_path)
    assert caught.value.fix


def test_this_machine_says_no_more_than_needed() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.cpu
    assert list(machine.flags) == sorted(machine.flags)
    versions = library_versions(("pytest", "no-such-library"))
    assert {"numpy", "onnx", "onnxruntime", "pytest"} <= set(versions)
    assert "no-such-library" not in versions
