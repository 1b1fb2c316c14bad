"""Turn errors into problem documents (RFC 9457), each with a status and the next step."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import signature
from typing import cast

import msgspec
from msgspec import UNSET, UnsetType

from headwater.spec.errors import (
    ClockError,
    ConflictError,
    FencedError,
    ForbiddenError,
    ForeignRequestError,
    HeadwaterError,
    IdentityError,
    IntegrityError,
    ModelError,
    NotFoundError,
    NotReadyError,
    NotRebuildableError,
    OverloadedError,
    SchemaError,
    SlowError,
    StaleError,
    StorageError,
    TooLargeError,
    TooOftenError,
    UnauthorizedError,
)

__all__ = ["FAILED", "PROBLEM_TYPE", "Problem", "error_of", "log_problem", "problem_of"]

_logger = logging.getLogger("headwater.problems")

PROBLEM_TYPE = b"application/problem+json"
"""Media type of a problem document."""

_TITLES: tuple[tuple[type[HeadwaterError], int, str], ...] = (
    (SchemaError, 422, "the request does not fit"),
    (ConflictError, 409, "it conflicts with what is stored"),
    (FencedError, 409, "another process does this"),
    (IdentityError, 409, "a store belongs to another log"),
    (IntegrityError, 409, "stored data fails its check"),
    (NotRebuildableError, 409, "the version cannot be loaded here"),
    (NotFoundError, 404, "not found"),
    (SlowError, 408, "the body came too slowly"),
    (TooLargeError, 413, "the body is too long"),
    (UnauthorizedError, 401, "a key is needed"),
    (ForeignRequestError, 403, "the host or origin is not allowed"),
    (ForbiddenError, 403, "the key does not allow this"),
    (TooOftenError, 429, "too many requests"),
    (OverloadedError, 503, "overloaded"),
    (NotReadyError, 503, "not ready"),
    (ClockError, 503, "the clock is ahead"),
    (StaleError, 503, "a looked-up value is too old"),
    (ModelError, 503, "the model does not answer"),
    (StorageError, 503, "storage is unavailable"),
)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document.

    Parameters
    ----------
    status
        HTTP status.
    title
        The kind of problem.
    detail
        The fault of this request; it names the field if a field is at fault.
    hint
        The next step.
    code
        Name of the error in :mod:`headwater.spec.errors`.
    """

    status: int
    title: str
    detail: str = ""
    hint: str = ""
    code: str = ""


FAILED = Problem(
    status=500, title="headwater failed", detail="an unexpected error; the service's log has it"
)
"""The problem that answers a request on which the service failed unexpectedly."""


def problem_of(error: HeadwaterError) -> Problem:
    """Turn an error into the document that answers a request.

    >>> problem_of(NotFoundError("no pipeline 'x'")).status
    404
    """
    status, title = next(
        ((status, title) for kind, status, title in _TITLES if isinstance(error, kind)),
        (500, "headwater failed"),
    )
    return Problem(
        status=status, title=title, detail=error.what, hint=error.hint, code=type(error).__name__
    )


def _kinds(kind: type[HeadwaterError]) -> Iterator[type[HeadwaterError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _of_words(kind: type[HeadwaterError]) -> Callable[[str, str], HeadwaterError]:
    """Return the kind, or its nearest base that is made of what is wrong and what to do alone."""
    for one in kind.__mro__:
        with suppress(TypeError):
            signature(one).bind("what", "hint")
            return cast("type[HeadwaterError]", one)
    return HeadwaterError


_BY_CODE = {kind.__name__: _of_words(kind) for kind in _kinds(HeadwaterError)}


def error_of(problem: Problem) -> HeadwaterError:
    """Turn a problem document into the error that it tells of.

    >>> error_of(Problem(status=404, title="there is no such thing", code="NotFoundError"))
    NotFoundError('there is no such thing', '')
    """
    return _BY_CODE.get(problem.code, HeadwaterError)(problem.detail or problem.title, problem.hint)


def log_problem(
    error: HeadwaterError,
    *,
    pipeline: str | UnsetType = UNSET,
    prediction_id: str | UnsetType = UNSET,
) -> None:
    """Log that a request was refused; a detail that may quote the request is left out.

    Parameters
    ----------
    error
        The error that refused it.
    pipeline, prediction_id
        Names of both, if the request gave them and could be read.
    """
    problem = problem_of(error)
    level = logging.WARNING if problem.status >= 500 else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    fields: dict[str, object] = {"status": problem.status, "code": problem.code}
    if pipeline is not UNSET:
        fields["pipeline"] = pipeline
    if prediction_id is not UNSET:
        fields["prediction_id"] = prediction_id
    detail = f": {problem.detail}" if problem.status >= 500 else ""
    _logger.log(level, "%s%s", problem.title, detail, extra={"json_fields": fields})
