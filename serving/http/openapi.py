"""The OpenAPI document, made from the table of operations.

What a pipeline takes is in it to the letter, so that a generated client or a fuzzer sends what fits.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import msgspec
from msgspec import UNSET

from headwater.serving.api.operation import Operation
from headwater.serving.api.operations import (
    BATCH_ANSWER,
    BATCH_PREDICT,
    DOCS,
    LABEL,
    OPERATIONS,
    PREDICT,
    V2_INFER,
    V2_INFER_VERSION,
)
from headwater.serving.api.problems import Problem
from headwater.serving.api.schemas import MOST_ITEMS
from headwater.serving.http.idempotency import HEADER, LONGEST
from headwater.serving.http.kserve_v2 import datatypes
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import LabelValue
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.serving.batch import LONGEST_KEY

__all__ = ["document"]

_REF = "#/components/schemas/{name}"
_ID = {"type": "string", "minLength": 1, "maxLength": 200}
_DUE_AT = {"type": ["string", "null"], "format": "date-time"}
_ENTITY = {"type": "object", "propertyNames": _ID, "additionalProperties": _ID, "maxProperties": 20}
_VALUES: dict[str, dict[str, Any]] = {
    "float": {"type": "number", "description": "Finite, as a float of 64 bits"},
    "int": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "str": {"type": "string"},
    "bool": {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]},
}
_LABELS: dict[Task, dict[str, Any]] = {
    "binary": _VALUES["bool"],
    "multiclass": _VALUES["str"],
    "regression": _VALUES["float"],
}
_EXAMPLES: dict[str, object] = {"float": 1.5, "int": 2, "str": "text", "bool": True}
_TRUTHS: dict[Task, LabelValue] = {"binary": True, "multiclass": "red", "regression": 3.5}
_IDEMPOTENCY = {
    row: {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": words,
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
        "example": "order-17-first",
    }
    for row, words in {
        PREDICT: "The id of the prediction, if it has none of its own; each one of many gets an id of "
        "this, a slash and its place from 0. The same request with the same key gets the same answer",
        LABEL: "The key of the label, if it has none of its own; each label of many gets a key of "
        "this, a slash and its place from 0. The same request with the same key is recorded once",
    }.items()
}
_STATUSES = {
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


def document(pipelines: Sequence[Pipeline]) -> dict[str, Any]:
    """Return the OpenAPI document of all operations, with what these pipelines take, and examples."""
    given = [kind for row in OPERATIONS for kind in _kinds(row)]
    taken = [row.takes for row in OPERATIONS if row.example is not None]
    types = [*given, *taken, Problem]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    known = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in OPERATIONS:
        for path, operation in _described(row, pipelines, known):
            paths.setdefault(path, {})[row.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "headwater", "version": "1", "summary": "Predict, label, learn."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],  # no key is needed until the first is made
    }


def _kinds(row: Operation[Any, Any]) -> tuple[type, ...]:
    return row.gives if isinstance(row.gives, tuple) else (row.gives,)


def _key(kind: object) -> str:
    return repr(kind)


def _described(
    row: Operation[Any, Any], pipelines: Sequence[Pipeline], schemas: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe an operation under its path, or under one a pipeline where bodies differ by pipeline."""
    path = row.path.replace(":any", "")
    if row in (BATCH_ANSWER, BATCH_PREDICT):
        for one in pipelines:
            if one.batch is not None and (row is BATCH_ANSWER or one.batch.fall_through):
                yield (
                    path.replace("{pipeline}", one.name),
                    _operation(row, path.replace("{pipeline}", one.name), [one], schemas),
                )
        return
    yield path, _operation(row, path, pipelines, schemas)


