"""The small commands, ``--help`` and what starting costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import edgeq
from edgeq.config import load_config
from tests.support.cli import Workspace, environment

HEAVY = ("numba", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch", "transformers", "numpy")


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["check", "-h"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['edgeq', *{arguments!r}]\n"
        "from edgeq.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print('LOADED', sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "LOADED []"


def test_version(work: Workspace) -> None:
    assert work.edgeq("--version").stdout == f"edgeq {edgeq.__version__}\n"


def test_targets(work: Workspace) -> None:
    run = work.edgeq("targets")
    assert run.returncode == 0
    assert "onnxruntime  ready" in run.stdout
    document = json.loads(work.edgeq("targets", "--json").stdout)
    assert document["targets"][0]["name"] == "onnxruntime"
    assert "int8-static" in document["targets"][0]["schemes"]


def test_init_writes_a_file_that_check_accepts(work: Workspace) -> None:
    run = work.edgeq("init", "model.onnx")
    assert (run.returncode, run.stdout) == (0, "Wrote edgeq.toml. Next: edgeq check edgeq.toml\n")
    text = (work.folder / "edgeq.toml").read_text()
    assert "# The model's inputs: x float32 [batch, 3, 8, 8]" in text
    config = load_config(work.folder / "edgeq.toml")
    assert config.model == str(work.folder / "model.onnx")
    assert [t.recipe.scheme for t in config.targets] == ["int8-dynamic"]


def test_everything_that_init_comments_out_is_valid(work: Workspace) -> None:
    """Uncommenting an example must never lead to an error message."""
    assert work.edgeq("init", "model.onnx").returncode == 0
    path = work.folder / "edgeq.toml"
    lines = []
    for line in path.read_text().splitlines():
        bare = line.lstrip().removeprefix("# ")
        example = line.lstrip().startswith("# ") and (bare.startswith(("[", '"')) or " = " in bare)
        lines.append(bare if example else line)
    path.write_text("\n".join(lines).replace("tokenizer =", "# "))
    config = load_config(path)
    assert [t.recipe.scheme for t in config.targets] == ["int8-dynamic", "int8-static", "int4-weight"]
    assert config.metrics == ("top1",)


def test_init_does_not_overwrite(work: Workspace) -> None:
    work.write("edgeq.toml", "mine")
    run = work.edgeq("init", "model.onnx")
    assert run.returncode == 2
    assert run.stderr == "error: edgeq.toml is there.\nfix:   Give --force to replace it.\n"
    assert (work.folder / "edgeq.toml").read_text() == "mine"
    assert work.edgeq("init", "model.onnx", "--force").returncode == 0


def test_no_colour_without_a_terminal_and_with_no_color(work: Workspace) -> None:
    run = work.edgeq("targets", env={"NO_COLOR": "1", "FORCE_COLOR": ""})
    assert "\x1b" not in run.stdout
