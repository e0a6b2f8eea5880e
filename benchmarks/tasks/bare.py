"""lm-eval without what it tells of the machine: git talks on stderr, pip and compilers take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_environment() -> Iterator[None]:
    """Results say nothing of the environment inside; afterwards lm-eval is as before."""
    from lm_eval import evaluator

    before = evaluator.get_git_commit_hash, evaluator.add_env_info
    evaluator.get_git_commit_hash = lambda: None
    evaluator.add_env_info = lambda storage: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash, evaluator.add_env_info = before
