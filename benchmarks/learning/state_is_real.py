"""What stage 3 carries on is worth more than its examples: as many, learned afresh, give less."""

from collections.abc import Sequence
from statistics import mean

from msgspec.structs import replace

from benchmarks.claim import Outcome, at_least, say
from benchmarks.learning.year import STAGE3, Played, Variant, play_all, steps_of
from headwater.spec.updating.update import Stateful, Stateless, Subsample

__all__ = ["measure"]

_BOUND = 0.008
_SEEDS = 5
_HALF_LIFE = "90d"
_TWINS_DAYS = (1, 14, 30, 61)
_SHORT_TWINS_DAYS = (1, 2)


def measure(*, short: bool) -> Outcome:
    """Compare mean ROC AUC with stateless twins that learn as many examples (hours).

    A twin retrains from scratch every so many days, each time on as many examples as spread stage 3's
    evenly over its updates, drawn as stage 3's own resets are. The claim is about the daily twin: the
    same updates as often, the same examples learned, only without the state. Twins that save their
    examples for rarer retrains are reported too. Seeds settle both the learner and the draws.
    """
    seeds, every = (range(1), _SHORT_TWINS_DAYS) if short else (range(_SEEDS), _TWINS_DAYS)
    stateful = play_all([_stage3(seed) for seed in seeds], short=short)
    plans = [(days, seed, played.learned) for days in every for seed, played in enumerate(stateful)]
    twins = play_all([_twin(*plan, short=short) for plan in plans], short=short)
    by_days = {days: twins[i * len(seeds) : (i + 1) * len(seeds)] for i, days in enumerate(every)}
    better = {days: _auc(stateful) - _auc(played) for days, played in by_days.items()}
    say(f"  better than twins by {better}")
    return at_least(
        better[1],
        _BOUND,
        better_than_every_days={str(days): round(by, 4) for days, by in better.items()},
        worst_pair=round(_worst_pair(stateful, by_days[1]), 4),
        learned_stateful=[played.learned for played in stateful],
        learned_stateless=[played.learned for played in by_days[1]],
        roc_auc_stateful=[round(played.roc_auc, 4) for played in stateful],
        roc_auc_stateless={
            str(days): [round(p.roc_auc, 4) for p in played] for days, played in by_days.items()
        },
    )


def _stage3(seed: int) -> Variant:
    """Give stage 3 with another seed; seed 0 is stage 3 itself, which other claims play too."""
    update = STAGE3.pipeline.update
    if isinstance(update, Stateful) and update.reset is not None and update.reset.subsample is not None:
        drawn = replace(update.reset.subsample, seed=seed)
        update = replace(update, reset=replace(update.reset, subsample=drawn))
    return STAGE3._replace(pipeline=replace(STAGE3.pipeline, seed=seed, update=update))


def _twin(days: int, seed: int, learned: int, *, short: bool) -> Variant:
    twin = STAGE3._replace(every_days=days)
    rows = learned // steps_of(twin, short=short)
    update = Stateless(subsample=Subsample(rows=rows, half_life=_HALF_LIFE, seed=seed))
    name = f"flights-twin-{days}d"
    return twin._replace(pipeline=replace(STAGE3.pipeline, name=name, seed=seed, update=update))


def _auc(played: Sequence[Played]) -> float:
    return mean(one.roc_auc for one in played)


def _worst_pair(first: Sequence[Played], second: Sequence[Played]) -> float:
    return min(a.roc_auc - b.roc_auc for a, b in zip(first, second, strict=True))
