"""The table of operations: routes, OpenAPI document, scopes and clients are made from its rows.

One function executes a row. Rows of operators name it here: a worker passes the request on, and the
keeper calls the function. A worker answers all other rows from its own models and files
(:mod:`headwater.serving.http`).
"""

from types import NoneType
from typing import Any

from headwater.serving.api.operation import Operation, Scope
from headwater.serving.api.operator_calls import (
    make_champion,
    name_class,
    pause_or_resume,
    quarantine,
)
from headwater.serving.api.operator_schemas import (
    ChampionBody,
    LearningBody,
    NameClassBody,
    QuarantineBody,
    RoutingBody,
    ShadowBody,
    VersionsQuery,
)
from headwater.serving.api.queue_schemas import (
    AnswerRequest,
    AnswerResult,
    ClaimAnswer,
    ClaimRequest,
    SkipRequest,
    SkipResult,
)
from headwater.serving.api.schemas import (
    BatchAnswer,
    BatchItem,
    LabelRequest,
    LabelResult,
    LabelResults,
    PredictionAnswer,
    PredictionAnswers,
    PredictionQuery,
    PredictRequest,
)
from headwater.spec.data.records import Recorded
from headwater.spec.rulings import AppearedClass, Learning, Reign, RoutingStatus, VersionInRole
from headwater.spec.serving.queue_results import KnownClass, QueueStatistics

__all__ = [
    "ADD_SHADOW",
    "ANSWER",
    "BATCH_ANSWER",
    "BATCH_PREDICT",
    "CHAMPION",
    "CLAIM",
    "CLASSES",
    "DOCS",
    "DROP_SHADOW",
    "LABEL",
    "LEARN",
    "LEARNING",
    "METRICS",
    "NAME_CLASS",
    "NEW_CLASSES",
    "OPENAPI",
    "OPERATIONS",
    "PIPELINE",
    "PIPELINES",
    "PREDICT",
    "PREDICTION",
    "QUARANTINE",
    "QUEUE",
    "ROUTE",
    "ROUTING",
    "SKIP",
    "V2_INFER",
    "V2_INFER_VERSION",
    "V2_LIVE",
    "V2_MODEL",
    "V2_MODEL_READY",
    "V2_READY",
    "V2_SERVER",
    "V2_VERSION",
    "V2_VERSION_READY",
    "VERSIONS",
]


