"""A winner keeps every budget and leads by more than noise; each sentence says why."""

from __future__ import annotations

import numpy as np

from edgeq.benchmarks.measurement import Measurement, Measurements
from edgeq.winner import Contender, choose_winner

BLOCKS = 20


def contender(name: str, median: float | None, *, kept: bool = True, size: int = 1000) -> Contender:
    """An artefact that takes ``median`` seconds, give or take 1 % from turn to turn; None: not timed."""
    if median is None:
        return Contender(name, kept, size, None, Measurements())
    noise = 1 + 0.01 * np.random.default_rng(len(name)).standard_normal((BLOCKS, 5))
    times = median * noise
    found = Measurements()
    found.add(
        Measurement("latency_p50", float(np.median(times)), 0.02, "s", False),
        Measurement("speedup", 0.02 / median, None, "x"),
    )
    return Contender(name, kept, size, times, found)


def test_the_fastest_that_keeps_every_budget_wins() -> None:
    found = choose_winner(
        [contender("a", 0.01), contender("bb", 0.008), contender("ccc", 0.004, kept=False)], budgets=True
    )
    assert found.name == "bb"
    assert found.sentence.startswith(
        "Winner: bb: of 2 that keep every budget, bb is the fastest: 1.25x a (95 %"
    )
    assert found.sentence.endswith(" and 2.50x FP32.")


def test_the_only_one_that_keeps_every_budget_wins_however_slow() -> None:
    found = choose_winner([contender("a", 0.01, kept=False), contender("bb", 0.08)], budgets=True)
    assert found.name == "bb"
    assert found.sentence == "Winner: bb, the only artefact that keeps every budget."


def test_a_lead_within_noise_is_none() -> None:
    for faster in (0.01, 0.00995, 0.0098):
        found = choose_winner([contender("a", 0.01), contender("bb", faster)], budgets=True)
        assert found.name is None
        assert found.sentence.startswith("No winner: of all 2 that keep every budget, ")
        assert "a" in found.sentence
        assert "equally fast within noise, and" in found.sentence
        assert found.sentence.endswith("about equally small (1 KB against 1 KB).")


def test_among_equally_fast_ones_the_smallest_wins() -> None:
    found = choose_winner(
        [contender("a", 0.01), contender("bb", 0.01, size=400), contender("ccc", 0.02, size=100)],
        budgets=True,
    )
    assert found.name == "bb"
    assert "bb is the smallest (400 B against 1 KB of a)." in found.sentence


def test_few_turns_prove_no_lead() -> None:
    few = [contender("a", 0.01), contender("bb", 0.005, size=1000)]
    cut = [
        Contender(c.name, c.kept, c.size, None if c.times is None else c.times[:3], c.measurements)
        for c in few
    ]
    assert choose_winner(few, budgets=True).name == "bb"
    assert choose_winner(cut, budgets=True).name is None


def test_nobody_wins_without_budgets_or_when_all_are_missed() -> None:
    both = [contender("a", 0.01, kept=False), contender("bb", 0.005, kept=False)]
    assert choose_winner(both, budgets=True).sentence == "No winner: no artefact keeps every budget."
    found = choose_winner([contender("a", 0.01), contender("bb", 0.005)], budgets=False)
    assert found.name is None
    assert found.sentence.startswith("No winner without budgets: bb is the fastest: 2.00x a")
    assert choose_winner([], budgets=True).sentence == "No winner: nothing was compiled and measured."


def test_without_latency_the_smallest_wins_and_what_was_not_timed_is_named() -> None:
    found = choose_winner([contender("a", None), contender("bb", None, size=500)], budgets=True)
    assert found.name == "bb"
    found = choose_winner([contender("a", 0.01), contender("bb", 0.005), contender("c", None)], budgets=True)
    assert found.name == "bb"
    assert "(c: no latency here)" in found.sentence
    found = choose_winner([contender("a", 0.01), contender("c", None)], budgets=True)
    assert (found.name, "only one that was timed" in found.sentence) == ("a", True)
