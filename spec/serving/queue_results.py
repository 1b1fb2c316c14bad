"""The results of a queue for people, as stores, routes and clients share them: plain data."""

from datetime import datetime

import msgspec

from headwater.spec.data.records import FeatureValue, LabelValue
from headwater.spec.serving.queue import Why

__all__ = ["Agreement", "ClaimedQuestion", "KnownClass", "QueueStatistics"]


class ClaimedQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question that a person has claimed.

    What the version answered is left out on purpose: who sees it, tends to agree with it.

    Parameters
    ----------
    prediction_id
        Whose truth is asked for.
    why
        ``"random"`` or ``"uncertain"``.
    until
        When the lease ends.
    features, entity, served_at, version
        As the prediction was served.
    predictions
        How many predictions the answer goes to: this one, and those with equal features and entity keys.
    """

    prediction_id: str
    why: Why
    until: datetime
    features: dict[str, FeatureValue]
    entity: dict[str, str]
    served_at: datetime
    version: str
    predictions: int = 1


class KnownClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class that people may answer with.

    Parameters
    ----------
    value
        What to answer.
    text
        How to show it: the class as the labels name it, or ``"true"`` and ``"false"``.
    """

    value: LabelValue
    text: str


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement over the predictions that at least two people have answered.

    Parameters
    ----------
    pairs
        How many those are. The first two answers count: a third is asked where these differ, so it
        would tell too little.
    raw
        Share of the pairs that agree; None without pairs.
    kappa
        Cohen's kappa of the first against the second answers: agreement beyond chance, 1 at most. None
        where fewer than two classes were given, and for a regression.
    mean_difference
        For a regression, how far the two numbers are apart on average.
    """

    pairs: int
    raw: float | None
    kappa: float | None
    mean_difference: float | None


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pipeline's label queue, in counts.

    Parameters
    ----------
    open_random, open_uncertain
        Questions that wait for an answer, by why they are asked.
    claimed
        Claims whose lease has not ended.
    answered
        Questions that have the answers they want.
    answers, skips
        What people did, over all questions.
    people
        How many of them.
    given_up
        Questions that three people skipped, and nobody answered.
    labelled
        Questions whose truth came from elsewhere before they were answered.
    equal
        Predictions that share the question about another one, and get its answers.
    behind
        Sequenced records at which the queue has not looked yet.
    agreement
        How far people agree.
    """

    open_random: int
    open_uncertain: int
    claimed: int
    answered: int
    answers: int
    skips: int
    people: int
    given_up: int
    labelled: int
    equal: int
    behind: int
    agreement: Agreement
