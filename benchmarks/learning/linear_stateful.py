"""With a linear model, learning what is new is cheaper than learning a window again, and better too."""

from msgspec.structs import replace

from benchmarks.claim import Outcome, at_least
from benchmarks.learning.year import NEVER, STAGE2, STAGE3, Variant, play_all, table_row
from benchmarks.models import scaled_sgd
from headwater.spec.updating.update import Stateful

__all__ = ["measure"]

_BOUND = 45.0


def measure(*, short: bool) -> Outcome:
    """Compare the three pipelines with a linear model on the numeric features (an hour).

    Stage 3 needs no reset here: a linear model cannot grow out of date as the shape of trees does.
    """
    stage2, stage3, never = play_all([_linear(STAGE2), _linear(STAGE3), _linear(NEVER)], short=short)
    return at_least(
        stage2.learned / stage3.learned,
        _BOUND,
        also=stage3.roc_auc > stage2.roc_auc and stage3.log_loss < stage2.log_loss,
        never=table_row(never),
        stage2=table_row(stage2),
        stage3=table_row(stage3),
    )


def _linear(variant: Variant) -> Variant:
    pipeline = variant.pipeline
    numbers = tuple(feature for feature in pipeline.features if feature.dtype == "float")
    update = Stateful() if isinstance(pipeline.update, Stateful) else pipeline.update
    return variant._replace(
        pipeline=replace(pipeline, model=scaled_sgd, features=numbers, update=update)
    )