PREDICT = Operation[PredictRequest, object](
    name="predict",
    at="POST /predict",
    takes=PredictRequest,
    gives=(PredictionAnswer, PredictionAnswers),
    scopes=("predict",),
    tag="predictions",
    words="Predict one, or many in predictions. The answer comes once the record is durable.",
)
LABEL = Operation[LabelRequest, object](
    name="label",
    at="POST /labels",
    takes=LabelRequest,
    gives=(LabelResult, LabelResults),
    scopes=("label",),
    tag="predictions",
    words="Label one prediction, or many in labels, each with its own result.",
)
PREDICTION = Operation[PredictionQuery, Recorded](
    name="prediction",
    at="GET /predictions/{prediction_id:any}",
    takes=PredictionQuery,
    gives=Recorded,
    scopes=("read",),
    tag="predictions",
    words="Return the record of a prediction: features as served, answer, labels as they came.",
)
BATCH_ANSWER = Operation[None, BatchAnswer](
    name="batch answer",
    at="GET /batch/{pipeline}/{key:any}",
    takes=NoneType,
    gives=BatchAnswer,
    scopes=("read", "predict"),
    tag="predictions",
    words="Look up the newest batch run's prediction for a key, with its age.",
)
BATCH_PREDICT = Operation[BatchItem, BatchAnswer](
    name="batch answer or predict",
    at="POST /batch/{pipeline}/{key:any}",
    takes=BatchItem,
    gives=BatchAnswer,
    scopes=("predict",),
    tag="predictions",
    words="Look a key up. If it has no answer the online model predicts, and that is durable.",
)
PIPELINES = Operation[None, list[dict[str, Any]]](
    name="pipelines",
    at="GET /pipelines",
    takes=NoneType,
    gives=list[dict[str, Any]],
    scopes=("read",),
    tag="pipelines",
    words="Return the status of each pipeline: what is declared and serves, learning, alarms.",
)
PIPELINE = Operation[None, dict[str, Any]](
    name="pipeline",
    at="GET /pipelines/{pipeline}",
    takes=NoneType,
    gives=dict[str, Any],
    scopes=("read",),
    tag="pipelines",
    words="Return the status of one pipeline, as the list of all has it.",
)
QUEUE = Operation[None, QueueStatistics](
    name="queue",
    at="GET /queue/{pipeline}",
    takes=NoneType,
    gives=QueueStatistics,
    scopes=("read",),
    tag="queue for people",
    words="Count open and answered questions, and measure the agreement of people.",
)
CLASSES = Operation[None, list[KnownClass]](
    name="classes",
    at="GET /queue/{pipeline}/classes",
    takes=NoneType,
    gives=list[KnownClass],
    scopes=("read", "label"),
    tag="queue for people",
    words="List the classes that people may answer with, and how to show them.",
)
CLAIM = Operation[ClaimRequest, ClaimAnswer](
    name="claim",
    at="POST /queue/{pipeline}/claim",
    takes=ClaimRequest,
    gives=ClaimAnswer,
    scopes=("label",),
    tag="queue for people",
    words="Lease questions to a person. "
    "Those that the person holds come first, with a new lease: the request may be sent again. "
    "503 if no question waits, and the queue has not looked at all records yet.",
    example={"person": "ada", "many": 5},
)
ANSWER = Operation[AnswerRequest, AnswerResult](
    name="answer",
    at="POST /queue/{pipeline}/answer",
    takes=AnswerRequest,
    gives=AnswerResult,
    scopes=("label",),
    tag="queue for people",
    words="Record a person's answer as a label with source human; it is durable then. The same again is "
    "known already; another value is a revision. If two people differ a third is "
    "asked, whose label counts.",
    example={"person": "ada", "prediction_id": "order-17", "value": True},
)
SKIP = Operation[SkipRequest, SkipResult](
    name="skip",
    at="POST /queue/{pipeline}/skip",
    takes=SkipRequest,
    gives=SkipResult,
    scopes=("label",),
    tag="queue for people",
    words="Skip a question for good. Other people are asked, until three have skipped it.",
    example={"person": "ada", "prediction_id": "order-17"},
)
ROUTING = Operation[None, RoutingStatus](
    name="routing",
    at="GET /pipelines/{pipeline}/routing",
    takes=NoneType,
    gives=RoutingStatus,
    scopes=("read", "operate"),
    tag="operations",
    words="Return the routing, its history, and the progress of shadows.",
    call=lambda operator, _body, _by: operator.routing.status(),
)
ROUTE = Operation[RoutingBody, RoutingStatus](
    name="route",
    at="PUT /pipelines/{pipeline}/routing",
    takes=RoutingBody,
    gives=RoutingStatus,
    scopes=("operate",),
    tag="operations",
    words="Set how requests are routed. Workers follow within a moment, between two requests.",
    example={"routing": {"type": "canary", "share": 0.1, "version": "1"}, "reason": "a try"},
    call=lambda operator, body, by: operator.routing.set(
        body.routing, by=by, reason=body.reason, expected=body.expected
    ),
)
ADD_SHADOW = Operation[ShadowBody, RoutingStatus](
    name="add shadow",
    at="POST /pipelines/{pipeline}/shadows/add",
    takes=ShadowBody,
    gives=RoutingStatus,
    scopes=("operate",),
    tag="operations",
    words="Let a version predict beside the answer, from the next prediction on.",
    example={"version": "1"},
    call=lambda operator, body, by: operator.routing.add_shadow(body.version, by=by, reason=body.reason),
)
DROP_SHADOW = Operation[ShadowBody, RoutingStatus](
    name="drop shadow",
    at="POST /pipelines/{pipeline}/shadows/drop",
    takes=ShadowBody,
    gives=RoutingStatus,
    scopes=("operate",),
    tag="operations",
    words="Let a version stop predicting beside the answer. Its outputs stay.",
    example={"version": "1"},
    call=lambda operator, body, by: operator.routing.drop_shadow(
        body.version, by=by, reason=body.reason
    ),
)
LEARNING = Operation[None, Learning](
    name="learning",
    at="GET /pipelines/{pipeline}/learning",
    takes=NoneType,
    gives=Learning,
    scopes=("read", "operate"),
    tag="operations",
    words="Return the pause of learning, and the quarantined offsets.",
    call=lambda operator, _body, _by: operator.learning(),
)
LEARN = Operation[LearningBody, Learning](
    name="learn",
    at="PUT /pipelines/{pipeline}/learning",
    takes=LearningBody,
    gives=Learning,
    scopes=("operate",),
    tag="operations",
    words="Pause online learning, or let it go on. No label that came meanwhile is lost.",
    example={"paused": True, "reason": "a broken sensor"},
    call=pause_or_resume,
)
QUARANTINE = Operation[QuarantineBody, Learning](
    name="quarantine",
    at="POST /pipelines/{pipeline}/quarantine",
    takes=QuarantineBody,
    gives=Learning,
    scopes=("operate",),
    tag="operations",
    words="Exclude offsets from every later recipe, and at once from online learning.",
    example={"spans": [{"start": 0, "stop": 1}], "reason": "a broken sensor"},
    call=quarantine,
)
NEW_CLASSES = Operation[None, list[AppearedClass]](
    name="new classes",
    at="GET /pipelines/{pipeline}/classes",
    takes=NoneType,
    gives=list[AppearedClass],
    scopes=("read", "operate"),
    tag="operations",
    words="List the classes of labels that were not declared, and how many labels are held back.",
    call=lambda operator, _body, _by: operator.classes(),
)
NAME_CLASS = Operation[NameClassBody, list[AppearedClass]](
    name="name class",
    at="POST /pipelines/{pipeline}/classes",
    takes=NameClassBody,
    gives=list[AppearedClass],
    scopes=("operate",),
    tag="operations",
    words="Say what a new class is: itself, or a known one. Labels held back for it make examples then.",
    example={"name": "gren", "becomes": "green", "reason": "a typing error"},
    call=name_class,
)
VERSIONS = Operation[VersionsQuery, list[VersionInRole]](
    name="versions",
    at="GET /pipelines/{pipeline}/versions",
    takes=VersionsQuery,
    gives=list[VersionInRole],
    scopes=("read", "operate"),
    tag="operations",
    words="List the newest versions with their roles, oldest first.",
    call=lambda operator, query, _by: operator.versions(query.last),
)
CHAMPION = Operation[ChampionBody, Reign](
    name="champion",
    at="POST /pipelines/{pipeline}/champion",
    takes=ChampionBody,
    gives=Reign,
    scopes=("operate",),
    tag="operations",
    words="Promote a version once its state is verified, or roll back to an earlier champion. "
    "The request may be repeated if it names the version. A service that learns each label catches an "
    'earlier version up: quarantine what ruined the later one, or "learned" for all since then.',
    example={"version": "1", "reason": "it is better"},
    call=make_champion,
)
METRICS = Operation[None, str](
    name="metrics",
    at="GET /metrics",
    takes=NoneType,
    gives=str,
    scopes=("read",),
    tag="operations",
    words="Return the metrics of all workers, for Prometheus.",
)
OPENAPI = Operation[None, dict[str, Any]](
    name="openapi",
    at="GET /openapi.json",
    takes=NoneType,
    gives=dict[str, Any],
    scopes=("read",),
    tag="documentation",
    words="Return this document.",
)
DOCS = Operation[None, str](
    name="docs",
    at="GET /docs",
    takes=NoneType,
    gives=str,
    scopes=("read",),
    tag="documentation",
    words="Return the page that shows this document.",
)


