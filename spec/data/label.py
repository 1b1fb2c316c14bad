"""The label rule of a pipeline: how long a label may take, and what a revision does."""

from typing import Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from headwater.spec.data.records import LabelValue, Source
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["LabelRule", "Maturity", "RevisionPolicy"]

Maturity = Literal["arrival", "window"]
RevisionPolicy = Literal["learn", "ignore"]
_SOURCES: tuple[Source, ...] = get_args(Source)


class LabelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule by which labels are joined to a pipeline's predictions.

    Parameters
    ----------
    wait
        How long after its prediction a label may take. A later one is counted as late. A label whose
        prediction has not come within this long is dropped, and counted as expired.
    timeout
        The label of a prediction whose wait has passed without one; None leaves it without a label:
        *unavailable* is never *negative*.
    maturity
        ``"arrival"`` emits an example when both halves are there. ``"window"`` emits it when the
        prediction's wait has passed, so that every outcome had the same time to show; take it where
        a label's delay depends on its value.
    revision
        What a stateful update does with a revised label whose first value it has learned: ``"learn"``
        the correction too, or ``"ignore"`` it. Stateless updates and metrics use the newest always.
    precedence
        Sources of labels, the highest first, such as ``("human", "natural")``: a label of a lower source
        never supersedes one of a higher. Those left out come behind, alike; ``"timeout"`` is always the
        last. If not given, the truth known last counts, whoever tells it.
    """

    wait: Duration
    timeout: LabelValue | None = None
    maturity: Maturity = "arrival"
    revision: RevisionPolicy = "learn"
    precedence: tuple[Source, ...] | UnsetType = UNSET

    def __post_init__(self) -> None:
        duration(self.wait, "wait")
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

    @property
    def ranks(self) -> dict[Source, int]:
        """The rank of each source; a label of a lower one never supersedes one of a higher.

        >>> LabelRule(wait="1d", precedence=("human", "natural")).ranks
        {'timeout': 0, 'human': 2, 'natural': 1}
        """
        given = () if self.precedence is UNSET else self.precedence
        listed = [source for source in given if source != "timeout"]
        others: list[Source] = [source for source in _SOURCES if source not in ("timeout", *listed)]
        ranks: dict[Source, int] = {"timeout": 0, **dict.fromkeys(others, 1)}
        above = 1 + bool(others)
        return ranks | {source: above + place for place, source in enumerate(reversed(listed))}


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
