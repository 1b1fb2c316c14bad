"""The two updates, stateless and stateful, and which examples each learns."""

from typing import Literal

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["Reset", "Stateful", "Stateless", "Subsample", "Update", "UpdateKind"]

UpdateKind = Literal["stateless", "stateful"]


class Subsample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Draw examples without replacement, newer ones more often.

    An example of age *a* is drawn with weight ``0.5 ** (a / half_life)``, by the exponential keys of
    Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006). Drawn examples keep
    their offset order.

    Parameters
    ----------
    rows
        How many examples to draw; all of them if there are fewer.
    half_life
        Age at which the weight halves; None draws uniformly.
    seed
        Seed of the draw, mixed with the stop offset so that each update draws anew.
    """

    rows: int
    half_life: Duration | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rows, int) or isinstance(self.rows, bool) or self.rows < 1:
            raise DeclarationError(
                f"Subsample(rows={self.rows!r}) draws nothing", hint="write rows=10_000, say"
            )
        if self.half_life is not None:
            duration(self.half_life, "half_life")


class Stateless(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stateless"):
    """Retrain from scratch.

    Parameters
    ----------
    window
        Learn the examples emitted within this long before the update; None learns all of them.
    subsample
        Draw from the window instead of learning all of it.
    """

    window: Duration | None = None
    subsample: Subsample | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            duration(self.window, "window")
        _check_subsample(self.subsample)


class Reset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Start a stateful line anew, every so often, from a window.

    Parameters
    ----------
    every
        Time between two fresh starts.
    window, subsample
        What the fresh start learns, as in :class:`Stateless`.
    """

    every: Duration
    window: Duration | None = None
    subsample: Subsample | None = None

    def __post_init__(self) -> None:
        duration(self.every, "every")
        if self.window is not None:
            duration(self.window, "window")
        _check_subsample(self.subsample)


class Stateful(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stateful"):
    """Fine-tune the parent on what is new.

    Parameters
    ----------
    reset
        Start anew on a schedule; None never does.
    window
        What the very first version learns; None learns all that is there.
    """

    reset: Reset | None = None
    window: Duration | None = None

    def __post_init__(self) -> None:
        if self.reset is not None and not isinstance(self.reset, Reset):
            raise DeclarationError(
                f"Stateful(reset={self.reset!r}) is not a reset",
                hint='write reset=Reset(every="30d", window="90d")',
            )
        if self.window is not None:
            duration(self.window, "window")


def _check_subsample(subsample: object) -> None:
    if subsample is not None and not isinstance(subsample, Subsample):
        raise DeclarationError(
            f"subsample={subsample!r} is not a subsample", hint="write subsample=Subsample(rows=10_000)"
        )


Update = Stateless | Stateful
