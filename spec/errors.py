"""The tree of errors: every error that headwater raises on purpose.

::

    HeadwaterError
    ├── DeclarationError      a pipeline that cannot be declared, loaded or bound
    │   ├── NotStatefulError  the estimator cannot be fine-tuned
    │   └── ChangedError      one that differs from what was recorded or learned under it
    ├── SchemaError           features or labels that do not fit the pipeline
    │   ├── NonFiniteError    NaN, infinity or beyond 1e38 where a number is learned
    │   └── UnlearnableError  examples that the learner cannot learn; says which
    ├── ConflictError         the same id with another payload
    ├── NotFoundError         a pipeline, version, prediction or offset that does not exist
    ├── NotEnoughError        too few examples for what was asked
    ├── FencedError           another process took over: this one must not write
    │   └── BusyError         another process holds the lease, and lives
    ├── IntegrityError        stored data that is not what was written
    │   ├── DamagedError      records that are damaged, and of which no whole copy was found
    │   ├── DigestError       a state whose digest or signature does not hold
    │   ├── IdentityError     a store that belongs to another log
    │   └── TableError        a table that is corrupt, cut or missing a range
    ├── NotRebuildableError   a recipe that this environment cannot fold again
    ├── StorageError          storage that is away, or refuses
    ├── NotReadyError         a service that has no version to answer with yet
    ├── ClockError            a clock that is further on than it can be
    ├── StaleError            a value that is older than it may be served
    ├── OverloadedError       more than a service takes at a time: come back later
    ├── ModelError            a model's process that ended, or did not answer in time
    ├── SlowError             a request that does not come in time
    ├── TooLargeError         a request that is longer than a service takes
    ├── UnauthorizedError     a request without a key that the service knows
    ├── ForbiddenError        a key that may not do this
    │   └── ForeignRequestError  a request for another host, or from another's page
    ├── TooOftenError         a key that asks more often than it may
    └── ServerError           a local server that does not start, or a port that is taken

Each is a record: ``what`` is wrong, and ``hint`` says what to do next. So is a HeadwaterWarning.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from headwater.spec.difference import Difference

__all__ = [
    "BusyError",
    "ChangedError",
    "ClockError",
    "ConflictError",
    "DamagedError",
    "DeclarationError",
    "DigestError",
    "FencedError",
    "ForbiddenError",
    "ForeignRequestError",
    "HeadwaterError",
    "HeadwaterWarning",
    "IdentityError",
    "IntegrityError",
    "ModelError",
    "NonFiniteError",
    "NotEnoughError",
    "NotFoundError",
    "NotReadyError",
    "NotRebuildableError",
    "NotStatefulError",
    "OverloadedError",
    "SchemaError",
    "ServerError",
    "SlowError",
    "StaleError",
    "StorageError",
    "TableError",
    "TooLargeError",
    "TooOftenError",
    "UnauthorizedError",
    "UnlearnableError",
    "few",
    "spans_of",
]

_SHOWN = 5


def few(items: Iterable[object], shown: int = _SHOWN) -> str:
    """Name at most `shown` items, and count the rest.

    >>> few(range(8))
    '0, 1, 2, 3, 4 and 3 more'
    """
    names = [str(item) for item in items]
    rest = len(names) - shown
    text = ", ".join(names[:shown])
    return f"{text} and {rest} more" if rest > 0 else text


def spans_of(places: Iterable[int]) -> str:
    """Name places as ranges, at most a handful, and count the rest.

    >>> spans_of([3, 4, 5, 9])
    '[3, 6), [9, 10)'
    """
    spans: list[list[int]] = []
    for place in places:
        if spans and spans[-1][1] == place:
            spans[-1][1] = place + 1
        else:
            spans.append([place, place + 1])
    return few(f"[{start}, {stop})" for start, stop in spans)


class HeadwaterError(Exception):
    """A refusal, with the next step for the user.

    Parameters
    ----------
    what
        What is wrong, and what is there instead.
    hint
        The next step, in the imperative. Empty if there is none.

    Examples
    --------
    >>> str(HeadwaterError("no pipeline 'fligths'", hint="write 'flights'"))
    "no pipeline 'fligths'. Next: write 'flights'."
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(what, hint)

    def __str__(self) -> str:
        return f"{self.what}. Next: {self.hint}." if self.hint else f"{self.what}."


