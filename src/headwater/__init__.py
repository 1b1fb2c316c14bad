"""headwater keeps a production model learning.

Every name here is loaded when it is first asked for (PEP 562), so that importing a room costs nothing
else.

>>> import headwater
>>> headwater.duration("90d")
datetime.timedelta(days=90)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.features.label_queue import LabelQueue
    from headwater.features.log import FeatureLog
    from headwater.infra.clock import SimulatedClock, SystemClock
    from headwater.infra.settings import Settings, settings
    from headwater.learners.boosting import Boosted
    from headwater.loop.batch_predict import batch_predict
    from headwater.loop.binding import Bound
    from headwater.loop.carry_out import carry_out
    from headwater.loop.collect import collect
    from headwater.loop.decide import decide
    from headwater.loop.history import Columns, import_history
    from headwater.loop.materialise import materialise
    from headwater.loop.rebuild import rebuild
    from headwater.loop.replay import Replay
    from headwater.loop.update import train
    from headwater.serving.client import AsyncClient, Client
    from headwater.spec.batch import BatchPrediction
    from headwater.spec.duration import duration
    from headwater.spec.errors import HeadwaterError, HeadwaterWarning
    from headwater.spec.feature import Feature
    from headwater.spec.feature_table import FeatureTable
    from headwater.spec.gate import Gate
    from headwater.spec.label import LabelRule
    from headwater.spec.loading import load_pipeline
    from headwater.spec.monitoring import Monitoring
    from headwater.spec.pace import Pace
    from headwater.spec.pipeline import Pipeline
    from headwater.spec.queue import People
    from headwater.spec.recipe import OffsetRange
    from headwater.spec.records import Label, Prediction
    from headwater.spec.routing import ABTest, Bandit, Canary, ChampionOnly, Shadow
    from headwater.spec.serve_best import ServeBest
    from headwater.spec.serving import Serving
    from headwater.spec.source import DeltaSource, ParquetSource, QuerySource
    from headwater.spec.trigger import (
        AllOf,
        AnyOf,
        AtLeast,
        CostAware,
        Cron,
        Drift,
        Every,
        Performance,
        Volume,
    )
    from headwater.spec.update import Reset, Stateful, Stateless, Subsample

__all__ = [
    "ABTest",
    "AllOf",
    "AnyOf",
    "AsyncClient",
    "AtLeast",
    "Bandit",
    "BatchPrediction",
    "Boosted",
    "Bound",
    "Canary",
    "ChampionOnly",
    "Client",
    "Columns",
    "CostAware",
    "Cron",
    "DeltaSource",
    "Drift",
    "Every",
    "Feature",
    "FeatureLog",
    "FeatureTable",
    "Gate",
    "HeadwaterError",
    "HeadwaterWarning",
    "Label",
    "LabelQueue",
    "LabelRule",
    "Monitoring",
    "OffsetRange",
    "Pace",
    "ParquetSource",
    "People",
    "Performance",
    "Pipeline",
    "Prediction",
    "QuerySource",
    "Replay",
    "Reset",
    "ServeBest",
    "Serving",
    "Settings",
    "Shadow",
    "SimulatedClock",
    "Stateful",
    "Stateless",
    "Subsample",
    "SystemClock",
    "Volume",
    "batch_predict",
    "carry_out",
    "collect",
    "decide",
    "duration",
    "import_history",
    "load_pipeline",
    "materialise",
    "rebuild",
    "settings",
    "train",
]

_NAMES = {
    "features.label_queue": ("LabelQueue",),
    "features.log": ("FeatureLog",),
    "infra.clock": ("SimulatedClock", "SystemClock"),
    "infra.settings": ("Settings", "settings"),
    "learners.boosting": ("Boosted",),
    "loop.batch_predict": ("batch_predict",),
    "loop.binding": ("Bound",),
    "loop.carry_out": ("carry_out",),
    "loop.collect": ("collect",),
    "loop.decide": ("decide",),
    "loop.history": ("Columns", "import_history"),
    "loop.materialise": ("materialise",),
    "loop.rebuild": ("rebuild",),
    "loop.replay": ("Replay",),
    "loop.update": ("train",),
    "serving.client": ("AsyncClient", "Client"),
    "spec.batch": ("BatchPrediction",),
    "spec.duration": ("duration",),
    "spec.errors": ("HeadwaterError", "HeadwaterWarning"),
    "spec.feature": ("Feature",),
    "spec.feature_table": ("FeatureTable",),
    "spec.gate": ("Gate",),
    "spec.label": ("LabelRule",),
    "spec.loading": ("load_pipeline",),
    "spec.monitoring": ("Monitoring",),
    "spec.pace": ("Pace",),
    "spec.pipeline": ("Pipeline",),
    "spec.queue": ("People",),
    "spec.recipe": ("OffsetRange",),
    "spec.records": ("Label", "Prediction"),
    "spec.routing": ("ABTest", "Bandit", "Canary", "ChampionOnly", "Shadow"),
    "spec.serve_best": ("ServeBest",),
    "spec.serving": ("Serving",),
    "spec.source": ("DeltaSource", "ParquetSource", "QuerySource"),
    "spec.trigger": (
        "AllOf",
        "AnyOf",
        "AtLeast",
        "CostAware",
        "Cron",
        "Drift",
        "Every",
        "Performance",
        "Volume",
    ),
    "spec.update": ("Reset", "Stateful", "Stateless", "Subsample"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
