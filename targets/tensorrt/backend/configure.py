"""The builder's configuration for a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeq.targets.tensorrt.backend.log import Heard
from edgeq.targets.tensorrt.backend.messages import error, refused
from edgeq.targets.tensorrt.backend.request import BuildRequest


def configure(trt: Any, builder: Any, request: BuildRequest, sm: tuple[int, ...], heard: Heard) -> Any:
    """An ``IBuilderConfig`` of everything in ``request`` but files, for the compute capabilities ``sm``.

    Raises:
        BuildRefusedError: a profile or a compute capability is refused.
    """
    config = builder.create_builder_config()
    # Only then the layer table names types and ONNX nodes.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # On by default: "float32" products would then keep 10 bits of their factors, which no check here sees.
    config.clear_flag(trt.BuilderFlag.TF32)
    _set_capabilities(trt, config, sm, heard)
    for profile in _profiles(builder, request, heard):
        if config.add_optimization_profile(profile) < 0:
            raise refused(heard)
    if request.weight_streaming:
        if not hasattr(trt.ICudaEngine, "weight_streaming_budget_v2"):
            raise refused(heard, error("Weights are streamed by TensorRT 10.1 and newer"))
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    if request.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mb << 20)
    return config


def _set_capabilities(trt: Any, config: Any, sm: tuple[int, ...], heard: Heard) -> None:
    """Only TensorRT for RTX builds for other GPUs than that of the machine."""
    if not sm:
        return
    known = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(sm)
    for index, number in enumerate(sm):
        capability = known.get(f"SM{number}")
        if capability is None or not config.set_compute_capability(capability, index):
            names = ", ".join(name for name in known if name.startswith("SM"))
            raise refused(heard, error(f"SM{number} is no compute capability of this version: {names}"))


def _profiles(builder: Any, request: BuildRequest, heard: Heard) -> Iterator[Any]:
    for shapes in request.profiles:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            try:
                profile.set_shape(name, shape.min, shape.opt, shape.max)
            except ValueError as reason:
                raise refused(heard, error(f"Profile of the input {name!r}: {reason}")) from reason
        yield profile
