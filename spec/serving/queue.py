"""The policy of the label queue: which predictions people label, in which order. Pure; no store is met.

Two strata, dealt by a hash of the pipeline, its seed and what the question shows, so that the same
question falls into the same one always. A *random* one, asked in the order of another hash: bottom-k
sampling (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007), so what has been
answered of it is a uniform sample of the questions, on which metrics are honest: an answer goes to all
predictions of its question, each of which was as likely to be sampled. The rest, asked *uncertain*
first: uncertainty sampling (Lewis and Gale, "A sequential algorithm for training text classifiers",
SIGIR 1994), by the margin where there are several classes (Scheffer et al., "Active hidden Markov
models for information extraction", IDA 2001). A regression gives no uncertainty with its number: all
that is asked there is random.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from headwater.spec.data.records import LabelValue, Output
from headwater.spec.data.values import is_sound, misfit_of_name
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError, SchemaError
from headwater.spec.serving.plan import uniform

__all__ = [
    "LONGEST_LEASE_S",
    "MOST_CLAIMED",
    "Ask",
    "Closing",
    "People",
    "Why",
    "agree",
    "ask",
    "check_person",
    "closing",
    "label_key",
    "places",
    "question_key",
    "random_next",
    "required_answers",
    "uncertainty",
]

Why = Literal["random", "uncertain"]
Closing = Literal["answered", "labelled", "skipped"]

MOST_CLAIMED = 100
"""How many questions one person may hold."""

LONGEST_LEASE_S = 86_400
"""How long a claim may hold, in seconds."""

_MOST_PERSON = 100
_MOST_SKIPS = 3
_ENOUGH = 3
_MOST_OPEN = 100_000


class People(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The declared label queue of a pipeline: how it asks people for labels.

    Parameters
    ----------
    random
        Share of the questions that is drawn at random, for honest metrics; the others go to what the
        version was least certain of.
    twice
        Share of the questions that is put to two people, so that their agreement is measured. A third
        one is asked where two differ, whether that was meant or not.
    most_open
        How many questions wait at most. Where there are more, the least urgent that nobody has seen
        leaves.
    lease
        How long a question is kept for the person who took it.
    tolerance
        How far apart two numbers may be that agree, in a regression.

    Raises
    ------
    DeclarationError
        If a share is none, or a number is out of its bounds.
    """

    random: float = 0.2
    twice: float = 0.1
    most_open: int = 1_000
    lease: Duration = "15m"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if duration(self.lease, "lease").total_seconds() > LONGEST_LEASE_S:
            raise DeclarationError(
                f"People(lease={self.lease!r}) is over a day", hint="write lease='15m', say"
            )
        for name, usual in (("random", 0.2), ("twice", 0.1)):
            share = getattr(self, name)
            if not _is_number(share) or not 0.0 <= share <= 1.0:
                raise DeclarationError(
                    f"People({name}={share!r}) is not a share", hint=f"write {name}={usual}, from 0 to 1"
                )
        most = self.most_open
        if not isinstance(most, int) or isinstance(most, bool) or not 2 <= most <= _MOST_OPEN:
            raise DeclarationError(
                f"People(most_open={most!r}) is not a number from 2 to {_MOST_OPEN:,}",
                hint="write most_open=1_000",
            )
        if not _is_number(self.tolerance) or self.tolerance < 0 or not is_sound(self.tolerance):
            raise DeclarationError(
                f"People(tolerance={self.tolerance!r}) is not a distance",
                hint="write tolerance=0.5, say",
            )


class Ask(msgspec.Struct, frozen=True, gc=False):
    """How a question is asked: its stratum, priority and number of people.

    Parameters
    ----------
    why
        Its stratum.
    priority
        From 0 to 1; the highest of a stratum is asked first.
    people
        How many people are asked, as long as they agree.
    """

    why: Why
    priority: float
    people: int


def uncertainty(task: str, output: Output) -> float:
    """Return the uncertainty of an output, from 0 to 1; 0 if the task has no measure of it.

    Binary: how near the probability is to a half. Multiclass: how near the second class is to the first.

    >>> uncertainty("binary", 0.5), uncertainty("multiclass", {"red": 0.5, "blue": 0.25, "green": 0.25})
    (1.0, 0.75)
    """
    if isinstance(output, dict):
        first, second = [*sorted(output.values(), reverse=True), 0.0, 0.0][:2]
        return max(0.0, 1.0 - (first - second))
    return max(0.0, 1.0 - 2.0 * abs(output - 0.5)) if task == "binary" else 0.0


