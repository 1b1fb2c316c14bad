"""What will not rebuild is warned of before it learns: all estimators of River and scikit-learn."""

import os
import subprocess
import sys
from collections import Counter

import msgspec

from benchmarks.claim import Outcome, at_most, say
from benchmarks.lineage.found_estimators import Folded

__all__ = ["measure"]

_BOUND = 0
_SHORT_STEP = 20


def measure(*, short: bool) -> Outcome:
    """Fold every estimator in two processes that differ in hash seed, addresses and entropy.

    It takes two minutes. ``ratio`` counts those whose digests differ and that no warning names when they
    are declared.
    """
    step = _SHORT_STEP if short else 1
    one, two = (_elsewhere(seed, step) for seed in (1, 2))
    counts: Counter[str] = Counter()
    silent: list[str] = []
    false_alarms: list[str] = []
    for name, first in one.items():
        second = two[name]
        if not first.digest or not second.digest:
            counts["not_learned"] += 1
            continue
        equal = first.digest == second.digest
        counts[f"{'equal' if equal else 'unequal'}_{'warned' if first.doubted else 'silent'}"] += 1
        counts["unequal_silent_learned"] += not equal and not first.doubted_learned
        if not equal and not first.doubted:
            silent.append(name)
        if equal and first.doubted:
            false_alarms.append(name)
    say(f"  silent: {silent}")
    say(f"  warned, and equal all the same: {false_alarms}")
    return at_most(
        len(silent), _BOUND, estimators=len(one), silent=silent, **dict(sorted(counts.items()))
    )


def _elsewhere(seed: int, step: int) -> dict[str, Folded]:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.lineage.found_estimators", str(seed), str(step)],
        env=os.environ | {"PYTHONHASHSEED": str(seed)},
        stdout=subprocess.PIPE,
        check=True,
    )
    folded = [msgspec.json.decode(line, type=Folded) for line in ended.stdout.splitlines()]
    return {one.name: one for one in folded}
