"""The Open Inference Protocol (KServe's and Triton's V2, over HTTP) beside our own routes.

Each feature is an input tensor of its name, with shape ``[n]`` or ``[n, 1]``, as JSON or in the binary
tensor data extension. Each entity key is a tensor of text, with ``entity.`` before its name. The
answer's tensors are ``output``, ``prediction_id``, by which labels name the prediction, and
``probabilities`` if the task has classes.

Source: https://github.com/kserve/open-inference-protocol, and Triton's extension "binary tensor data".
"""

from collections.abc import Awaitable, Callable, Sequence
from math import isfinite
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.features.record.checks import plain_words
from headwater.serving.api.operation import Operation
from headwater.serving.api.operations import (
    V2_INFER,
    V2_INFER_VERSION,
    V2_LIVE,
    V2_MODEL,
    V2_MODEL_READY,
    V2_READY,
    V2_SERVER,
    V2_VERSION,
    V2_VERSION_READY,
)
from headwater.serving.api.problems import problem_of
from headwater.serving.api.reply import json_response
from headwater.serving.api.schemas import MOST_ITEMS, DueAt, Entity, PredictionAnswer, PredictItem
from headwater.serving.http.fast_routes import BodyLimits, Pipelines, json_fault, named, read_body
from headwater.serving.http.routes import ROUTE_OF_SCOPE
from headwater.serving.worker.served_pipeline import ServedPipeline
from headwater.spec.errors import HeadwaterError, NonFiniteError, NotFoundError, SchemaError
from headwater.spec.pipeline import Pipeline

__all__ = ["datatypes", "protocol_routes"]

