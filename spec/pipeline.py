"""The pipeline that a user declares: features, label, learner, metrics, update and triggers."""

import inspect
import re
from collections.abc import Callable
from typing import Literal

import msgspec

from headwater.spec.data.feature import BatchFeature, FeatureKind, RequestFeature, StreamingFeature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.label import LabelRule
from headwater.spec.data.label_checks import check_due, check_label
from headwater.spec.errors import DeclarationError, few
from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.serving.queue import People
from headwater.spec.serving.routing import ChampionOnly, Routing, check_routing
from headwater.spec.serving.serving import Learning, Serving
from headwater.spec.updating.gate import Gate
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.trigger import Trigger, leaves
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.update import Stateful, Stateless, Update

__all__ = ["METRICS", "Factory", "Metric", "Pipeline", "Promotion", "Task"]

Task = Literal["binary", "multiclass", "regression", "ranking"]
Metric = Literal["roc_auc", "log_loss", "accuracy", "f1", "mae", "rmse"]
Promotion = Literal["always", "by hand"]
Factory = Callable[[], object]
"""Makes the unfitted estimator: a named function of no arguments in a module or file."""

METRICS: dict[Task, tuple[Metric, ...]] = {
    "binary": ("roc_auc", "log_loss", "accuracy", "f1"),
    "multiclass": ("accuracy", "f1", "log_loss"),
    "regression": ("mae", "rmse"),
    "ranking": (),
}

_NAME = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """One model, from its features to its updates.

    Parameters
    ----------
    name
        Lower-case letters, digits and hyphens; names the registered model, the tables and the flows.
    task
        ``"binary"`` (labels are bool), ``"multiclass"`` (labels are str, of any class unless ``label``
        names them) or ``"regression"`` (labels are float). ``"ranking"`` is reserved.
    features
        What the model sees, in this order.
    label
        How labels come.
    model
        Makes the unfitted estimator: a named function of no arguments, whose module is kept with
        every version so that the version can be rebuilt.
    update
        :class:`Stateless` or :class:`Stateful`.
    triggers
        When an update is due; any one that fires is enough. None leaves it to ``headwater train``.
    pace
        How often it may be updated, whatever the triggers say.
    monitoring
        How it is watched: windows, and what they are compared with.
    gate
        What a candidate must pass when a trigger asked for it; None lets every one through.
    metrics
        What it is judged by, the first one first; the task's own if none are given.
    batch_rows
        Learn in batches cut at multiples of this many offsets. None leaves it to the learner: River
        learns one by one, scikit-learn 1,000 at a time, LightGBM all that an update brings.
    passes
        How often an update goes over its examples.
    seed
        Seeds what the update draws.
    threads
        How many threads a learner may compute with.
    learn
        ``"on schedule"`` leaves learning to the flows; ``"each label"`` folds every example as it comes,
        in the service.
    serving
        How it answers over HTTP.
    routing
        Which version answers a request, and which predict beside it; ``headwater routing`` puts another
        in its place while the service runs.
    people
        How people are asked for labels; None if they are not: the pipeline has no label queue.
    tables
        Where batch features are looked up.
    batch
        Which table is scored on a schedule, its answers looked up by key; None scores none.
    promotion
        ``"always"`` makes each new version champion, ``"by hand"`` leaves it to ``headwater promote``.

    Raises
    ------
    DeclarationError
        If the parts do not go together; the text says what to write instead.
    """

    name: str
    task: Task
    features: tuple[FeatureKind, ...]
    label: LabelRule
    model: Factory
    update: Update
    triggers: tuple[Trigger, ...] = ()
    pace: Pace = Pace()
    monitoring: Monitoring = Monitoring()
    gate: Gate | None = Gate()
    metrics: tuple[Metric, ...] = ()
    batch_rows: int | None = None
    passes: int = 1
    seed: int = 0
    threads: int = 1
    learn: Learning = "on schedule"
    serving: Serving = Serving()
    routing: Routing = ChampionOnly()
    people: People | None = None
    tables: tuple[FeatureTable, ...] = ()
    batch: BatchPrediction | None = None
    promotion: Promotion = "always"

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_task(self)
        _check_features(self)
        check_due(self.label, self.features)
        _check_tables(self)
        _check_model(self)
        _check_update(self)
        _check_triggers(self)
        _check_monitoring(self)
        _check_numbers(self)
        check_routing(self.routing, self.task, METRICS[self.task], self.label)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def request_features(self) -> tuple[RequestFeature, ...]:
        """The features that arrive with the call, in order."""
        return tuple(feature for feature in self.features if isinstance(feature, RequestFeature))

    @property
    def entity_keys(self) -> tuple[str, ...]:
        """Names of the entity keys that a call must carry, for features to be looked up."""
        return tuple(dict.fromkeys(key for table in self.tables for key in table.entity))

    def features_of(self, table: str) -> tuple[BatchFeature, ...]:
        """Return the features that are looked up in a table, in order."""
        batch = (feature for feature in self.features if isinstance(feature, BatchFeature))
        return tuple(feature for feature in batch if feature.table == table)

    @property
    def judged_by(self) -> tuple[Metric, ...]:
        """The metrics, or the task's own if none were given."""
        return self.metrics or METRICS[self.task][:2]


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeclarationError(
            f"pipeline name {name!r} is not a name",
            hint="write 2 to 63 lower-case letters, digits and hyphens, such as 'flights'",
        )


