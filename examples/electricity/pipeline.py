"""Four pipelines on the same half hours, with the same model: from stage to stage, two fields at most.

==========  ============================================================  =====================
move        what changes, apart from the name                             what updates it then
==========  ============================================================  =====================
to stage 2  ``triggers``                                                  the clock
to stage 3  ``update``                                                    the clock
to stage 4  ``triggers``, and ``pace``, which holds them back             what monitoring finds
==========  ============================================================  =====================
"""

from examples.electricity.data import FEATURES
from examples.electricity.model import boosted_trees
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.trigger import AllOf, Trigger
from headwater.spec.updating.triggers.drift import Drift
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.triggers.schedule import Every
from headwater.spec.updating.update import Reset, Stateful, Stateless, Subsample, Update

__all__ = ["never", "stage2", "stage3", "stage4"]


_WEEK_ROWS = 336
# Whole weeks, since working days and weekends differ: days would seem to drift every Saturday.
# Their labels are few: a quarter of a year's are judged together.
_MONITORING = Monitoring(
    window="7d", label_windows=13, least=_WEEK_ROWS // 2, reference_rows=12 * _WEEK_ROWS
)
_ANY_PACE = Pace()
# The market changes from month to month: what is two weeks older counts half as much.
_RECENT = Subsample(rows=4 * _WEEK_ROWS, half_life="14d")
_STATELESS = Stateless(window="90d", subsample=_RECENT)
# Refitting leaves does not change trees: they are grown anew every month.
_STATEFUL = Stateful(window="90d", reset=Reset(every="30d", window="90d", subsample=_RECENT))


def _electricity(name: str, update: Update, *triggers: Trigger, pace: Pace = _ANY_PACE) -> Pipeline:
    """Predict, as a half hour begins, whether its price will be up on the mean of the last 24 hours.

    The label is known a day later.
    """
    return Pipeline(
        name=name,
        task="binary",
        features=FEATURES,
        label=LabelRule(wait="1d"),
        model=boosted_trees,
        metrics=("roc_auc", "log_loss", "accuracy"),
        monitoring=_MONITORING,
        update=update,
        triggers=triggers,
        pace=pace,
        gate=None,  # the rehearsal has judged, and the newest days are worth more than a second look
    )


never = _electricity("electricity-never", _STATELESS)
stage2 = _electricity("electricity-stage2", _STATELESS, Every("1d"))
stage3 = _electricity("electricity-stage3", _STATEFUL, Every("1d"))
stage4 = _electricity(
    "electricity-stage4",
    _STATEFUL,
    # A hard week is no reason to update: the rehearsal says whether an update would have helped.
    Performance(gain=0.02, sure=1.0, update="stateless"),
    AllOf((Drift(), Performance(fall=0.05)), update="stateless"),
    pace=Pace(cool_down="7d"),
)
