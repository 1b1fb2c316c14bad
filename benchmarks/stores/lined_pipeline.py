"""The pipeline of the claim `stores`: it learns each label, and reads a batch feature's table."""

from benchmarks.models import quick_sgd
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["pipeline"]

pipeline = Pipeline(
    name="lined",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="1d"),
    model=quick_sgd,
    update=Stateful(),
    learn="each label",
    batch_rows=20,
    gate=None,
)
