"""What each edit of a declaration does: a rule for every field. Pure.

Edits of what records are read and joined by, and of the learner, are compared in
:mod:`headwater.spec.declaration`; here are the rules of all other fields. A field without a rule is an
error when this module is imported.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from headwater.spec.data.feature import BatchFeature, RequestFeature
from headwater.spec.data.label import LabelRule
from headwater.spec.declaration import FEATURE_RULES, LABEL_RULES, PIPELINE_RULES
from headwater.spec.difference import Difference
from headwater.spec.pipeline import Pipeline
from headwater.spec.statement import Statement

__all__ = ["KINDS", "RULES", "Edit", "EditKind", "edits_of_settings", "edits_of_what_is_learned"]

EditKind = Literal["no effect on what is learned", "learned on", "a new line", "refused"]
KINDS: tuple[EditKind, ...] = ("refused", "a new line", "learned on", "no effect on what is learned")
"""The kinds, the hardest first."""

_NONE, _ON, _NEW, _REFUSED = KINDS[3], KINDS[2], KINDS[1], KINDS[0]
_DEPLOY = "headwater deploy"
_AGAIN = "start the service again: headwater up, or headwater serve"


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """One edit of a declaration, and what it does.

    Parameters
    ----------
    field
        What differs: ``"feature 'k'"``, ``"label.wait"``, ``"monitoring.window"``.
    was, now
        What was in force, and what is declared.
    kind
        What it does to the learned state: none; the next update learns it; a new line begins; or it is
        refused.
    means
        What it does, in words.
    do
        What carries it out, or the way on where it is refused; empty if nothing more is needed.
    """

    field: str
    was: str
    now: str
    kind: EditKind
    means: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.field} was {self.was}, is {self.now}"


class EditRule(NamedTuple):
    """The rule for edits of a field: what they are, what they do, and what carries them out."""

    kind: EditKind
    means: str
    do: str = ""


_DOOR = EditRule(_NONE, "the service takes other values from its next start on; records stay", _AGAIN)
_COLUMN = EditRule(_NONE, "imports and tables are read by it from now on; records stay")
_RECIPE = EditRule(_ON, "the next version's recipe has it; earlier ones rebuild by theirs")
_OLDER = EditRule(_ON, "the next version reads older examples by it; earlier ones rebuild by theirs")
_ASKED = EditRule(_NONE, "the next decision goes by it", _DEPLOY)
_ANSWERS = EditRule(_NONE, "requests are answered by it from the service's next start on", _AGAIN)

RULES: dict[str, EditRule] = {
    "update": EditRule(_ON, "the next update goes by it", _DEPLOY),
    "triggers": _ASKED,
    "pace": _ASKED,
    "monitoring": _ASKED,
    "gate": EditRule(_NONE, "the next candidate is judged by it"),
    "metrics": EditRule(_NONE, "what is measured from now on; what was measured stays"),
    "batch_rows": _RECIPE,
    "passes": _RECIPE,
    "seed": _RECIPE,
    "threads": _RECIPE,
    "learn": EditRule(
        _NONE, "the same examples, learned as they come or by flows", f"{_DEPLOY}; {_AGAIN}"
    ),
    "serving": _ANSWERS,
    "routing": EditRule(_NONE, "it holds until headwater routing puts another in its place", _AGAIN),
    "people": EditRule(_NONE, "the label queue asks by it", _AGAIN),
    "tables": EditRule(
        _NONE, "values are looked up by it; those that were served are recorded", _DEPLOY
    ),
    "batch": EditRule(_NONE, "the next batch is scored by it", _DEPLOY),
    "promotion": EditRule(_NONE, "the next version becomes champion by it"),
    "feature.nullable": _DOOR,
    "feature.low": _DOOR,
    "feature.high": _DOOR,
    "feature.categories": _DOOR,
    "feature.longest": _DOOR,
    "feature.column": _COLUMN,
    "feature.was": _OLDER,
    "feature.default": _OLDER,
    "feature.fill": _OLDER,
    "feature.convert": _OLDER,
    "feature.table": EditRule(_NONE, "its values are looked up there from now on", _DEPLOY),
    "label.low": _DOOR,
    "label.high": _DOOR,
    "label.classes": _DOOR,
    "label.open": _DOOR,
    "label.hold": EditRule(_NONE, "what comes is held back or not; what is held stays so", _AGAIN),
    "label.revision": _RECIPE,
    "model.code": EditRule(_ON, "the next version keeps the new text"),
    "model.function": EditRule(_ON, "the next version is made by it"),
}
"""By field; those of a feature and of the label rule behind ``feature.`` and ``label.``."""


def edits_of_settings(before: Statement, now: Statement) -> Iterator[Edit]:
    """Yield the edits of fields that neither records nor what was learned depend on.

    Parameters
    ----------
    before, now
        What was in force, and what is declared.
    """
    for path, was, becomes in before.differing(now):
        root, *rest = path.split(".")
        name, key = path, root
        if root == "features":
            if len(rest) < 2:
                continue
            name, key = f"feature {rest[0]!r}.{rest[1]}", f"feature.{rest[1]}"
        elif root in ("label", "model"):
            key = f"{root}.{rest[0]}" if rest else root
        rule = RULES.get(key)
        if rule is not None:
            yield Edit(field=name, was=was, now=becomes, kind=rule.kind, means=rule.means, do=rule.do)


def edits_of_what_is_learned(changes: Sequence[Difference], *, learned: bool) -> Iterator[Edit]:
    """Yield the edits of what records are read and joined by, and of what is learned.

    Parameters
    ----------
    changes
        The differences from the records, and from what the champion has learned.
    learned
        Whether a version is champion.
    """
    for change in changes:
        kind, means, do = _weighed(change, learned=learned)
        yield Edit(field=change.field, was=change.was, now=change.now, kind=kind, means=means, do=do)


def _weighed(change: Difference, *, learned: bool) -> tuple[EditKind, str, str]:
    if change.way == "back":
        return _REFUSED, "it would change what was recorded", change.hint
    if change.way == "later":
        return _NONE, "records that come from now on are joined by it", _AGAIN
    if change.way == "fresh" and learned:
        means = "the champion's state is of another shape: the next update learns from scratch"
        return _NEW, means, "headwater plan PIPELINE --apply"
    return _ON, "the next version learns it", ""


def _check_complete() -> None:
    """Refuse a field without a rule.

    Raises
    ------
    TypeError
        When this module is imported.
    """
    for prefix, rules, kinds in (
        ("", PIPELINE_RULES, (Pipeline,)),
        ("label.", LABEL_RULES, (LabelRule,)),
        ("feature.", FEATURE_RULES, (RequestFeature, BatchFeature)),
    ):
        elsewhere = {"name", "features", "label", "model"}.union(
            name for name, rule in rules.items() if rule.compare is not None
        )
        for field in {name for kind in kinds for name in kind.__struct_fields__} - elsewhere:
            if prefix + field not in RULES:
                raise TypeError(f"no rule for edits of {prefix}{field}")


_check_complete()
