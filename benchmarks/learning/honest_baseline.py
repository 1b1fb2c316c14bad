"""What is simplest to run: weekly retraining of scikit-learn's histogram boosting on sixty days."""

from msgspec.structs import replace

from benchmarks.claim import Outcome
from benchmarks.learning.year import NEVER, STAGE2, STAGE3, Variant, play_all, table_row
from benchmarks.models import histogram_boosting
from headwater.spec.updating.triggers.schedule import Every
from headwater.spec.updating.update import Stateless

__all__ = ["measure"]

_BASELINE = Variant(
    replace(
        STAGE2.pipeline,
        name="flights-baseline",
        model=histogram_boosting,
        update=Stateless(window="60d"),
        triggers=(Every("7d"),),
    ),
    7,
)


def measure(*, short: bool) -> Outcome:
    """Play it through the same year as the three pipelines; reported, whoever wins (an hour).

    ``ratio`` is its ROC AUC less that of stage 3: positive where the baseline wins.
    """
    baseline, stage2, stage3, never = play_all([_BASELINE, STAGE2, STAGE3, NEVER], short=short)
    return Outcome(
        ratio=baseline.roc_auc - stage3.roc_auc,
        bound=None,
        holds=True,
        numbers={
            "never": table_row(never),
            "stage2": table_row(stage2),
            "stage3": table_row(stage3),
            "baseline": table_row(baseline),
        },
    )
