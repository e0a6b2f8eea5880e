"""One PyTorch model quantized by one method in this process; prints one JSON line.

    python benchmarks/peers/torch_quantizers_child.py MODEL METHOD FOLDER

``inc-minmax``, ``inc-kl``, ``inc-dynamic``: Neural Compressor's documented flow, saved by its own ``save``,
loaded again and compiled by ``torch.compile`` with frozen weights. ``edgeq-percentile``, … ``edgeq-dynamic``:
``edgeq.compile`` for the target ``neural-compressor``. Accuracy is of all samples one by one; distance and
latency are beside the float32 module in eager PyTorch, in turns, one thread.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fresh import cpu_seconds, peak_mib
from intel_models import MODELS, IntelModel
from judging import Run, judged, samples
from torch_models import INPUTS, module
from turns import median_ms

from edgeq.calibration.types import Arrays

ROUNDS = 60


def inc(name: str, data: IntelModel, algorithm: str, folder: Path) -> tuple[Run, dict[str, Any]]:
    """Neural Compressor's documented flow; what it saves is loaded again as an application does."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import (
        DynamicQuantConfig,
        StaticQuantConfig,
        convert,
        load,
        prepare,
    )

    start = cpu_seconds()
    inputs = INPUTS[name]
    example = tensors(data.feed(), inputs)
    config = DynamicQuantConfig() if algorithm == "dynamic" else StaticQuantConfig(act_algo=algorithm)
    prepared = prepare(export(module(name), example), quant_config=config)
    if algorithm != "dynamic":
        with torch.no_grad():
            for sample in samples(data.calibration):
                prepared(*tensors(sample, inputs))
    quantized = convert(prepared)
    quantized.save(example_inputs=example, output_dir=str(folder))
    seconds = cpu_seconds() - start

    # The compiler writes the number of threads into its code.
    torch.set_num_threads(1)
    start = cpu_seconds()
    torch._inductor.config.freezing = True
    compiled = torch.compile(load(str(folder)))
    with torch.no_grad():
        compiled(*example)
    costs = {"cpu_seconds": seconds, "start_cpu_seconds": cpu_seconds() - start, "bytes": total(folder)}
    return lambda feed: compiled(*tensors(feed, inputs)).numpy(), costs


def edgeq_(name: str, data: IntelModel, method: str, folder: Path) -> tuple[Run, dict[str, Any]]:
    """``edgeq.compile`` and the artefact's runner."""
    import edgeq
    from edgeq.targets.registry import get_target

    static = method != "dynamic"
    recipe = edgeq.Recipe(scheme="int8-static", range_method=method) if static else None  # type: ignore[arg-type]
    start = cpu_seconds()
    result = edgeq.compile(
        data.source,
        target="neural-compressor",
        scheme=None if static else "int8-dynamic",
        recipe=recipe,
        calibration=data.calibration if static else None,
        output=folder / "edgeq",
        bench=None,
    )
    seconds = cpu_seconds() - start
    start = cpu_seconds()
    runner = get_target("neural-compressor").runner(result.folder, threads=1)
    names = [spec.name for spec in runner.inputs]
    runner.run({n: v for n, v in data.feed().items() if n in names})
    started = cpu_seconds() - start
    costs = {"cpu_seconds": seconds, "start_cpu_seconds": started, "bytes": result.manifest.size}
    output = runner.outputs[0].name
    return lambda feed: runner.run({n: feed[n] for n in names})[output], costs


def tensors(sample: Arrays, inputs: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    """The inputs in the order of forward's arguments."""
    return tuple(torch.from_numpy(np.ascontiguousarray(sample[name])) for name in inputs)


def total(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def timed(run: Run, float32: Run, feed: Arrays) -> dict[str, float]:
    """Median milliseconds of both, in turns."""
    own, reference = median_ms([lambda: run(feed), lambda: float32(feed)], ROUNDS)
    return {"p50_ms": own, "eager_ms": reference}


def main() -> None:
    """Quantize, measure, print."""
    name, method, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    data = MODELS[name]()
    tool, _, how = method.partition("-")
    run, costs = {"inc": inc, "edgeq": edgeq_}[tool](name, data, how, folder)
    costs["process_mib"] = peak_mib()
    torch.set_num_threads(1)
    eager = module(name)
    with torch.no_grad():
        float32: Run = lambda feed: eager(*tensors(feed, INPUTS[name])).numpy()  # noqa: E731
        found = {**timed(run, float32, data.feed()), **judged(run, float32, data)}
    print(json.dumps({**costs, **found}))


if __name__ == "__main__":
    main()
