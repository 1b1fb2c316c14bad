"""The OpenAPI document: FastAPI's own, and the hot routes, which FastAPI does not know.

It describes exactly the features that each pipeline takes, so that a generated client or a fuzzer sends
valid requests.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from msgspec import UNSET

from headwater.serving.api.problems import Problem
from headwater.serving.api.schemas import (
    MOST_ITEMS,
    BatchAnswer,
    LabelResult,
    LabelResults,
    PredictionAnswer,
    PredictionAnswers,
)
from headwater.serving.http.operator_routes import ORCHESTRATED
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import LabelValue
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.serving.batch import LONGEST_KEY

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
_ID = {"type": "string", "minLength": 1, "maxLength": 200}
_ENTITY = {"type": "object", "propertyNames": _ID, "additionalProperties": _ID, "maxProperties": 20}
_VALUES: dict[str, dict[str, Any]] = {
    "float": {"type": "number", "description": "Finite, as a float of 64 bits"},
    "int": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
}
_LABELS: dict[Task, dict[str, Any]] = {
    "binary": _VALUES["bool"],
    "multiclass": _VALUES["str"],
    "regression": _VALUES["float"],
}
_EXAMPLES: dict[str, object] = {"float": 1.5, "int": 2, "str": "text", "bool": True}
_TRUTHS: dict[Task, LabelValue] = {"binary": True, "multiclass": "red", "regression": 3.5}
_PROBLEMS = {
    "401": "A key is needed, once the first was made",
    "403": "The key does not allow this; without keys: another host, or a page of another site",
    "404": "No such pipeline, or no such prediction",
    "408": "The body came too slowly",
    "409": "The id or the key came before with another content",
    "413": "The body is too long",
    "422": "The request does not fit; the detail names the field",
    "429": "Too many requests of this key: send it again later",
    "500": "The service failed",
    "503": "Not ready, or overloaded: send it again later",
}


def describe(app: FastAPI, pipelines: Sequence[Pipeline]) -> None:
    """Let ``/openapi.json`` describe all routes, with the features of these pipelines, and examples.

    Parameters
    ----------
    app
        The service, with all its routes.
    pipelines
        The pipelines that it serves.
    """
    own = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = own()
            _extend(document, pipelines)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _extend(document: dict[str, Any], pipelines: Sequence[Pipeline]) -> None:
    types = [PredictionAnswer, PredictionAnswers, LabelResult, LabelResults, BatchAnswer, Problem]
    schemas, components = msgspec.json.schema_components([*types, *ORCHESTRATED], ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]  # no key is needed until the first is made
    answer, answers, labelled, results, batch_answer, problem = schemas[: len(types)]
    names = [pipeline.name for pipeline in pipelines]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"] |= _problems(problem)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "pipeline" and parameter["in"] == "path":
                    parameter["schema"] = {"type": "string", "enum": names}
    several = len(pipelines) > 1
    document["paths"]["/predict"] = _post(
        "Predict one, or many in predictions. The answer comes once the record is durable.",
        [request for pipeline in pipelines for request in _predictions(pipeline, several)],
        _either(answer, answers),
        problem,
        {pipeline.name: {"value": _prediction(pipeline)} for pipeline in pipelines},
    )
    document["paths"]["/labels"] = _post(
        "Label one prediction, or many in labels, each with its own result.",
        [request for pipeline in pipelines for request in _labels(pipeline, several)],
        _either(labelled, results),
        problem,
        {pipeline.name: {"value": _truth(pipeline)} for pipeline in pipelines},
    )
    for pipeline in pipelines:
        if pipeline.batch is not None:
            path = f"/batch/{pipeline.name}/{{key}}"
            document["paths"][path] = _batch(pipeline, batch_answer, problem)


def _batch(pipeline: Pipeline, answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    """Describe the look-up by key and, if it falls through, the request with features."""
    key = {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY}
    parameter = {"name": "key", "in": "path", "required": True, "schema": key, "example": "customer-17"}
    get = {
        "summary": "Look up what the newest batch run predicted for a key, with its age.",
        "tags": ["predictions"],
        "responses": {"200": _content("Its answer", "application/json", answer)} | _problems(problem),
    }
    path: dict[str, Any] = {"parameters": [parameter], "get": get}
    if pipeline.batch is not None and pipeline.batch.fall_through:
        features = {feature.name: _value(feature) for feature in pipeline.features}
        item = {"features": _object(features, list(features)), "id": _ID, "unit": _ID}
        example = {"features": _prediction(pipeline)["features"]}
        path |= _post(
            "Look a key up; if it has no answer, the online model predicts, which is durable.",
            [_object(item, ["features"])],
            answer,
            problem,
            {pipeline.name: {"value": example}},
        )
    return path


def _predictions(pipeline: Pipeline, several: bool) -> list[dict[str, Any]]:
    """Return the schemas of a request for one prediction, and of one for many."""
    features = {feature.name: _value(feature) for feature in pipeline.request_features}
    item = {
        "features": _object(features, list(features)),
        "id": _ID,
        "entity": _entity(pipeline.entity_keys),
        "unit": _ID,
    }
    needed = [*(["features"] if features else []), *(["entity"] if pipeline.entity_keys else [])]
    many = {"type": "array", "items": _object(item, needed), **_SOME}
    return [
        _of(pipeline, several, item, *needed),
        _of(pipeline, several, {"predictions": many}, "predictions"),
    ]


def _labels(pipeline: Pipeline, several: bool) -> list[dict[str, Any]]:
    """Return the schemas of a request with one label, and of one with many."""
    item = {
        "prediction_id": _ID,
        "value": _LABELS[pipeline.task],
        "known_at": {"type": "string", "format": "date-time"},
        "source": {"enum": ["natural", "human", "timeout"]},
        "key": _ID,
    }
    # Any item is accepted, since each has its own result, which refuses an item that does not fit.
    words = "Each as a single label, without pipeline; a label that does not fit is refused alone"
    many = {"type": "array", "items": {"description": words}, **_SOME}
    return [
        _of(pipeline, several, item, "prediction_id", "value"),
        _of(pipeline, several, {"labels": many}, "labels"),
    ]


_SOME = {"minItems": 1, "maxItems": MOST_ITEMS}


def _of(pipeline: Pipeline, several: bool, parts: dict[str, Any], *required: str) -> dict[str, Any]:
    pipeline_field = {
        "pipeline": {"const": pipeline.name, "description": "May be left out if only one is served"}
    }
    return _object(pipeline_field | parts, [*required, *(["pipeline"] if several else [])])


def _object(parts: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": parts,
        "required": required,
        "additionalProperties": False,
    }


def _entity(needed: Sequence[str]) -> dict[str, Any]:
    """Return the schema of entity keys: those that look-ups need, and any other."""
    if not needed:
        return _ENTITY
    return _ENTITY | {"properties": dict.fromkeys(needed, _ID), "required": list(needed)}


def _value(feature: FeatureKind) -> dict[str, Any]:
    value = _VALUES[feature.dtype]
    declared = {"minimum": feature.low, "maximum": feature.high, "enum": feature.categories}
    value = value | {name: limit for name, limit in declared.items() if limit is not UNSET}
    return {"anyOf": [value, {"type": "null"}]} if feature.nullable else value


def _either(one: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [one, many]}


def _post(
    summary: str,
    requests: list[dict[str, Any]],
    answer: dict[str, Any],
    problem: dict[str, Any],
    examples: dict[str, Any],
) -> dict[str, Any]:
    content = {"schema": {"oneOf": requests}, "examples": examples}
    return {
        "post": {
            "summary": summary,
            "tags": ["predictions"],
            "requestBody": {"required": True, "content": {"application/json": content}},
            "responses": {"200": _content("It is durable", "application/json", answer)}
            | _problems(problem),
        }
    }


def _problems(problem: dict[str, Any]) -> dict[str, Any]:
    return {
        status: _content(words, "application/problem+json", problem)
        for status, words in _PROBLEMS.items()
    }


def _content(words: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {kind: {"schema": schema}}}


def _prediction(pipeline: Pipeline) -> dict[str, Any]:
    features = {feature.name: _example(feature) for feature in pipeline.request_features}
    example: dict[str, Any] = {"pipeline": pipeline.name, "id": "order-17"}
    if features:
        example["features"] = features
    if pipeline.entity_keys:
        example["entity"] = {name: f"{name}-17" for name in pipeline.entity_keys}
    return example


def _example(feature: FeatureKind) -> object:
    """Return an example of a feature's value."""
    if feature.categories is not UNSET:
        return feature.categories[0]
    if feature.low is not UNSET:
        return feature.low
    return _EXAMPLES[feature.dtype] if feature.high is UNSET else feature.high


def _truth(pipeline: Pipeline) -> dict[str, Any]:
    value = _TRUTHS[pipeline.task]
    return {"pipeline": pipeline.name, "prediction_id": "order-17", "value": value, "key": "first"}
