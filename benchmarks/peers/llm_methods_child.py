"""One tool quantizes one language model in this process, for ``llm_methods.py``; prints one JSON line.

    python benchmarks/peers/llm_methods_child.py TOOL METHOD BITS GROUP MODEL TOKENS.npy OUT.safetensors

TOKENS.npy holds windows [samples, length] to calibrate on. OUT gets float32 tensors under the model's own
names: the values that the tool's weights have, for one common evaluation. Asymmetric weights for 2 bits,
symmetric ones else. Seconds and peak memory include loading the model; writing OUT is not timed.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fresh import cpu_seconds, peak_mib


@dataclass(frozen=True)
class Task:
    """What is asked of a tool."""

    method: str
    bits: int
    group: int
    model: str
    tokens: Any

    @property
    def symmetric(self) -> bool:
        """Two bits have only three useful symmetric levels."""
        return self.bits > 2


def edgeq(task: Task) -> dict[str, Any]:
    """Our own driver, as for any target of language models."""
    import tempfile

    from edgeq.calibration.data.arrays import ArraySource
    from edgeq.compiler.load.checkpoint import load_checkpoint
    from edgeq.compiler.quantize.dispatch import Request
    from edgeq.compiler.recipe import Recipe
    from edgeq.compiler.weights.layerwise import quantize_checkpoint
    from edgeq.progress import SilentProgress
    from edgeq.targets.capabilities import Capabilities, WeightRules

    rules = WeightRules((2, 3, 4, 8), (-1, 32, 64, 128))
    capabilities = Capabilities("peers", ("int4-weight",), weights=rules)
    model = load_checkpoint(Path(task.model), SilentProgress())
    scheme = "nf4-weight" if task.method == "nf4" else f"int{task.bits}-weight"
    recipe = Recipe.model_validate(
        {
            "scheme": scheme,
            "block_size": task.group,
            "weight_method": None if task.method == "nf4" else task.method,
            "symmetric_weights": task.symmetric,
            "calibration_samples": len(task.tokens),
        }
    )
    ids = task.tokens.astype(np.int64)
    source = ArraySource("windows", {"input_ids": ids}, model.inputs) if _learns(task) else None
    with tempfile.TemporaryDirectory() as folder:
        request = Request(model, capabilities, recipe, source, 2, SilentProgress())
        store = quantize_checkpoint(request, Path(folder)).weights
        assert store is not None
        names = list(store.checkpoint.tensors)
        return {name: np.array(store.float32(name)) for name in names}


def llmcompressor(task: Task) -> dict[str, Any]:
    """The ``oneshot`` of its documentation, with its own sequential pipeline for GPTQ and AWQ."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.awq import AWQModifier
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    if not torch.cuda.is_available():
        # Its AWQ pins memory for a GPU and stops where there is none.
        torch.Tensor.pin_memory = lambda self, *_: self
    args = QuantizationArgs(
        num_bits=task.bits,
        symmetric=task.symmetric,
        strategy="channel" if task.group < 0 else "group",
        group_size=None if task.group < 0 else task.group,
    )
    scheme = {"config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=args)}}
    made = {"rtn": QuantizationModifier, "gptq": GPTQModifier, "awq": AWQModifier}[task.method]
    model = _loaded(task)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in task.tokens.tolist()]
    data = {"dataset": Dataset.from_list(rows), "num_calibration_samples": len(rows)} if _learns(task) else {}
    oneshot(model=model, recipe=made(ignore=["lm_head"], **scheme), max_seq_length=256, **data)
    found = {}
    for name, module in model.named_modules():
        if not hasattr(module, "weight_scale"):
            continue
        # After GPTQ the weights have these values already; rounding them again changes nothing.
        with torch.no_grad():
            value = fake_quantize(
                module.weight, module.weight_scale, getattr(module, "weight_zero_point", None), args
            )
        found[f"{name}.weight"] = value.float().numpy()
    norms = {name: p.detach().float().numpy() for name, p in model.named_parameters() if "norm" in name}
    return {**found, **norms}


def auto_round(task: Task) -> dict[str, Any]:
    """Its documentation's call; ``rtn`` is without iterations, ``autoround`` with 200, its default."""
    import torch
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    model = _loaded(task)
    rounding = AutoRound(
        model,
        AutoTokenizer.from_pretrained(task.model),
        bits=task.bits,
        group_size=task.group,
        sym=task.symmetric,
        iters=0 if task.method == "rtn" else 200,
        seqlen=task.tokens.shape[1],
        nsamples=len(task.tokens),
        dataset=[{"input_ids": torch.tensor(row[None])} for row in task.tokens],
        device_map="cpu",
    )
    done, _ = rounding.quantize()
    return _linear_weights(done)


