"""The label rule of a pipeline: how long a label may take, and what a revision does."""

import hashlib
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import force_setattr

from headwater.spec.data.records import LabelValue, Source
from headwater.spec.data.values import LARGEST, is_sound, misfit_of_class
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["DUE_AT", "LabelRule", "Maturity", "RevisionPolicy", "class_digest"]

DUE_AT = "due_at"
"""What `due` names if the time is sent with the prediction."""

Maturity = Literal["arrival", "window"]
RevisionPolicy = Literal["learn", "ignore"]
_FEWEST_CLASSES = 2
_SOURCES: tuple[Source, ...] = get_args(Source)


class LabelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule by which labels are joined to a pipeline's predictions.

    Parameters
    ----------
    wait
        How long after its prediction a label may take. A later one is counted as late. A label whose
        prediction has not come within this long is dropped, and counted as expired. May be left out
        with `due`, and is `most` then.
    timeout
        The label of a prediction whose wait has passed without one; None leaves it without a label:
        *unavailable* is never *negative*.
    maturity
        ``"arrival"`` emits an example when both halves are there. ``"window"`` emits it when the
        prediction's wait has passed, so that every outcome had the same time to show; take it where
        a label's delay depends on its value. With `due` each prediction has a wait of its own.
    revision
        What a stateful update does with a revised label whose first value it has learned: ``"learn"``
        the correction too, or ``"ignore"`` it. Stateless updates and metrics use the newest always.
    precedence
        Sources of labels, the highest first, such as ``("human", "natural")``: a label of a lower source
        never supersedes one of a higher. Those left out come behind, alike; ``"timeout"`` is always the
        last. If not given, the truth known last counts, whoever tells it.
    low, high
        The least and the greatest label of a regression, both included; one outside is refused at every
        door.
    classes
        The classes of a multiclass task. A label of another one is refused at every door; learners that
        must know all classes ahead begin with these.
    open
        True takes labels of other classes, too; the first of each emits ``headwater.class.appeared``.
    hold
        True takes them and holds them back: they make no example until a person says what the class is,
        with ``headwater classes``, or the class is declared.
    due
        When the truth of a prediction is due: a feature that says it (text: ISO 8601 with a zone;
        a number: seconds since 1970, UTC), or ``"due_at"``, a time sent with the prediction. The example
        is emitted then, with the truth known then; later labels are late. The time of receipt counts
        where the time is earlier, and `most` after it where the time is later, null or not sent.
    most
        How long after receipt a truth may be due, with `due`.
    """

    wait: Duration = ""
    timeout: LabelValue | None = None
    maturity: Maturity = "arrival"
    revision: RevisionPolicy = "learn"
    precedence: tuple[Source, ...] | UnsetType = UNSET
    low: float | UnsetType = UNSET  # left out where not declared: recipes stay the bytes they were
    high: float | UnsetType = UNSET
    classes: tuple[str, ...] | UnsetType = UNSET
    open: bool | UnsetType = UNSET
    hold: bool | UnsetType = UNSET
    due: str | UnsetType = UNSET
    most: Duration | UnsetType = UNSET

    def __post_init__(self) -> None:
        _check_due(self)
        if self.wait == "" and self.most is not UNSET:
            force_setattr(self, "wait", self.most)  # so it is a bound for all records, as ever
        duration(self.wait, "wait")
        if self.most is not UNSET and duration(self.wait) < duration(self.most):
            raise DeclarationError(
                f"wait={self.wait!r} is shorter than most={self.most!r}, within which a truth is due",
                hint="leave wait out: it is most then",
            )
        if self.maturity not in ("arrival", "window"):
            raise DeclarationError(
                f"maturity={self.maturity!r} is not known", hint="write 'arrival' or 'window'"
            )
        if self.revision not in ("learn", "ignore"):
            raise DeclarationError(
                f"revision={self.revision!r} is not known", hint="write 'learn' or 'ignore'"
            )
        if self.precedence is not UNSET:
            _check_precedence(self.precedence)
        _check_range(self.low, self.high)
        if self.classes is not UNSET:
            _check_classes(self.classes)
        for field, value in (("open", self.open), ("hold", self.hold)):
            if value is not UNSET and (not isinstance(value, bool) or self.classes is UNSET):
                raise DeclarationError(
                    f"{field}={value!r} goes with classes",
                    hint=f'write classes=("red", "blue"), {field}=True',
                )
        if self.hold is True and self.open is False:
            raise DeclarationError(
                "open=False refuses what hold=True is to hold back", hint="leave one of them out"
            )

    @property
    def watches(self) -> bool:
        """Whether something happens to a prediction at its due time, or when its wait has passed."""
        return self.is_delayed or self.timeout is not None

    @property
    def is_delayed(self) -> bool:
        """Whether an example waits until its truth is due, though the label may have come.

        >>> LabelRule(due="due_at", most="30d").is_delayed
        True
        """
        return self.maturity == "window" or self.due is not UNSET

    @property
    def known_classes(self) -> tuple[str, ...]:
        """The declared classes, sorted: their order makes no difference."""
        return () if self.classes is UNSET else tuple(sorted(self.classes))

    @property
    def takes_others(self) -> bool:
        """Whether labels of classes beside the declared ones are taken."""
        return self.open is True or self.hold is True

    @property
    def closed_classes(self) -> tuple[str, ...]:
        """The only classes that a label may have, sorted; empty if any may come."""
        return () if self.takes_others else self.known_classes

    @property
    def bare(self) -> "LabelRule":
        """The rule without the range of labels, which decides what is taken, not how it is joined.

        >>> LabelRule(wait="1d", low=0.0).bare == LabelRule(wait="1d")
        True
        """
        return msgspec.structs.replace(self, low=UNSET, high=UNSET)

    def is_within(self, number: float) -> bool:
        """Return whether a label of a regression is within the range.

        >>> LabelRule(wait="1d", low=0.0).is_within(-0.1)
        False
        """
        above = self.low is UNSET or number >= self.low
        return above and (self.high is UNSET or number <= self.high)

    @property
    def range_words(self) -> str:
        """The range in words.

        >>> LabelRule(wait="1d", low=0.0, high=180.0).range_words
        'at least 0 and at most 180'
        """
        bounds = (("at least", self.low), ("at most", self.high))
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not UNSET)

    @property
    def ranks(self) -> dict[Source, int]:
        """The rank of each source; a label of a lower one never supersedes one of a higher.

        >>> LabelRule(wait="1d", precedence=("human", "natural")).ranks
        {'timeout': 0, 'natural': 1, 'human': 2}
        """
        given = () if self.precedence is UNSET else self.precedence
        listed = [source for source in given if source != "timeout"]
        others: list[Source] = [source for source in _SOURCES if source not in ("timeout", *listed)]
        ranks: dict[Source, int] = {"timeout": 0, **dict.fromkeys(others, 1)}
        above = 1 + bool(others)
        return ranks | {source: above + place for place, source in enumerate(reversed(listed))}


def class_digest(name: str) -> str:
    """Return the hash by which a class is stored: its name may be longer than a key of a table."""
    return hashlib.sha256(name.encode()).hexdigest()


def _check_due(rule: LabelRule) -> None:
    hint = 'write due="FEATURE", or due="due_at" for a time that is sent, and most="30d"'
    if rule.due is UNSET:
        if rule.most is not UNSET:
            raise DeclarationError(f"most={rule.most!r} goes with due", hint=hint)
        return
    if not isinstance(rule.due, str) or not rule.due:
        raise DeclarationError(f"due={rule.due!r} is no name of a feature", hint=hint)
    if rule.most is UNSET:
        raise DeclarationError(f"due={rule.due!r} has no most: how late a truth may be due", hint=hint)
    duration(rule.most, "most")
    if rule.maturity == "window":
        raise DeclarationError(
            'maturity="window" and due both say when an example is emitted',
            hint="leave maturity out: with due, each record has a window of its own",
        )


def _check_precedence(precedence: object) -> None:
    hint = f'write precedence=("human", "natural"), of the sources {", ".join(_SOURCES)}'
    if not isinstance(precedence, tuple) or not precedence:
        raise DeclarationError(f"precedence={precedence!r} is not a tuple of sources", hint=hint)
    for source in precedence:
        if source not in _SOURCES:
            raise DeclarationError(f"precedence names {source!r}, which is no source", hint=hint)
    if len(set(precedence)) < len(precedence):
        raise DeclarationError(f"precedence={precedence!r} names a source twice", hint=hint)
    if "timeout" in precedence[:-1]:
        raise DeclarationError(
            f"precedence={precedence!r} puts a timeout above a truth",
            hint="put timeout last, or leave it out: it is the lowest always",
        )


def _check_range(low: object, high: object) -> None:
    for field, bound in (("low", low), ("high", high)):
        number = isinstance(bound, int | float) and not isinstance(bound, bool)
        if bound is not UNSET and not (number and is_sound(bound)):  # type: ignore[arg-type] # a number
            raise DeclarationError(
                f"{field}={bound!r} of a label is no number that is learned",
                hint=f"write a number, at most {LARGEST:g}, or leave it out",
            )
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise DeclarationError(f"low={low!r} is above high={high!r}", hint="write the lower one as low")


def _check_classes(classes: object) -> None:
    hint = 'write at least two different classes: classes=("red", "blue")'
    if not isinstance(classes, tuple) or not all(isinstance(name, str) for name in classes):
        raise DeclarationError(f"classes={classes!r} is not a tuple of texts", hint=hint)
    if len(classes) < _FEWEST_CLASSES or len(set(classes)) < len(classes):
        raise DeclarationError(f"classes={classes!r} are too few, or one is there twice", hint=hint)
    for name in classes:
        if why := misfit_of_class(name):
            raise DeclarationError(f"class {name!r} {why}", hint="take that out of its name")
