"""Requests and answers of the label queue."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headwater.serving.api.schemas import Id
from headwater.spec.serving.queue import LONGEST_LEASE_S, MOST_CLAIMED
from headwater.spec.serving.queue_results import ClaimedQuestion

__all__ = ["AnswerRequest", "AnswerResult", "ClaimAnswer", "ClaimRequest", "SkipRequest", "SkipResult"]

_Person = Annotated[
    str, Meta(min_length=1, max_length=100, description="A person's name; printable, without #")
]


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim of questions.

    Parameters
    ----------
    person
        Name of the person.
    many
        The number of questions that the person is to hold.
    lease_s
        Seconds of the lease; as declared if not given.
    """

    person: _Person
    many: Annotated[int, Meta(ge=1, le=MOST_CLAIMED)] = 1
    lease_s: Annotated[int, Meta(ge=1, le=LONGEST_LEASE_S)] | None = None


class ClaimAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The questions that a person holds now, earlier claims first; empty if none waits at all."""

    questions: list[ClaimedQuestion]


class AnswerRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's answer: true or false, a class, or a number, as the task has it."""

    person: _Person
    prediction_id: Id
    value: bool | int | float | Annotated[str, Meta(max_length=10_000)]


class AnswerResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is recorded as a label, or known since it was recorded before; durable either way."""

    prediction_id: str
    status: Literal["recorded", "known"]


class SkipRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question that a person cannot answer."""

    person: _Person
    prediction_id: Id


class SkipResult(msgspec.Struct, frozen=True, kw_only=True):
    """The question goes to other people; the person is not asked again."""

    prediction_id: str
    status: Literal["skipped"] = "skipped"
