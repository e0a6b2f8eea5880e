"""What ends a build before the compiler sees the model."""

from __future__ import annotations

import pytest

from edgeq.errors import TargetError
from edgeq.targets.base import Finding, Outcome
from edgeq.targets.tensorrt.build import refuse


def finding(outcome: Outcome, node: str) -> Finding:
    return Finding("a-rule", outcome, node, "Conv", f"it is what {outcome!r} means", f"Mend {node}.")


@pytest.mark.parametrize("outcome", ["fails", "wrong"])
def test_what_would_not_be_the_model_is_refused(outcome: Outcome) -> None:
    found = [finding("note", "first"), finding(outcome, "second"), finding(outcome, "third")]
    with pytest.raises(TargetError) as refused:
        refuse(found)
    assert refused.value.what == (
        f"TensorRT cannot take Conv 'second': it is what {outcome!r} means (and 1 more: edgeq lint)."
    )
    assert refused.value.fix == "Mend second."


def test_what_only_costs_time_is_built() -> None:
    refuse([finding("float", "first"), finding("slow", "second"), finding("note", "third")])