class HeadwaterWarning(UserWarning):
    """A warning that an operation goes on, and differs from what a user may expect.

    Parameters
    ----------
    what, hint
        As for :class:`HeadwaterError`.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(what, hint)

    def __str__(self) -> str:
        return f"{self.what}. Next: {self.hint}." if self.hint else f"{self.what}."


class DeclarationError(HeadwaterError):
    """A pipeline cannot be declared, loaded or bound."""


class NotStatefulError(DeclarationError):
    """The estimator can only be fitted from scratch, and the pipeline asks to fine-tune it."""


class ChangedError(DeclarationError):
    """A declaration differs from the one under which records or versions were made.

    Parameters
    ----------
    what, hint
        What differs, and the way on.
    differences
        Each field with what it was and is, and the way on; the hardest first.
    """

    def __init__(self, what: str, hint: str = "", differences: tuple[Difference, ...] = ()) -> None:
        super().__init__(what, hint)
        self.differences = differences


class SchemaError(HeadwaterError):
    """Features, an output or a label do not fit the pipeline."""


class NonFiniteError(SchemaError):
    """A number to learn is NaN, infinite, or beyond the largest that learners take."""


class UnlearnableError(SchemaError):
    """The learner cannot learn some examples.

    Parameters
    ----------
    what, hint
        What is wrong, and what to do.
    start, stop
        Their offsets.
    """

    def __init__(self, what: str, hint: str = "", start: int = 0, stop: int = 0) -> None:
        super().__init__(what, hint)
        self.start = start
        self.stop = stop


class ConflictError(HeadwaterError):
    """The same id came with another payload, or a compare-and-swap met another value."""


class NotFoundError(HeadwaterError):
    """A pipeline, version, prediction or offset does not exist."""


class NotEnoughError(HeadwaterError):
    """There are too few examples for the request."""


class FencedError(HeadwaterError):
    """A newer epoch holds the lease: this process must not write any more."""


class BusyError(FencedError):
    """A living process holds the lease."""


class IntegrityError(HeadwaterError):
    """Stored data is not what was written."""


class DamagedError(IntegrityError):
    """Records are damaged.

    Parameters
    ----------
    what, hint
        What is damaged, and what to do.
    places
        The offsets or positions that are damaged.
    """

    def __init__(self, what: str, hint: str = "", places: Iterable[int] = ()) -> None:
        super().__init__(what, hint)
        self.places = tuple(places)


class DigestError(IntegrityError):
    """A state's digest or signature does not hold: nothing of it was parsed."""


class IdentityError(IntegrityError):
    """A store belongs to another log, or bears no log's id: nothing of it is read or written.

    Parameters
    ----------
    what, hint
        What is wrong, and what to do.
    thing, where
        The store, and its address.
    whose, since
        The log that it belongs to, and when that log began; None if the store does not say.
    log
        The log that met the store; None if it has no id yet.
    """

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        thing: str = "",
        where: str = "",
        whose: str | None = None,
        since: datetime | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(what, hint)
        self.thing = thing
        self.where = where
        self.whose = whose
        self.since = since
        self.log = log

    @classmethod
    def met(
        cls,
        thing: str,
        where: str,
        *,
        log: str | None,
        whose: str | None,
        since: datetime | None,
        setting: str,
    ) -> Self:
        """Make the error of a store that another log left where this one would work.

        Parameters
        ----------
        thing, where, log, whose, since
            As the error has them.
        setting
            Name of the variable that says where the store is.

        Examples
        --------
        >>> error = IdentityError.met(
        ...     "the storage of 'shop'",
        ...     "/data",
        ...     log="b",
        ...     whose="a",
        ...     since=None,
        ...     setting="HEADWATER_STORAGE",
        ... )
        >>> error.what
        "the storage of 'shop' at /data belongs to another log, a; the log of this home is b"
        """
        begun = "" if since is None else f" (begun {since:%Y-%m-%d %H:%M} UTC)"
        bears = "bears no log's id" if whose is None else f"belongs to another log, {whose}{begun}"
        here = "this home has no log yet" if log is None else f"the log of this home is {log}"
        home = "go on with the home that made it (HEADWATER_HOME)"
        others = home if setting == "HEADWATER_HOME" else f"point {setting} elsewhere, or {home}"
        return cls(
            f"{thing} at {where} {bears}; {here}",
            hint=f"give the pipeline another name, {others}; headwater doctor lists the logs of a home",
            thing=thing,
            where=where,
            whose=whose,
            since=since,
            log=log,
        )


class TableError(IntegrityError):
    """A table is corrupt, cut, or misses a range."""


class NotRebuildableError(HeadwaterError):
    """This environment cannot fold the recipe again."""


class StorageError(HeadwaterError):
    """Storage does not answer, or refuses."""


class NotReadyError(HeadwaterError):
    """The service has no version to answer with yet."""


class ClockError(HeadwaterError):
    """A clock is further on than it can be."""


class StaleError(HeadwaterError):
    """A value that was looked up is older than it may be served."""


class OverloadedError(HeadwaterError):
    """A service received more than it takes at a time; nothing of the request was kept."""


class ModelError(HeadwaterError):
    """The process of a model ended, or did not answer in time: that is no fault of the request."""


class SlowError(HeadwaterError):
    """A request does not come in time."""


class TooLargeError(HeadwaterError):
    """A request is longer than a service takes."""


class UnauthorizedError(HeadwaterError):
    """A request bears no key that the service knows."""


class ForbiddenError(HeadwaterError):
    """A key may not do what it asks for."""


class ForeignRequestError(ForbiddenError):
    """A request without a key is for another host, or comes from another's page."""


class TooOftenError(HeadwaterError):
    """A key asks more often than it may.

    Parameters
    ----------
    what, hint
        What is wrong, and what to do.
    wait_s
        In how many seconds the request may be sent again.
    """

    def __init__(self, what: str, hint: str = "", wait_s: float = 1.0) -> None:
        super().__init__(what, hint)
        self.wait_s = wait_s


class ServerError(HeadwaterError):
    """A local server does not start, or its port is taken."""
