"""The declaration by which a pipeline's records are read, and how two of them differ. Pure.

Each field of a pipeline, of its label rule and of a feature has a rule here: it is compared, or it has
no effect on what is recorded and learned, and the rule says why. A test demands a rule for each field.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from headwater.spec.data.feature import FeatureKind, as_recorded, bare
from headwater.spec.data.label import LabelRule
from headwater.spec.difference import FRESH, Difference, Way
from headwater.spec.duration import duration
from headwater.spec.errors import ChangedError, DeclarationError, few
from headwater.spec.feature_differences import feature_differences
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.recipe import Recipe

__all__ = [
    "FEATURE_RULES",
    "LABEL_RULES",
    "PIPELINE_RULES",
    "Declaration",
    "Rule",
    "declaration_of",
    "differences",
    "learner_differences",
    "needing_a_word",
    "refusal",
    "schema_differences",
]


_HARDEST: tuple[Way, ...] = ("back", "fresh", "later", "free", "on")


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a pipeline by which its records are read: kept beside them.

    Parameters
    ----------
    task, features, label
        As in the pipeline; features and labels without the range of their values, and features without
        their columns.
    dropped
        Features that an earlier declaration had. The archive keeps their columns.
    """

    task: Task
    features: tuple[FeatureKind, ...]
    label: LabelRule
    dropped: tuple[FeatureKind, ...] = ()

    @property
    def recorded(self) -> tuple[FeatureKind, ...]:
        """The features that the log has or had, with the types of their values."""
        return (*self.dropped, *self.features)

    def to_json(self) -> str:
        """Encode canonically: the same declaration gives the same text in every process."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @classmethod
    def from_json(cls, text: str) -> "Declaration":
        """Decode the text that :meth:`to_json` returned.

        Raises
        ------
        DeclarationError
            If the text has another shape.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeclarationError(
                f"the stored declaration has another shape: {error}",
                hint="it was made by another version of headwater: take a new HEADWATER_HOME",
            ) from error

    @property
    def as_recorded(self) -> "Declaration":
        """What a record is recorded under: without what says how older examples are read."""
        return msgspec.structs.replace(self, features=tuple(map(as_recorded, self.features)), dropped=())

    @property
    def hash(self) -> int:
        """Hash of :attr:`as_recorded`, 63 bits, the same in every process: a record bears it."""
        digest = hashlib.sha256(self.as_recorded.to_json().encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def after(self, before: "Declaration") -> "Declaration":
        """Take the place of an earlier declaration: remember the features that are gone."""
        names = {feature.name for feature in self.features}
        gone = {
            feature.name: feature
            for feature in (*before.dropped, *before.features)
            if feature.name not in names
        }
        return msgspec.structs.replace(self, dropped=tuple(gone.values()))


class Rule(NamedTuple):
    """The rule for a field whose value changes.

    Parameters
    ----------
    compare
        Gives the differences; None if the field is not compared here.
    why
        Why it is not, or where it is.
    """

    compare: Callable[[Declaration, Declaration], Iterator[Difference]] | None
    why: str = ""


def declaration_of(pipeline: Pipeline) -> Declaration:
    """Return the part of a pipeline by which its records are read."""
    return Declaration(
        task=pipeline.task, features=tuple(map(bare, pipeline.features)), label=pipeline.label.bare
    )


def differences(stored: Declaration, declared: Declaration) -> tuple[Difference, ...]:
    """Return the differences between the stored declaration and the one that is declared now."""
    rules = (rule.compare for rule in PIPELINE_RULES.values() if rule.compare is not None)
    return tuple(difference for compare in rules for difference in compare(stored, declared))


def needing_a_word(changes: Sequence[Difference], *, learned: bool) -> tuple[Difference, ...]:
    """Return the differences that are refused, the hardest first.

    Parameters
    ----------
    changes
        Of a pipeline that has records.
    learned
        Whether a version is champion: what it learned holds for its own features.
    """
    weighs: dict[Way, bool] = {
        "on": False,
        "free": False,
        "later": False,
        "fresh": learned,
        "back": True,
    }
    return tuple(
        sorted(
            (change for change in changes if weighs[change.way]),
            key=lambda change: _HARDEST.index(change.way),
        )
    )


def schema_differences(learned: Recipe, declared: Declaration) -> tuple[Difference, ...]:
    """Return the differences in task, features and their order from those that a version has learned."""
    before = Declaration(task=learned.task, features=learned.features, label=declared.label)
    changes = [change for change in differences(before, declared) if change.way != "on"]
    nullable = [change for change in changes if change.way == "free"]
    return tuple(
        msgspec.structs.replace(change, way="fresh", hint=FRESH) for change in nullable
    ) + tuple(change for change in changes if change.way != "free")


def learner_differences(learned: Recipe, made: Recipe) -> tuple[Difference, ...]:
    """Return the differences between the declared learner and that of the version it would go on from.

    Parameters
    ----------
    learned
        The recipe of the version.
    made
        The recipe of what would be learned on from it. Its rows, passes, seed and threads may differ:
        a recipe records them, and a fold goes by its own.
    """
    was, now = learned.learner.parameters, made.learner.parameters
    if isinstance(was, UnsetType) or isinstance(now, UnsetType):
        unknown = Difference(field="the learner's parameters", was="not kept", now="known", way="fresh")
        return (unknown,)
    changes: list[Difference] = []
    if learned.classes != made.classes:
        before, after = _told(learned.classes), _told(made.classes)
        changes.append(Difference(field="label.classes", was=before, now=after, way="fresh"))
    for path in dict.fromkeys((*was, *now)):
        before, after = was.get(path, "not there"), now.get(path, "not there")
        above = any(path.startswith(f"{change.field}.") for change in changes)
        if before != after and not above:
            changes.append(Difference(field=path, was=before, now=after, way="fresh"))
    return tuple(changes)


def refusal(pipeline: str, of: str, changes: Sequence[Difference]) -> ChangedError:
    """Make the error that names differences.

    Parameters
    ----------
    pipeline
        Its name.
    of
        What it differs from: ``"its records"``, ``"version 3"``.
    changes
        The differences, the hardest first.
    """
    return ChangedError(
        f"the declaration of pipeline {pipeline!r} is not that of {of}: {few(changes, 3)}",
        hint=changes[0].hint,
        differences=tuple(changes),
    )


def _task(stored: Declaration, declared: Declaration) -> Iterator[Difference]:
    if stored.task != declared.task:
        yield Difference(
            field="task",
            was=repr(stored.task),
            now=repr(declared.task),
            way="back",
            hint="put it back, or give the pipeline another name: labels were recorded for that task",
        )


def _features(stored: Declaration, declared: Declaration) -> Iterator[Difference]:
    yield from feature_differences(stored.features, stored.dropped, declared.features)


def _label(stored: Declaration, declared: Declaration) -> Iterator[Difference]:
    for rule in LABEL_RULES.values():
        if rule.compare is not None:
            yield from rule.compare(stored, declared)


def _told(value: object) -> str:
    return "not declared" if value is UNSET else repr(value)


def _of_label(
    field: str, value: Callable[[LabelRule], object] | None = None
) -> Callable[[Declaration, Declaration], Iterator[Difference]]:
    """Make the rule of a field of the label rule: each record is joined by that of its declaration."""

    def compare(stored: Declaration, declared: Declaration) -> Iterator[Difference]:
        was, now = getattr(stored.label, field), getattr(declared.label, field)
        same = value(stored.label) == value(declared.label) if value else was == now
        if not same:
            yield Difference(
                field=f"label.{field}",
                was=_told(was),
                now=_told(now),
                way="later",
                hint="records that come from now on are joined by it",
            )

    return compare


_DOOR = "the door checks it; what was recorded stays what it was, and is read as it is"
_RECIPE = "each version's recipe says it, and a fold goes by its own"
_OLDER = f"it says what learning reads of older records, which stay; {_RECIPE}"
_ROUND = "it says when and how an update is asked for or judged, not what is learned"
_SERVED = "it says how requests are answered; each record says by what"

FEATURE_RULES: dict[str, Rule] = {
    "name": Rule(None, "by it features are told apart: one added, one gone"),
    "dtype": Rule(_features),
    "nullable": Rule(None, _DOOR),
    "low": Rule(None, _DOOR),
    "high": Rule(None, _DOOR),
    "categories": Rule(None, _DOOR),
    "longest": Rule(None, _DOOR),
    "column": Rule(None, "it says how tables are read; what was recorded bears the feature's name"),
    "was": Rule(_features),
    "default": Rule(None, _OLDER),
    "fill": Rule(None, _OLDER),
    "convert": Rule(None, _OLDER),
    "table": Rule(None, "where the value comes from; what it was is in the record"),
    "entity": Rule(None, "of streaming features, which no pipeline can use yet"),
    "events": Rule(None, "of streaming features, which no pipeline can use yet"),
    "aggregate": Rule(None, "of streaming features, which no pipeline can use yet"),
    "window": Rule(None, "of streaming features, which no pipeline can use yet"),
}
"""By field of a feature."""

LABEL_RULES: dict[str, Rule] = {
    "wait": Rule(_of_label("wait", lambda rule: duration(rule.wait))),
    "timeout": Rule(_of_label("timeout")),
    "maturity": Rule(_of_label("maturity")),
    "revision": Rule(None, _RECIPE),
    "precedence": Rule(_of_label("precedence", lambda rule: rule.ranks)),
    "low": Rule(None, _DOOR),
    "high": Rule(None, _DOOR),
    "classes": Rule(None, f"{_DOOR}; a learner that begins with them is compared: learner_differences"),
    "open": Rule(None, _DOOR),
    "hold": Rule(None, "what comes is held back or not; what is held stays so until a person names it"),
    "due": Rule(_of_label("due")),
    "most": Rule(_of_label("most", lambda rule: rule.most and duration(rule.most))),
}
"""By field of the label rule."""

PIPELINE_RULES: dict[str, Rule] = {
    "name": Rule(None, "another name is another log"),
    "task": Rule(_task),
    "features": Rule(_features),
    "label": Rule(_label),
    "model": Rule(None, "compared with the version that is learned on from: learner_differences"),
    "update": Rule(None, _RECIPE),
    "triggers": Rule(None, _ROUND),
    "pace": Rule(None, _ROUND),
    "monitoring": Rule(None, _ROUND),
    "gate": Rule(None, _ROUND),
    "metrics": Rule(None, _ROUND),
    "batch_rows": Rule(None, _RECIPE),
    "passes": Rule(None, _RECIPE),
    "seed": Rule(None, _RECIPE),
    "threads": Rule(None, _RECIPE),
    "learn": Rule(None, "one fold, in steps or in one go"),
    "serving": Rule(None, _SERVED),
    "routing": Rule(None, _SERVED),
    "people": Rule(None, "a label says who gave it"),
    "tables": Rule(None, "where values come from; what they were is in the record"),
    "batch": Rule(None, _SERVED),
    "promotion": Rule(None, _ROUND),
}
"""By field of a pipeline."""
