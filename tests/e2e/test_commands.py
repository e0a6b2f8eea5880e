"""The small commands, ``--help`` and what starting costs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

import edgeq
from edgeq.config import load_config
from tests.support.cli import Workspace, command, environment

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
    assert re.search(r"^onnxruntime +ready ", run.stdout, re.MULTILINE)
    assert run.stdout.rstrip().endswith("all-cpu is onnxruntime, openvino, neural-compressor")
    document = json.loads(work.edgeq("targets", "--json").stdout)
    names = [t["name"] for t in document["targets"]]
    assert names == sorted(names)
    assert {"coreml", "onnxruntime", "tensorrt"} <= set(names)
    schemes = {t["name"]: t["schemes"] for t in document["targets"]}
    assert all("int8-static" in schemes[name] for name in ("coreml", "onnxruntime", "tensorrt"))
    assert all("int4-weight" in schemes[name] for name in ("gguf", "hf-awq", "hf-gptq", "vllm"))


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
    assert [t.recipe.scheme for t in config.targets] == [
        "int8-dynamic",
        "int8-static",
        "int4-weight",
        "palettize-4",
        "int4-weight",
    ]
    assert config.metrics == ("top1",)


def test_init_does_not_overwrite(work: Workspace) -> None:
    work.write("edgeq.toml", "mine")
    run = work.edgeq("init", "model.onnx")
    assert run.returncode == 2
    assert run.stderr == "error: edgeq.toml is there.\nfix:   Give --force to replace it.\n"
    assert (work.folder / "edgeq.toml").read_text() == "mine"
    assert work.edgeq("init", "model.onnx", "--force").returncode == 0


def test_no_colour_without_a_terminal(work: Workspace) -> None:
    assert "\x1b" not in work.edgeq("targets").stdout


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal(work: Workspace, colour: bool) -> None:
    """Bars, colours unless NO_COLOR is set, and lines that fit its width."""
    extra = {"TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
    code, shown = _on_a_terminal(
        work, "compile", "model.onnx", "--scheme", "fp32", "--measure", "size", env=extra
    )
    assert code == 0, shown
    assert "\x1b[?25l" in shown  # the cursor is hidden while bars move
    assert "\x1b[?25h" in shown  # and comes back
    colours = re.findall(r"\x1b\[[0-9;]*3[0-9](?:;[0-9]+)*m", shown)
    assert bool(colours) == colour
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "artefact  build/model-onnxruntime" in plain


def test_a_reader_that_leaves_is_no_missed_budget(work: Workspace) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        command("inspect", "model.onnx"),
        cwd=work.folder,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (run.returncode, run.stderr) == (141, b"")


def _on_a_terminal(work: Workspace, *arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Run with a pseudo terminal of 80 columns as stdout and stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    surroundings = {k: v for k, v in environment(env).items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command(*arguments), cwd=work.folder, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    # Reading fails with EIO when the other side is closed.
    with suppress(OSError):
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    return process.wait(timeout=60), shown.decode()
