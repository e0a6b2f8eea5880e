"""Targets whose artefact is a Hugging Face folder with packed weights: they differ in their format alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import ModelError
from edgeq.targets.base import BuildJob, BuildResult, Check, NodeResult, Runner
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan
    from edgeq.targets.language.format import Format


class FolderTarget(CheckpointTarget):
    """A target adds to :class:`CheckpointTarget`'s attributes ``capabilities`` and :meth:`form`."""

    @abstractmethod
    def form(self, options: Mapping[str, str]) -> Format:
        """The format, as the target's options have it (texts, as they are kept in the artefact)."""

    def texts(self, options: object) -> dict[str, str]:
        """What :meth:`options` returned, as texts."""
        return {}

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        """Write the folder, load it again and compare; raises TargetError."""
        from edgeq.targets.language.build import build_folder

        options = self.texts(job.options)
        return build_folder(job, folder, self.form(options), self.name, options)

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        """What the files hold of every planned layer; raises ModelError."""
        from edgeq.targets.language.verify import verify_folder

        return verify_folder(folder, self._form_of(folder), plan)

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        """The values of all layers, and the logits that the folder's consumer computes; raises ModelError."""
        from edgeq.targets.language.prove import prove

        return prove(folder, self._form_of(folder), threads)

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        """The artefact in ``folder``; raises ModelError."""
        return self._form_of(folder).open(folder, threads=threads)

    def _form_of(self, folder: Path) -> Format:
        from edgeq.targets.language.settings import LanguageSettings

        settings = LanguageSettings.read(folder)
        if settings.target != self.name:
            raise ModelError(f"{folder} was compiled for {settings.target!r}, not for {self.name!r}.")
        return self.form(settings.options)