def _operation(
    row: Operation[Any, Any],
    path: str,
    pipelines: Sequence[Pipeline],
    schemas: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    summary, _, more = row.words.partition(". ")
    of_one = f" {pipelines[0].name}" if row in (BATCH_ANSWER, BATCH_PREDICT) else ""
    found: dict[str, Any] = {
        "operationId": f"{row.name}{of_one}".replace(" ", "_"),
        "summary": summary.rstrip(".") + ".",
        "tags": [row.tag],
        "responses": {"200": _answer(row, schemas)} | _problems(row, schemas),
    }
    if more:
        found["description"] = more
    if not row.scopes:
        found["security"] = [{}]
    parameters = [*_path_parameters(path, pipelines), *_query_parameters(row, pipelines)]
    if parameters := parameters + ([_IDEMPOTENCY[row]] if row in _IDEMPOTENCY else []):
        found["parameters"] = parameters
    if row.method != "GET":
        found["requestBody"] = {"required": True, "content": _request(row, pipelines, schemas)}
    return found


def _answer(row: Operation[Any, Any], schemas: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if row.gives is str:
        kind = "text/html" if row is DOCS else "text/plain"
        return _content("Done", kind, {"type": "string"})
    one, *many = [schemas[_key(kind)] for kind in _kinds(row)]
    return _content("Done", "application/json", {"anyOf": [one, *many]} if many else one)


def _path_parameters(path: str, pipelines: Sequence[Pipeline]) -> Iterator[dict[str, Any]]:
    names = [pipeline.name for pipeline in pipelines]
    kinds: dict[str, dict[str, Any]] = {
        "pipeline": {"schema": {"type": "string", "enum": names}},
        "model": {"schema": {"type": "string", "enum": names}},
        "version": {"schema": {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}, "example": "1"},
        "prediction_id": {"schema": _ID, "example": "order-17"},
        "key": {
            "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
            "example": "customer-17",
        },
    }
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, **kinds[name]}


def _query_parameters(
    row: Operation[Any, Any], pipelines: Sequence[Pipeline]
) -> Iterator[dict[str, Any]]:
    if row.method != "GET" or row.takes is NoneType:
        return
    (_,), components = msgspec.json.schema_components([row.takes], ref_template=_REF)
    for name, schema in components[row.takes.__name__]["properties"].items():
        parameter = {"name": name, "in": "query", "required": False, "schema": schema}
        if name == "pipeline":
            names = [pipeline.name for pipeline in pipelines]
            several = {"type": "string", "enum": names}
            parameter |= {"schema": several, "required": len(names) > 1, "example": names[0]}
        yield parameter


def _request(
    row: Operation[Any, Any],
    pipelines: Sequence[Pipeline],
    schemas: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    several = len(pipelines) > 1
    by_pipeline: dict[Operation[Any, Any], Callable[[Pipeline], tuple[list[dict[str, Any]], object]]] = {
        PREDICT: lambda one: (_predictions(one, several), _prediction(one)),
        LABEL: lambda one: (_labels(one, several), _truth(one)),
        BATCH_PREDICT: lambda one: ([_batch_item(one)], {"features": _prediction(one)["features"]}),
        V2_INFER: lambda one: ([_inference(one)], _inference_example(one)),
        V2_INFER_VERSION: lambda one: ([_inference(one)], _inference_example(one)),
    }
    if row not in by_pipeline:
        return {"application/json": {"schema": schemas[_key(row.takes)], "example": row.example}}
    described = [(one.name, *by_pipeline[row](one)) for one in pipelines]
    requests = [request for _, some, _ in described for request in some]
    alike = "anyOf" if row in (V2_INFER, V2_INFER_VERSION) else "oneOf"
    return {
        "application/json": {
            "schema": {alike: requests},
            "examples": {name: {"value": example} for name, _, example in described},
        }
    }


def _batch_item(pipeline: Pipeline) -> dict[str, Any]:
    features = {feature.name: _value(feature) for feature in pipeline.features}
    item = {"features": _object(features, list(features)), "id": _ID, "unit": _ID, "due_at": _DUE_AT}
    return _object(item, ["features"])


def _inference(pipeline: Pipeline) -> dict[str, Any]:
    """Describe one row of tensors; more rows, and binary tensors, are the protocol's own."""
    names = [tensor["name"] for tensor in _inference_example(pipeline)["inputs"]]
    tensor = {
        "type": "object",
        "properties": {
            "name": {"enum": names},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype", "data"],
    }
    inputs = {"type": "array", "items": tensor, "minItems": len(names), "maxItems": len(names)}
    return {"type": "object", "properties": {"inputs": inputs}, "required": ["inputs"]}


def _inference_example(pipeline: Pipeline) -> dict[str, Any]:
    tensors = []
    for name, datatype in datatypes(pipeline).items():
        kinds = {one.name: one for one in pipeline.request_features}
        value = _example(kinds[name]) if name in kinds else "customer-17"
        tensors.append({"name": name, "shape": [1], "datatype": datatype, "data": [value]})
    return {"inputs": tensors}


def _predictions(pipeline: Pipeline, several: bool) -> list[dict[str, Any]]:
    """Return the schemas of a request for one prediction, and of one for many."""
    features = {feature.name: _value(feature) for feature in pipeline.request_features}
    item = {
        "features": _object(features, list(features)),
        "id": _ID,
        "entity": _entity(pipeline.entity_keys),
        "unit": _ID,
        "due_at": _DUE_AT,
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
        "value": _truths(pipeline),
        "known_at": {"type": "string", "format": "date-time"},
        "source": {"enum": ["natural", "human"]},
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
    named = {
        "pipeline": {"const": pipeline.name, "description": "May be left out if only one is served"}
    }
    return _object(named | parts, [*required, *(["pipeline"] if several else [])])


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
    declared = {
        "minimum": feature.low,
        "maximum": feature.high,
        "enum": feature.categories,
        "maxLength": feature.longest,
    }
    value = value | {name: limit for name, limit in declared.items() if limit is not UNSET}
    return {"anyOf": [value, {"type": "null"}]} if feature.nullable else value


def _problems(
    row: Operation[Any, Any], schemas: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    if row.path.startswith("/v2"):
        said = _object({"error": {"type": "string"}}, ["error"])
        return {status: _content(words, "application/json", said) for status, words in _STATUSES.items()}
    problem = schemas[_key(Problem)]
    return {
        status: _content(words, "application/problem+json", problem)
        for status, words in _STATUSES.items()
    }


def _content(words: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {kind: {"schema": schema}}}


def _prediction(pipeline: Pipeline) -> dict[str, Any]:
    features = {feature.name: _example(feature) for feature in pipeline.request_features}
    found: dict[str, Any] = {"pipeline": pipeline.name, "id": "order-17"}
    if features:
        found["features"] = features
    if pipeline.entity_keys:
        found["entity"] = {name: f"{name}-17" for name in pipeline.entity_keys}
    return found


def _example(feature: FeatureKind) -> object:
    """Return an example of a feature's value."""
    if feature.categories is not UNSET:
        return feature.categories[0]
    if feature.low is not UNSET:
        return feature.low
    if feature.longest is not UNSET:
        return "text"[: feature.longest]
    return _EXAMPLES[feature.dtype] if feature.high is UNSET else feature.high


def _truths(pipeline: Pipeline) -> dict[str, Any]:
    """Return the schema of a label's value."""
    rule = pipeline.label
    declared = {"minimum": rule.low, "maximum": rule.high, "enum": rule.closed_classes or UNSET}
    limits = {name: limit for name, limit in declared.items() if limit is not UNSET}
    return _LABELS[pipeline.task] | limits


def _truth(pipeline: Pipeline) -> dict[str, Any]:
    rule = pipeline.label
    bounds = [bound for bound in (rule.low, rule.high) if bound is not UNSET]
    value = (*bounds, *rule.known_classes, _TRUTHS[pipeline.task])[0]
    return {"pipeline": pipeline.name, "prediction_id": "order-17", "value": value, "key": "first"}
