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
    from headwater.features.label_queue.label_queue import LabelQueue
    from headwater.features.log import FeatureLog
    from headwater.infra.clock import SimulatedClock, SystemClock
    from headwater.infra.settings import Settings, settings
    from headwater.learners.lightgbm_learner import Boosted
    from headwater.loop.batch.batch_predict import batch_predict
    from headwater.loop.batch.materialise import materialise
    from headwater.loop.binding import Bound
    from headwater.loop.collect import collect
    from headwater.loop.decision.decide import decide
    from headwater.loop.decision.execute import carry_out
    from headwater.loop.rebuild import rebuild
    from headwater.loop.replay.history import Columns
    from headwater.loop.replay.import_history import ImportPreview, import_history, preview_import
    from headwater.loop.replay.replay import Replay
    from headwater.loop.training.update import train
    from headwater.serving.client.client import AsyncClient, Client
    from headwater.spec.data.feature import Feature
    from headwater.spec.data.feature_table import FeatureTable
    from headwater.spec.data.label import LabelRule
    from headwater.spec.data.records import Label, Prediction
    from headwater.spec.data.source import DeltaSource, ParquetSource, QuerySource
    from headwater.spec.duration import duration
    from headwater.spec.errors import HeadwaterError, HeadwaterWarning
    from headwater.spec.loading import load_pipeline
    from headwater.spec.pipeline import Pipeline
    from headwater.spec.recipe import OffsetRange
    from headwater.spec.serving.batch import BatchPrediction
    from headwater.spec.serving.queue import People
    from headwater.spec.serving.routing import ABTest, Bandit, Canary, ChampionOnly, Shadow
    from headwater.spec.serving.serve_best import ServeBest
    from headwater.spec.serving.serving import Serving
    from headwater.spec.updating.gate import Gate
    from headwater.spec.updating.monitoring import Monitoring
    from headwater.spec.updating.pace import Pace
    from headwater.spec.updating.trigger import AllOf, AnyOf, AtLeast
    from headwater.spec.updating.triggers.cost import CostAware
    from headwater.spec.updating.triggers.drift import Drift
    from headwater.spec.updating.triggers.performance import Performance
    from headwater.spec.updating.triggers.schedule import Cron, Every
    from headwater.spec.updating.triggers.volume import Volume
    from headwater.spec.updating.update import Reset, Stateful, Stateless, Subsample

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
    "ImportPreview",
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
    "preview_import",
    "rebuild",
    "settings",
    "train",
]

_NAMES = {
    "features.label_queue.label_queue": ("LabelQueue",),
    "features.log": ("FeatureLog",),
    "infra.clock": ("SimulatedClock", "SystemClock"),
    "infra.settings": ("Settings", "settings"),
    "learners.lightgbm_learner": ("Boosted",),
    "loop.batch.batch_predict": ("batch_predict",),
    "loop.binding": ("Bound",),
    "loop.decision.execute": ("carry_out",),
    "loop.collect": ("collect",),
    "loop.decision.decide": ("decide",),
    "loop.replay.history": ("Columns",),
    "loop.replay.import_history": ("ImportPreview", "import_history", "preview_import"),
    "loop.batch.materialise": ("materialise",),
    "loop.rebuild": ("rebuild",),
    "loop.replay.replay": ("Replay",),
    "loop.training.update": ("train",),
    "serving.client.client": ("AsyncClient", "Client"),
    "spec.serving.batch": ("BatchPrediction",),
    "spec.duration": ("duration",),
    "spec.errors": ("HeadwaterError", "HeadwaterWarning"),
    "spec.data.feature": ("Feature",),
    "spec.data.feature_table": ("FeatureTable",),
    "spec.updating.gate": ("Gate",),
    "spec.data.label": ("LabelRule",),
    "spec.loading": ("load_pipeline",),
    "spec.updating.monitoring": ("Monitoring",),
    "spec.updating.pace": ("Pace",),
    "spec.pipeline": ("Pipeline",),
    "spec.serving.queue": ("People",),
    "spec.recipe": ("OffsetRange",),
    "spec.data.records": ("Label", "Prediction"),
    "spec.serving.routing": ("ABTest", "Bandit", "Canary", "ChampionOnly", "Shadow"),
    "spec.serving.serve_best": ("ServeBest",),
    "spec.serving.serving": ("Serving",),
    "spec.data.source": ("DeltaSource", "ParquetSource", "QuerySource"),
    "spec.updating.trigger": ("AllOf", "AnyOf", "AtLeast"),
    "spec.updating.triggers.cost": ("CostAware",),
    "spec.updating.triggers.drift": ("Drift",),
    "spec.updating.triggers.performance": ("Performance",),
    "spec.updating.triggers.schedule": ("Cron", "Every"),
    "spec.updating.triggers.volume": ("Volume",),
    "spec.updating.update": ("Reset", "Stateful", "Stateless", "Subsample"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