_V2 = Operation[None, dict[str, Any]]


def _v2(name: str, at: str, words: str, scopes: tuple[Scope, ...] = ("read", "predict")) -> _V2:
    """Make a row of the Open Inference Protocol, which has its own answers and errors."""
    return Operation(
        name=name,
        at=at,
        takes=NoneType,
        gives=dict[str, Any],
        scopes=scopes,
        tag="Open Inference Protocol",
        words=words,
    )


_VERSION = "/v2/models/{model}/versions/{version}"
V2_SERVER = _v2("server metadata", "GET /v2", "Return the server's name and extensions.")
V2_LIVE = _v2("live", "GET /v2/health/live", "Return whether the service lives.", ())
V2_READY = _v2("ready", "GET /v2/health/ready", "Return whether any pipeline would answer.", ())
V2_MODEL = _v2("model metadata", "GET /v2/models/{model}", "Return a pipeline's inputs and outputs.")
V2_MODEL_READY = _v2(
    "model ready", "GET /v2/models/{model}/ready", "Return whether a pipeline would answer."
)
V2_VERSION = _v2("version metadata", f"GET {_VERSION}", "Return a pipeline's inputs and outputs.")
V2_VERSION_READY = _v2("version ready", f"GET {_VERSION}/ready", "Return whether this version serves.")
V2_INFER = _v2(
    "infer",
    "POST /v2/models/{model}/infer",
    "Predict a row for each value of the tensors. Answered when the records are durable.",
    ("predict",),
)
V2_INFER_VERSION = _v2(
    "infer by version",
    f"POST {_VERSION}/infer",
    "Predict by the version that serves; another one is refused.",
    ("predict",),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = tuple(
    row for row in list(globals().values()) if isinstance(row, Operation)
)
"""Every row of this module."""