def inc(task: Task) -> dict[str, Any]:
    """Intel Neural Compressor's three-step flow."""
    import torch
    from neural_compressor.torch import quantization

    model = _loaded(task)
    made = {"rtn": "RTNConfig", "nf4": "RTNConfig", "gptq": "GPTQConfig", "awq": "AWQConfig"}[task.method]
    options: dict[str, Any] = {"bits": task.bits, "group_size": task.group, "use_sym": task.symmetric}
    if task.method == "nf4":
        options["dtype"] = "nf4"
    if task.method == "gptq":
        # Its static_groups raise an IndexError.
        options["act_order"] = True
    rows = torch.tensor(task.tokens)
    config = getattr(quantization, made)(**options).set_local("lm_head", quantization.RTNConfig(dtype="fp32"))
    prepared = quantization.prepare(model, quant_config=config, example_inputs=rows[:1])
    if _learns(task):
        with torch.no_grad():
            for row in rows:
                prepared(row[None])
    return _linear_weights(quantization.convert(prepared))


def matmul_nbits(task: Task) -> dict[str, Any]:
    """ONNX Runtime's quantizer on a graph that has a MatMul for each of the model's linear layers."""
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits
    from safetensors.numpy import load_file

    stored = load_file(str(Path(task.model) / "model.safetensors"))
    names = [name for name in stored if name.endswith("_proj.weight")]
    nodes, constants, inputs, outputs = [], [], [], []
    for name in names:
        weight = stored[name].astype(np.float32)
        nodes.append(helper.make_node("MatMul", [f"{name}.x", name], [f"{name}.y"], name=name))
        constants.append(numpy_helper.from_array(np.ascontiguousarray(weight.T), name))
        inputs.append(helper.make_tensor_value_info(f"{name}.x", TensorProto.FLOAT, ["n", weight.shape[1]]))
        outputs.append(helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, ["n", weight.shape[0]]))
    graph = helper.make_graph(nodes, "weights", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    config = None
    if task.method == "k_quant":
        config = nbits.KQuantWeightOnlyQuantConfig()
    if task.method == "hqq":
        config = nbits.HQQWeightOnlyQuantConfig(block_size=task.group, bits=task.bits)
    quantizer = nbits.MatMulNBitsQuantizer(
        model, block_size=task.group, bits=task.bits, is_symmetric=task.symmetric, algo_config=config
    )
    quantizer.process()
    return _run_identity(quantizer.model.model, {name: stored[name].shape for name in names})


def _run_identity(model: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The weights as the quantized nodes have them: what they return for the identity matrix."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = {}
    for node in session.get_inputs():
        name = node.name.removesuffix(".x")
        feeds = {
            other.name: np.zeros((1, other.shape[1]), np.float32)
            for other in session.get_inputs()
            if other.name != node.name
        }
        feeds[node.name] = np.eye(shapes[name][1], dtype=np.float32)
        found[name] = session.run([f"{name}.y"], feeds)[0].T.copy()
    return found


TOOLS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "edgeq": edgeq,
    "llmcompressor": llmcompressor,
    "auto-round": auto_round,
    "inc": inc,
    "matmul-nbits": matmul_nbits,
}


def _learns(task: Task) -> bool:
    return task.method in ("gptq", "awq", "autoround")


def _loaded(task: Task) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32).eval()


def _linear_weights(model: Any) -> dict[str, Any]:
    """By name: the weights of all linear layers, on the inputs that the original layers had."""
    found = {}
    for name, module in model.named_modules():
        if not name.endswith("_proj"):
            continue
        inner = getattr(module, "linear", module)
        value = inner.recover() if hasattr(inner, "recover") else inner.weight
        value = value.detach().float()
        if hasattr(module, "input_scale"):
            value = value * module.input_scale.float()[None]
        found[f"{name}.weight"] = value.contiguous().numpy()
    norms = {name: p.detach().float().numpy() for name, p in model.named_parameters() if "norm" in name}
    return {**found, **norms}


def main() -> None:
    from safetensors.numpy import save_file

    logging.disable(logging.WARNING)
    tool, method, bits, group, model, tokens, out = sys.argv[1:]
    task = Task(method, int(bits), int(group), model, np.load(tokens))
    start, cpu = time.perf_counter(), cpu_seconds()
    values = TOOLS[tool](task)
    found = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu}
    found["mib"] = peak_mib()
    save_file({name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}, out)
    # On a line of its own: some tools leave the cursor behind their progress bar.
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main()
