"""How data is read, where its form alone does not tell. Every field has effect or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DataOptions(BaseModel):
    """Options of a data source. A value; the ones that matter for a source go to the manifest.

    Attributes:
        labels: name of the label column or array, or for a folder of images the path of the label file.
        classes: class names in the order of the model's outputs, for data whose labels are names. Without
            it names are numbered in sorted order.
        columns: model input name → column or array name in the data, where they differ.
        input: the model input that images or preprocessed arrays feed, for models with several.
        text: the text column, or two for pairs. Without it, usual names are looked for.
        header: whether a TSV or CSV file has a header line; None looks at the first line.
        tokenizer: ``tokenizer.json``, a folder with one, or a JSON object of character → id.
        max_length: tokens per text at most. None takes the model's fixed length or the tokenizer's own.
        padding: pad texts to the longest of the batch, or always to ``max_length``.
        window: tokens per sample of running text. None takes the model's fixed length, else 256.
        stride: tokens between the starts of windows. None is ``window``: no overlap.
        max_tokens: use only the first so many tokens of running text.
        split: which split of a ``datasets`` dictionary.
        task: overrides what the data looks like.
        select: which samples a limit keeps: ``spread`` evenly over the data, so that sets sorted by class
            are covered, or the ``first``. Callables of unknown length always give the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str | None = None
    classes: tuple[str, ...] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    input: str | None = None
    text: tuple[str, ...] = Field(default=(), max_length=2)
    header: bool | None = None
    tokenizer: Path | None = None
    max_length: int | None = Field(default=None, ge=1)
    padding: Literal["batch", "max_length"] = "batch"
    window: int | None = Field(default=None, ge=2)
    stride: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=2)
    split: str | None = None
    task: Literal["classification", "language-model", "unknown"] | None = None
    select: Literal["spread", "first"] = "spread"