def question_key(features: Mapping[str, object], entity: Mapping[str, str]) -> str:
    """Return the hash of what a question shows: questions are equal if features and entity keys are.

    >>> question_key({"x": 1.0}, {}) == question_key({"x": 1.0}, {"customer": "17"})
    False
    """
    shown = msgspec.json.encode([features, entity], order="deterministic")
    return hashlib.blake2b(shown, digest_size=16).hexdigest()


def ask(people: People, task: str, key: str, question: str, output: Output) -> Ask:
    """Choose the stratum, priority and number of people of a question.

    Parameters
    ----------
    people, task
        As declared.
    key
        Deals the strata: the pipeline's name and seed.
    question
        What it shows, as :func:`question_key` has it.
    output
        The prediction's.

    Examples
    --------
    >>> ask(People(random=0.0, twice=0.0), "binary", "flights 0", "c0ffee", 0.75)
    Ask(why='uncertain', priority=0.5, people=1)
    """

    def dealt(what: str) -> float:
        return uniform(what.encode(), f"{key}\0{question}")

    count = 2 if dealt("twice") < people.twice else 1
    if dealt("random") < _random_share(people, task):
        return Ask("random", dealt("order"), count)
    return Ask("uncertain", uncertainty(task, output), count)


def places(people: People, task: str) -> dict[Why, int]:
    """Return the number of questions that may wait in each stratum."""
    share = _random_share(people, task)
    random = min(people.most_open - (share < 1), max(round(people.most_open * share), int(share > 0)))
    return {"random": random, "uncertain": people.most_open - random}


def random_next(people: People, task: str, dealt_random: int, dealt: int, many: int) -> int:
    """Return how many of the next questions are random, so that their share holds over all dealt.

    >>> [random_next(People(random=0.25), "binary", n // 4, n, 1) for n in range(8)]
    [0, 0, 0, 1, 0, 0, 0, 1]
    """
    due = int(_random_share(people, task) * (dealt + many) + 1e-9) - dealt_random
    return min(many, max(0, due))


def agree(people: People, one: LabelValue, other: LabelValue) -> bool:
    """Return whether two answers agree; numbers agree within the tolerance."""
    if isinstance(one, bool | str) or isinstance(other, bool | str):
        return one == other
    return abs(one - other) <= people.tolerance


def required_answers(people: People, count: int, values: Sequence[LabelValue]) -> int:
    """Return how many answers a question needs by now: three if the first two differ.

    Parameters
    ----------
    people
        As declared.
    count
        How many people it was meant for.
    values
        Newest answer of each person, in the order in which they first answered.

    Examples
    --------
    >>> [required_answers(People(), 2, values) for values in ([True, False], [True, True], [])]
    [3, 2, 2]
    """
    differ = len(values) > 1 and not agree(people, values[0], values[1])
    return max(count, _ENOUGH) if differ else count


def closing(required: int, answers: int, skips: int) -> Closing | None:
    """Return how a question is closed by its answers and skips; None while it is open.

    It ends with fewer answers than wanted where three people have skipped it.
    """
    if answers < required and skips < _MOST_SKIPS:
        return None
    return "answered" if answers else "skipped"


def label_key(person: str, before: int) -> str:
    """Return the key of the label of a person's answer: a new key for each change of mind.

    >>> label_key("ada", 0), label_key("ada", 1)
    ('ada', 'ada#1')
    """
    return person if before == 0 else f"{person}#{before}"


def check_person(person: str) -> None:
    """Check the name under which somebody answers.

    Raises
    ------
    SchemaError
        If it is not 1 to 100 characters, none of them ``#`` or a control character.
    """
    fits = misfit_of_name(person, _MOST_PERSON) is None
    if not fits or "#" in person or person != person.strip():
        raise SchemaError(
            f"person: {str(person)[:_MOST_PERSON]!r} is not a name",
            hint=f"send 1 to {_MOST_PERSON} characters without '#' and control characters, as in 'ada'",
        )


def _random_share(people: People, task: str) -> float:
    return 1.0 if task == "regression" else people.random


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
