"""Learning only what is new costs far less than learning a window again, and keeps most of its gain."""

from benchmarks.claim import Outcome, at_least
from benchmarks.learning.year import NEVER, STAGE2, STAGE3, play_all, table_row

__all__ = ["measure"]

_BOUND = 45.0
_KEPT = 0.8


def measure(*, short: bool) -> Outcome:
    """Compare examples learned by stage 2 and stage 3, daily, in the year after February (an hour).

    The first version's examples are counted; ``updates_only`` leaves them out, as they are the same.
    ``kept`` is the share of stage 2's gain in ROC AUC over never updating that stage 3 has too.
    """
    stage2, stage3, never = play_all([STAGE2, STAGE3, NEVER], short=short)
    gain = stage2.roc_auc - never.roc_auc
    kept = (stage3.roc_auc - never.roc_auc) / gain if gain else 0.0
    updated = stage2.learned - stage2.learned_first, stage3.learned - stage3.learned_first
    return at_least(
        stage2.learned / stage3.learned,
        _BOUND,
        also=kept >= _KEPT,
        kept=round(kept, 4),
        kept_bound=_KEPT,
        updates_only=round(updated[0] / updated[1], 4),
        cpu_ratio=round(stage2.train_cpu_s / stage3.train_cpu_s, 4),
        never=table_row(never),
        stage2=table_row(stage2),
        stage3=table_row(stage3),
    )
