"""The OpenAPI document: FastAPI's own, with the hot routes that it does not know."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import FastAPI

from headwater.serving.problems import Problem
from headwater.serving.wire import Answer, Answers, Labelled, LabelRequest, LabelResults, PredictRequest
from headwater.spec.pipeline import Pipeline
from headwater.spec.records import LabelValue

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
_EXAMPLES: dict[str, object] = {"float": 1.5, "int": 2, "str": "text", "bool": True}
_LABELS: dict[str, LabelValue] = {"binary": True, "multiclass": "red", "regression": 3.5}
_PROBLEMS = {
    "408": "The body came too slowly",
    "409": "The id came before, with another content",
    "413": "The body is too long",
    "422": "It does not fit; the detail names the field",
    "404": "No such pipeline",
    "500": "The service failed",
    "503": "Not ready, or too much at a time",
}


def describe(app: FastAPI, pipelines: Sequence[Pipeline]) -> None:
    """Let ``/openapi.json`` tell of the hot routes too, with examples of the pipelines served.

    Parameters
    ----------
    app
        The service, with all its routes.
    pipelines
        What it serves.
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
    types = [PredictRequest, LabelRequest, Answer, Answers, Labelled, LabelResults, Problem]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    predict, label, answer, answers, labelled, results, problem = schemas
    paths = document["paths"]
    paths["/predict"] = {
        "post": _operation(
            "Predict one, or many in predictions. Answered when the record is durable.",
            predict,
            {"anyOf": [answer, answers]},
            problem,
            {pipeline.name: {"value": _prediction(pipeline)} for pipeline in pipelines},
        )
    }
    paths["/labels"] = {
        "post": _operation(
            "Tell the truth of one prediction, or of many in labels, each with its own result.",
            label,
            {"anyOf": [labelled, results]},
            problem,
            {pipeline.name: {"value": _label(pipeline)} for pipeline in pipelines},
        )
    }


def _operation(
    summary: str, request: Any, answer: Any, problem: Any, examples: dict[str, Any]
) -> dict[str, Any]:
    answers = {"200": _content("It is durable", "application/json", answer)}
    for status, words in _PROBLEMS.items():
        answers[status] = _content(words, "application/problem+json", problem)
    return {
        "summary": summary,
        "tags": ["hot"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": request, "examples": examples}},
        },
        "responses": answers,
    }


def _content(words: str, kind: str, schema: Any) -> dict[str, Any]:
    return {"description": words, "content": {kind: {"schema": schema}}}


def _prediction(pipeline: Pipeline) -> dict[str, Any]:
    features = {feature.name: _EXAMPLES[feature.dtype] for feature in pipeline.features}
    return {"pipeline": pipeline.name, "id": "order-17", "features": features}


def _label(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "prediction_id": "order-17",
        "value": _LABELS[pipeline.task],
        "key": "first",
    }
