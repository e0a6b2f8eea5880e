"""From a lowered program to an ``.mlpackage`` on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError, TargetError
from edgeq.targets.coreml.options import Arithmetic, CoreMLOptions
from edgeq.targets.coreml.package.folder import unfinished_package, weights_folder, write_spec
from edgeq.targets.coreml.package.interface import classifier_config, input_types
from edgeq.targets.coreml.package.metadata import make_metadata, set_metadata
from edgeq.targets.coreml.package.passes import run_passes, silence
from edgeq.targets.coreml.toolkit import coremltools

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.lower import Lowered


def write_package(
    lowered: Lowered,
    path: Path,
    *,
    ios: int,
    arithmetic: Arithmetic = "float16",
    options: CoreMLOptions | None = None,
    source_sha256: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write ``path`` (``….mlpackage``); the same arguments give the same bytes.

    The passes change ``lowered.program``: it can be written once.

    Raises:
        TargetError: Core ML cannot have what was asked for, or the folder cannot be written.
    """
    chosen = options or CoreMLOptions()
    metadata = make_metadata(lowered.signature, chosen, source_sha256=source_sha256, recipe=recipe)
    with silence(), unfinished_package(path) as folder:
        spec = _convert(lowered, weights_folder(folder), ios, arithmetic, chosen)
        set_metadata(spec, metadata)
        write_spec(folder, spec)


def _convert(
    lowered: Lowered, weights: Path, ios: int, arithmetic: Arithmetic, options: CoreMLOptions
) -> Any:
    """The protobuf spec; the weights go into the folder ``weights``."""
    ct = coremltools()
    from coremltools.converters.mil.backend.mil.load import load as export

    program = lowered.program
    try:
        program.functions["main"].set_input_types(input_types(program, lowered.signature, options, ios))
        config = classifier_config(program, lowered.signature, options)
        run_passes(program, half=arithmetic == "float16", keep=lowered.float32_values)
        return export(
            program,
            str(weights),
            specification_version=getattr(ct.target, f"iOS{ios}").value,
            classifier_config=config,
            convert_to="mlprogram",
            convert_from="milinternal",
        )
    except (EdgeqError, OSError):
        raise
    except Exception as error:  # coremltools raises whatever it likes on what it cannot express
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise TargetError(f"Core ML: the program cannot be written: {text}.") from error