def _check_task(pipeline: Pipeline) -> None:
    task = pipeline.task
    if not isinstance(task, str) or task not in METRICS:
        raise DeclarationError(f"task={task!r} is not known", hint=f"write one of {few(METRICS)}")
    if task == "ranking":
        raise DeclarationError(
            "task='ranking' is reserved and cannot be served yet",
            hint="write 'regression' to learn a relevance, say",
        )
    if not isinstance(pipeline.label, LabelRule):
        raise DeclarationError(
            f"label={pipeline.label!r} is not a rule", hint='write label=LabelRule(wait="1d")'
        )
    check_label(pipeline.label, task)
    if not isinstance(pipeline.metrics, tuple):
        raise DeclarationError(
            f"metrics={pipeline.metrics!r} is not a tuple", hint='write metrics=("roc_auc",)'
        )
    for metric in pipeline.metrics:
        if metric not in METRICS[task]:
            raise DeclarationError(
                f"metric {metric!r} does not judge a {task} task",
                hint=f"write one of {few(METRICS[task])}",
            )


def _check_earlier_names(features: tuple[FeatureKind, ...], seen: dict[str, FeatureKind]) -> None:
    called: dict[str, str] = {}
    for feature in features:
        for name in feature.was or ():
            if called.setdefault(name, feature.name) != feature.name:
                raise DeclarationError(
                    f"features {called[name]!r} and {feature.name!r} both have was={name!r}",
                    hint="one of them has its values; give the other default= or fill=",
                )
            if seen.get(name.lower(), feature) is not feature:
                raise DeclarationError(
                    f"feature {feature.name!r} has was={name!r}, and {name!r} is declared, too",
                    hint="give what is new another name: records of before have one value for both",
                )


def _check_features(pipeline: Pipeline) -> None:
    if not isinstance(pipeline.features, tuple) or not pipeline.features:
        raise DeclarationError(
            f"features={pipeline.features!r} is not a tuple of features",
            hint='write features=(Feature("distance", float),)',
        )
    seen: dict[str, FeatureKind] = {}
    for feature in pipeline.features:
        name = getattr(feature, "name", feature)
        if isinstance(feature, StreamingFeature):
            raise DeclarationError(
                f"feature {name!r} is a streaming feature, and those are not served yet",
                hint="let a FeatureTable have it as a batch feature, or send it with the call: "
                f'Feature("{name}", {feature.dtype})',
            )
        if not isinstance(feature, RequestFeature | BatchFeature):
            raise DeclarationError(f"{name!r} is not a feature", hint='write Feature("distance", float)')
        before = seen.get(feature.name.lower())
        if before is not None:
            twice = f"feature {feature.name!r} is declared twice"
            alike = f"features {before.name!r} and {feature.name!r} differ in case alone, which Delta "
            raise DeclarationError(
                twice if before.name == feature.name else f"{alike}Lake does not tell apart",
                hint="give each its own name",
            )
        seen[feature.name.lower()] = feature
    _check_earlier_names(pipeline.features, seen)
    columns = [feature.source_column for feature in pipeline.features]
    if shared := {column for column in columns if columns.count(column) > 1}:
        raise DeclarationError(
            f"several features would be read from column {few(map(repr, sorted(shared)))}",
            hint="give each a column of its own: Feature(..., column='Price (EUR)')",
        )


def _check_tables(pipeline: Pipeline) -> None:
    tables = pipeline.tables
    if not isinstance(tables, tuple) or not all(isinstance(one, FeatureTable) for one in tables):
        raise DeclarationError(
            f"tables={tables!r} is not a tuple of tables", hint="write tables=(FeatureTable(...),)"
        )
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise DeclarationError(f"a table is declared twice among {names}", hint="give each its own name")
    used = {
        feature.table: feature.name for feature in pipeline.features if isinstance(feature, BatchFeature)
    }
    for table, feature in used.items():
        if table not in names:
            raise DeclarationError(
                f"feature {feature!r} is looked up in table {table!r}, which the pipeline does not have",
                hint=f"add it: tables=({', '.join([*names, table])},)",
            )
    for name in names:
        if name not in used:
            raise DeclarationError(
                f"no feature is looked up in table {name!r}",
                hint=f"add {name}.feature('spent', float) to the features, or leave the table out",
            )


def _check_model(pipeline: Pipeline) -> None:
    model = pipeline.model
    name = getattr(model, "__qualname__", "")
    if not inspect.isfunction(model) or not name.isidentifier() or name == "<lambda>":
        raise DeclarationError(
            f"model={model!r} is not a named function at the top of a module",
            hint="write def make_model(): return ... and model=make_model",
        )
    if inspect.signature(model).parameters:
        raise DeclarationError(
            f"model={name} takes arguments", hint="make the estimator in a function of none"
        )