_DATATYPES = {"float": "FP64", "int": "INT64", "str": "BYTES", "bool": "BOOL"}
_NUMPY = {
    "BOOL": np.dtype("bool"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
_ENTITY = "entity."  # no feature's name has a point
_END = object()
_HEADER_LENGTH = "inference-header-content-length"


class _InputTensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _InferRequest(msgspec.Struct):
    inputs: list[_InputTensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[Any] = []


class _OutputTensor(msgspec.Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any]
    parameters: dict[str, Any] = {}


def protocol_routes(served: Pipelines, limits: BodyLimits) -> list[Route]:
    """Make the routes below ``/v2``."""

    async def live(_request: Request) -> object:
        return {"live": True}

    async def ready(_request: Request) -> object:
        faults = [fault for one in served.values() if (fault := one.fault()) is not None]
        if len(faults) == len(served):
            raise faults[0]
        return {"ready": True}

    async def server(_request: Request) -> object:
        return {"name": "headwater", "version": "1", "extensions": ["binary_tensor_data"]}

    async def model(request: Request) -> object:
        return _metadata(_served_model(served, request))

    async def model_ready(request: Request) -> object:
        pipeline = _served_model(served, request)
        if (fault := pipeline.fault()) is not None:
            raise fault
        as_declared = pipeline.predictor.pair.misfit is None
        return {"name": pipeline.pipeline.name, "ready": True, "ready_as_declared": as_declared}

    async def infer(request: Request) -> object:
        pipeline = _served_model(served, request)
        body = await read_body(request.scope, request.receive, limits)
        return await _infer(pipeline, body, request.headers.get(_HEADER_LENGTH))

    works = {
        V2_SERVER: server,
        V2_LIVE: live,
        V2_READY: ready,
        V2_MODEL: model,
        V2_MODEL_READY: model_ready,
        V2_VERSION: model,
        V2_VERSION_READY: model_ready,
        V2_INFER: infer,
        V2_INFER_VERSION: infer,
    }
    return [_route(operation, work) for operation, work in works.items()]


def _route(
    operation: Operation[None, dict[str, Any]], work: Callable[[Request], Awaitable[object]]
) -> Route:
    """Answer JSON, or an error in the protocol's own form; a body may be more than JSON."""

    async def endpoint(request: Request) -> Response:
        request.scope[ROUTE_OF_SCOPE] = operation.path
        try:
            return json_response(await work(request))
        except HeadwaterError as error:
            return json_response({"error": str(error)}, problem_of(error).status)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _served_model(served: Pipelines, request: Request) -> ServedPipeline:
    pipeline = named(served, request.path_params["model"])
    version = request.path_params.get("version")
    if version is not None and (pipeline.champion is None or version != pipeline.champion.version):
        raise NotFoundError(
            f"version {version[:40]!r} of {pipeline.pipeline.name!r} does not serve",
            hint="leave the version out: the champion answers",
        )
    return pipeline


def _metadata(pipeline: ServedPipeline) -> dict[str, Any]:
    declared = pipeline.predictor.pair.pipeline
    champion = pipeline.champion
    outputs = [{"name": "output", "datatype": "BYTES" if declared.task == "multiclass" else "FP64"}]
    outputs.append({"name": "prediction_id", "datatype": "BYTES"})
    return {
        "name": declared.name,
        "versions": [] if champion is None else [champion.version],
        "platform": "headwater",
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in datatypes(declared).items()
        ],
        "outputs": [{**output, "shape": [-1]} for output in outputs],
    }


def datatypes(declared: Pipeline) -> dict[str, str]:
    """Return the datatype of each input: request features, then entity keys."""
    features = {feature.name: _DATATYPES[feature.dtype] for feature in declared.request_features}
    return features | {f"{_ENTITY}{name}": "BYTES" for name in declared.entity_keys}


async def _infer(pipeline: ServedPipeline, body: bytes, header_length: str | None) -> object:
    request, columns = _read(body, header_length)
    rows = len(next(iter(columns.values()), []))
    items = []
    due_at = _due_at(request.parameters)
    keys = {name: columns.pop(name) for name in list(columns) if name.startswith(_ENTITY)}
    for row in range(rows):
        features = {name: column[row] for name, column in columns.items()}
        id_ = UNSET if not request.id else request.id if rows == 1 else f"{request.id}-{row}"
        entity = _entity({name.removeprefix(_ENTITY): column[row] for name, column in keys.items()})
        encoded = msgspec.Raw(msgspec.json.encode(features))
        items.append(PredictItem(encoded, id_, entity, due_at=due_at))
    answers = await pipeline.predictor.predict(items)
    return {
        "model_name": pipeline.pipeline.name,
        "model_version": answers[0].version,
        **({"id": request.id} if request.id else {}),
        "outputs": _outputs(pipeline, answers),
    }


def _entity(keys: dict[str, Any]) -> dict[str, str]:
    try:
        return msgspec.convert(keys, Entity)
    except msgspec.ValidationError as error:
        raise SchemaError(
            plain_words(error, "entity."), hint="send each entity key as text of 1 to 200 characters"
        ) from error


class _Parameters(msgspec.Struct):
    due_at: DueAt = UNSET


def _due_at(parameters: dict[str, Any]) -> DueAt:
    """Return when the labels of all rows are due, a parameter of the request."""
    try:
        return msgspec.convert(parameters, _Parameters).due_at
    except msgspec.ValidationError as error:
        raise SchemaError(
            plain_words(error, "parameters."), hint="send a time such as 2026-01-01T00:00:00Z"
        ) from error


def _outputs(pipeline: ServedPipeline, answers: Sequence[PredictionAnswer]) -> list[_OutputTensor]:
    rows = len(answers)
    datatype = "BYTES" if pipeline.pipeline.task == "multiclass" else "FP64"
    outputs = [
        _OutputTensor("output", datatype, [rows], [answer.output for answer in answers]),
        _OutputTensor("prediction_id", "BYTES", [rows], [answer.id for answer in answers]),
    ]
    shares = [answer.probabilities for answer in answers]
    if all(isinstance(share, dict) for share in shares):
        classes = sorted({name for share in shares if isinstance(share, dict) for name in share})
        data = [share.get(name, 0.0) for share in shares if isinstance(share, dict) for name in classes]
        outputs.append(
            _OutputTensor("probabilities", "FP64", [rows, len(classes)], data, {"classes": classes})
        )
    return outputs


def _read(body: bytes, header_length: str | None) -> tuple[_InferRequest, dict[str, list[Any]]]:
    head, tail = body, b""
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 12 or int(header_length) > len(body):
            raise SchemaError(
                f"{_HEADER_LENGTH} is not a length within the body", hint="send the length of the JSON"
            )
        head, tail = body[: int(header_length)], body[int(header_length) :]
    try:
        request = msgspec.json.decode(head, type=_InferRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(
            f"the body is not an inference request: {error}{json_fault(head)}",
            hint="see /v2/models/MODEL for the inputs",
        ) from error
    if len(request.id) > 150:
        raise SchemaError("id: it is longer than 150 characters", hint="send a shorter one")
    columns: dict[str, list[Any]] = {}
    for tensor in request.inputs:
        if tensor.name in columns:
            raise SchemaError(f"inputs.{tensor.name}: it is sent twice", hint="send each tensor once")
        values, tail = _values(tensor, tail)
        _check_finite(values, tensor)
        columns[tensor.name] = values
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or not 0 < min(lengths) <= MOST_ITEMS:
        raise SchemaError(
            f"inputs hold {sorted(lengths)[:5]} rows",
            hint=f"send one tensor a feature, each with the same 1 to {MOST_ITEMS} rows",
        )
    return request, columns


def _values(tensor: _InputTensor, tail: bytes) -> tuple[list[Any], bytes]:
    """Return a tensor's values as a flat list, and the rest of the binary part."""
    rows = tensor.shape[0] if tensor.shape else 0
    ones = tensor.shape[1:]  # compared, not multiplied: a long shape of large numbers takes minutes
    if not 0 < rows <= MOST_ITEMS or ones.count(1) != len(ones):
        raise SchemaError(
            f"inputs.{tensor.name}: shape {tensor.shape[:5]} is not one value a row",
            hint="send shape [n] or [n, 1]",
        )
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        values = _flat(tensor.data or [], rows)
    else:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail):
            raise SchemaError(
                f"inputs.{tensor.name}: binary_data_size {size!r} is not within the body",
                hint="send as many bytes as binary_data_size says",
            )
        values, tail = _unpacked(tensor, tail[:size], rows), tail[size:]
    if len(values) != rows:
        count = f"more than {rows}" if len(values) > rows else str(len(values))
        raise SchemaError(
            f"inputs.{tensor.name}: {count} values for shape {tensor.shape[:5]}",
            hint="send one value a row",
        )
    return values, tail


def _flat(values: list[Any], most: int) -> list[Any]:
    """Flatten nested lists, up to one more value than `most`; a short body may nest deeply."""
    flat: list[Any] = []
    waiting = [iter(values)]
    while waiting and len(flat) <= most:
        value = next(waiting[-1], _END)
        if value is _END:
            waiting.pop()
        elif isinstance(value, list):
            waiting.append(iter(value))
        else:
            flat.append(value)
    return flat


def _unpacked(tensor: _InputTensor, packed: bytes, most: int) -> list[Any]:
    """List the values of a binary tensor; of texts, up to one more than `most`."""
    if tensor.datatype == "BYTES":
        texts: list[Any] = []
        while packed and len(texts) <= most:
            length = int.from_bytes(packed[:4], "little")
            if len(packed) < 4 + length or len(packed) < 4:
                raise SchemaError(
                    f"inputs.{tensor.name}: its bytes are cut", hint="send a length before each text"
                )
            texts.append(_text(tensor, packed[4 : 4 + length]))
            packed = packed[4 + length :]
        return texts
    dtype = _NUMPY.get(tensor.datatype)
    if dtype is None or len(packed) % dtype.itemsize:
        raise SchemaError(
            f"inputs.{tensor.name}: {len(packed)} bytes are not {tensor.datatype[:20]!r} values",
            hint=f"send one of {', '.join(_NUMPY)} or BYTES",
        )
    return list(np.frombuffer(packed, dtype).tolist())


def _text(tensor: _InputTensor, packed: bytes) -> str:
    try:
        return packed.decode()
    except UnicodeDecodeError as error:
        raise SchemaError(
            f"inputs.{tensor.name}: a text is not UTF-8: {error.reason}", hint="encode it as UTF-8"
        ) from error


def _check_finite(values: list[Any], tensor: _InputTensor) -> None:
    """Check that numbers are finite: JSON, in which they are recorded, has no others."""
    for value in values:
        if isinstance(value, float) and not isfinite(value):
            raise NonFiniteError(
                f"inputs.{tensor.name}: it holds {value}", hint="leave a missing number null, in JSON"
            )
