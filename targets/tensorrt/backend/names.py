"""What is used of TensorRT's Python API, as data."""

from __future__ import annotations

from collections.abc import Mapping

# Arguments of a method by name; properties, enum members and classes have none.
Names = dict[str, tuple[str, ...] | None]
PROPERTY = None

# TensorRT 10 and 11, and TensorRT for RTX.
SHARED: Mapping[str, Mapping[str, tuple[str, ...] | None]] = {
    # Functions of the module itself.
    "": {"init_libnvinfer_plugins": ("logger", "namespace")},
    "Builder": {
        "create_network": ("flags",),
        "create_builder_config": (),
        "create_optimization_profile": (),
        "build_serialized_network": ("network", "config"),
        "build_serialized_network_to_stream": ("network", "config", "writer"),
    },
    "OnnxParser": {
        "__init__": ("network", "logger"),
        "parse_from_file": ("model",),
        "num_errors": PROPERTY,
        "get_error": ("index",),
    },
    "ParserError": {
        "code": (),
        "desc": (),
        "func": (),
        "node": (),
        "node_name": (),
        "node_operator": (),
    },
    "IBuilderConfig": {
        "profiling_verbosity": PROPERTY,
        "progress_monitor": PROPERTY,
        "builder_optimization_level": PROPERTY,
        "set_flag": ("flag",),
        "clear_flag": ("flag",),
        "set_memory_pool_limit": ("pool", "pool_size"),
        "add_optimization_profile": ("profile",),
        "create_timing_cache": ("serialized_timing_cache",),
        "set_timing_cache": ("cache", "ignore_mismatch"),
        "get_timing_cache": (),
    },
    "IOptimizationProfile": {"set_shape": ("input", "min", "opt", "max")},
    "ITimingCache": {"serialize": ()},
    "IHostMemory": {"nbytes": PROPERTY},
    "ILogger": {"log": ("severity", "msg"), "Severity": PROPERTY},
    "IProgressMonitor": {
        "phase_start": ("phase_name", "parent_phase", "num_steps"),
        "step_complete": ("phase_name", "step"),
        "phase_finish": ("phase_name",),
    },
    "IStreamWriter": {"write": ("data", "size")},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED": PROPERTY},
    "ProfilingVerbosity": {"DETAILED": PROPERTY},
    "BuilderFlag": {"WEIGHT_STREAMING": PROPERTY, "TF32": PROPERTY},
    "MemoryPoolType": {"WORKSPACE": PROPERTY},
    "LayerInformationFormat": {"JSON": PROPERTY},
    "EngineInspector": {"get_engine_information": ("format",)},
    "Runtime": {"deserialize_cuda_engine": ("serialized_engine",)},
    "ICudaEngine": {
        "create_engine_inspector": (),
        "create_execution_context": (),
        "num_io_tensors": PROPERTY,
        "get_tensor_name": ("index",),
        "get_tensor_dtype": ("name",),
        "get_tensor_shape": ("name",),
        "get_tensor_mode": ("name",),
        "get_tensor_location": ("name",),
        "weight_streaming_budget_v2": PROPERTY,
        "get_weight_streaming_automatic_budget": (),
    },
    "IExecutionContext": {
        "active_optimization_profile": PROPERTY,
        "set_optimization_profile_async": ("profile_index", "stream_handle"),
        "set_input_shape": ("name", "shape"),
        "infer_shapes": (),
        "get_tensor_shape": ("name",),
        "set_output_allocator": ("name", "output_allocator"),
        "set_tensor_address": ("name", "memory"),
        "execute_async_v3": ("stream_handle",),
    },
    "IOutputAllocator": {"__init__": ()},
    "TensorIOMode": {"INPUT": PROPERTY},
    "TensorLocation": {"HOST": PROPERTY},
    "DataType": dict.fromkeys(("FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL")),
}

WITH_RTX: Mapping[str, Mapping[str, tuple[str, ...] | None]] = {
    "IBuilderConfig": {
        "num_compute_capabilities": PROPERTY,
        "set_compute_capability": ("compute_capability", "index"),
    },
    "ComputeCapability": dict.fromkeys(("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")),
    "ICudaEngine": {"create_runtime_config": ()},
    "IRuntimeConfig": {
        "create_runtime_cache": (),
        "set_runtime_cache": ("cache",),
        "cuda_graph_strategy": PROPERTY,
        "dynamic_shapes_kernel_specialization_strategy": PROPERTY,
    },
    "IRuntimeCache": {"serialize": (), "deserialize": ("blob",), "reset": ()},
    "CudaGraphStrategy": {"WHOLE_GRAPH_CAPTURE": PROPERTY},
    "DynamicShapesKernelSpecializationStrategy": {"EAGER": PROPERTY},
}

# First version of TensorRT with a class or member. Before it, engines are in memory as a whole when they are
# built, and weights are not streamed (the option is refused).
SINCE: Mapping[str, tuple[int, int]] = {
    "IStreamWriter": (10, 13),
    "Builder.build_serialized_network_to_stream": (10, 13),
    "ICudaEngine.weight_streaming_budget_v2": (10, 1),
    "ICudaEngine.get_weight_streaming_automatic_budget": (10, 1),
}