def _check_update(pipeline: Pipeline) -> None:
    if not isinstance(pipeline.update, Stateless | Stateful):
        raise DeclarationError(
            f"update={pipeline.update!r} is not an update",
            hint='write update=Stateless(window="90d") or update=Stateful()',
        )


def _check_triggers(pipeline: Pipeline) -> None:
    if not isinstance(pipeline.triggers, tuple):
        raise DeclarationError(
            f"triggers={pipeline.triggers!r} is not a tuple", hint='write triggers=(Every("1d"),)'
        )
    for trigger in pipeline.triggers:
        if not isinstance(trigger, Trigger):
            raise DeclarationError(
                f"trigger {trigger!r} is not known",
                hint='write Every("1d"), Cron("30 2 * * *"), Drift() or Performance(fall=0.02)',
            )
    for trigger in leaves(pipeline.triggers):
        if trigger.update == "stateful" and isinstance(pipeline.update, Stateless):
            raise DeclarationError(
                f"{trigger!r} asks to fine-tune, and the pipeline's update is stateless",
                hint='write update=Stateful(), or leave update="stateful" out of the trigger',
            )
        if isinstance(trigger, Performance):
            _check_performance(trigger, pipeline)
    if not isinstance(pipeline.pace, Pace):
        raise DeclarationError(
            f"pace={pipeline.pace!r} is not a pace", hint='write pace=Pace(cool_down="1d")'
        )


def _check_performance(trigger: Performance, pipeline: "Pipeline") -> None:
    task = pipeline.task
    if trigger.gain is not None and trigger.metric not in (None, pipeline.judged_by[0]):
        raise DeclarationError(
            f"Performance(gain=...) goes by {trigger.metric!r}, and updates are rehearsed for the first "
            f"metric, {pipeline.judged_by[0]!r}",
            hint="leave metric out, or put that metric first in the pipeline's metrics",
        )
    if trigger.metric is not None and trigger.metric not in METRICS[task]:
        raise DeclarationError(
            f"Performance goes by {trigger.metric!r}, which does not judge a {task} task",
            hint=f"write one of {few(METRICS[task])}",
        )
    if trigger.estimate and task != "binary":
        raise DeclarationError(
            f"Performance(estimate=True) needs probabilities, which a {task} task has not",
            hint="leave estimate out: the trigger then waits for labels",
        )


def _check_monitoring(pipeline: Pipeline) -> None:
    if not isinstance(pipeline.monitoring, Monitoring):
        raise DeclarationError(
            f"monitoring={pipeline.monitoring!r} is not a Monitoring",
            hint='write monitoring=Monitoring(window="1d")',
        )
    if pipeline.gate is not None and not isinstance(pipeline.gate, Gate):
        raise DeclarationError(
            f"gate={pipeline.gate!r} is no gate", hint="write gate=Gate(examples=500)"
        )
    kinds = {feature.name: feature.dtype for feature in pipeline.features}
    for name in pipeline.monitoring.slices:
        if kinds.get(name) not in ("str", "bool"):
            raise DeclarationError(
                f"slice {name!r} is no feature of text or bool",
                hint=f"write one of {few(n for n, kind in kinds.items() if kind in ('str', 'bool'))}",
            )


def _check_numbers(pipeline: Pipeline) -> None:
    for field in ("passes", "threads"):
        value = getattr(pipeline, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DeclarationError(f"{field}={value!r} is not a count", hint=f"write {field}=1")
    if not isinstance(pipeline.seed, int) or isinstance(pipeline.seed, bool) or pipeline.seed < 0:
        raise DeclarationError(f"seed={pipeline.seed!r} is not a seed", hint="write seed=0")
    rows = pipeline.batch_rows
    if rows is not None and (not isinstance(rows, int) or rows < 1):
        raise DeclarationError(f"batch_rows={rows!r} is not a count", hint="write batch_rows=1_000")
    if pipeline.learn not in ("on schedule", "each label"):
        raise DeclarationError(
            f"learn={pipeline.learn!r} is not known", hint="write 'on schedule' or 'each label'"
        )
    if not isinstance(pipeline.serving, Serving):
        raise DeclarationError(
            f"serving={pipeline.serving!r} is not a Serving",
            hint='write serving=Serving(durability="synced")',
        )
    if pipeline.people is not None and not isinstance(pipeline.people, People):
        raise DeclarationError(
            f"people={pipeline.people!r} is not a People", hint="write people=People(random=0.2)"
        )
    if pipeline.batch is not None and not isinstance(pipeline.batch, BatchPrediction):
        raise DeclarationError(
            f"batch={pipeline.batch!r} is not a BatchPrediction",
            hint='write batch=BatchPrediction(source=ParquetSource("people.parquet"), key="person")',
        )
    if pipeline.promotion not in ("always", "by hand"):
        raise DeclarationError(
            f"promotion={pipeline.promotion!r} is not known", hint="write 'always' or 'by hand'"
        )
