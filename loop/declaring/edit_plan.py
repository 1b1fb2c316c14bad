"""The plan of a declaration that was edited: each edit, what follows, and the commands that do it."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from headwater.learners.wrap import adapter_of
from headwater.loop.binding import Bound
from headwater.loop.declaring.learner_code import learner_code
from headwater.registry.declarations import InForce
from headwater.registry.version import Version
from headwater.spec.answering import answering, unanswered
from headwater.spec.declaration import (
    declaration_of,
    learner_differences,
    schema_differences,
)
from headwater.spec.difference import Difference, is_of_feature
from headwater.spec.edits import KINDS, Edit, edits_of_settings, edits_of_what_is_learned
from headwater.spec.errors import ChangedError, few
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode, Recipe
from headwater.spec.statement import Statement, statement_of
from headwater.spec.updating.update import Stateless

__all__ = ["EditPlan", "declare", "end_word", "may_begin_line", "plan_edits"]


class EditPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an edited declaration will do.

    Parameters
    ----------
    pipeline
        Its name.
    in_force, since, by
        The number of the declaration in force, since when, and by whom; None if none was kept yet.
    edits
        The edits, the hardest first; none if it says what is in force.
    next_update, service, archive
        What the next update, the running service, and the archive will do, in words.
    do
        The commands that carry it out, in order.
    refused
        Whether an edit is refused until its way on is taken.
    asks
        Whether ``headwater plan --apply`` has to be said first: a new line begins.
    """

    pipeline: str
    in_force: int | None
    since: str | None
    by: str | None
    edits: tuple[Edit, ...]
    next_update: str
    service: str
    archive: str
    do: tuple[str, ...]
    refused: bool
    asks: bool


def plan_edits(bound: Bound) -> EditPlan:
    """Compare a declaration with the one in force, with records and with the champion; change nothing.

    Parameters
    ----------
    bound
        The pipeline with its stores.

    Raises
    ------
    DeclarationError
        If the code that makes the model cannot be kept.
    StorageError
        If a store is away.
    """
    in_force = bound.declarations.in_force()
    code = _code_of(bound.pipeline)
    statement = statement_of(bound.pipeline, code)
    champion = bound.registry.champion()
    learned = None if champion is None else bound.registry.store.recipe(champion)
    edits = _edits(bound, in_force, statement, learned, code)
    refused = any(edit.kind == "refused" for edit in edits)
    renews = any(edit.kind == "a new line" for edit in edits)
    said = in_force is not None and in_force.begins_line and in_force.statement == statement
    asks = renews and not said
    steps = dict.fromkeys(step for edit in edits for step in edit.do.split("; ") if step)
    return EditPlan(
        pipeline=bound.pipeline.name,
        in_force=None if in_force is None else in_force.number,
        since=None if in_force is None else f"{in_force.since:%Y-%m-%d %H:%M} UTC",
        by=None if in_force is None else in_force.by,
        edits=edits,
        next_update=_next_update(bound, champion, refused=refused, renews=renews, asks=asks),
        service=_service(bound, champion, learned, edits),
        archive=_archive(bound),
        do=tuple(step for step in steps if (asks and not refused) or not step.endswith("--apply")),
        refused=refused,
        asks=asks,
    )


def may_begin_line(bound: Bound) -> bool:
    """Return whether somebody said of this very declaration that a new line may begin."""
    in_force = bound.declarations.in_force()
    return in_force is not None and in_force.begins_line and in_force.statement == _said_by(bound)


def end_word(bound: Bound, by: str) -> None:
    """Note that a new line serves: the word was for that one, and not for the one after a rollback."""
    in_force = bound.declarations.in_force()
    if in_force is not None and in_force.begins_line:
        bound.declarations.put_in_force(in_force.statement, expected=in_force, by=by)


def _said_by(bound: Bound) -> Statement:
    return statement_of(bound.pipeline, _code_of(bound.pipeline))


def _code_of(pipeline: Pipeline) -> LearnerCode:
    return learner_code(pipeline, adapter_of(pipeline.model()))


def declare(bound: Bound, *, by: str, apply: bool = False, agreed: bool = True) -> tuple[Edit, ...]:
    """Put what a pipeline says in force, and return the edits.

    What trains, deploys or serves calls it once it has found that nothing is refused.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    by
        Who asks, for the record.
    apply
        Whether the next update may begin a new line, if it has to.
    agreed
        Whether records must agree, too. They need not where a service answers by the declaration of its
        champion: then a later update puts them right, or is refused by name.

    Raises
    ------
    ChangedError
        If records are held by what differs; nothing is changed then.
    ConflictError
        If another process declared anew meanwhile.
    """
    if agreed:
        bound.log.agree(fresh=apply)
    in_force, statement = bound.declarations.in_force(), _said_by(bound)
    if in_force is not None and in_force.statement == statement and in_force.begins_line >= apply:
        return ()
    bound.declarations.put_in_force(statement, expected=in_force, by=by, begins_line=apply)
    return () if in_force is None else tuple(edits_of_settings(in_force.statement, statement))


def _edits(
    bound: Bound,
    in_force: InForce | None,
    statement: Statement,
    learned: Recipe | None,
    code: LearnerCode,
) -> tuple[Edit, ...]:
    pipeline, declared = bound.pipeline, bound.log.declared
    now = declaration_of(pipeline)
    changes = {change.field: change for change in declared.differences()}
    if learned is not None:
        for change in (*schema_differences(learned, now), *_of_learner(bound, learned, code)):
            before = changes.get(change.field)
            changes[change.field] = before if before is not None and before.way == "back" else change
    edits = list(edits_of_what_is_learned(tuple(changes.values()), learned=learned is not None))
    if in_force is not None:
        edits += edits_of_settings(in_force.statement, statement)
    told = {edit.field: edit for edit in reversed(edits)}  # of two for a field, the harder one
    return tuple(sorted(told.values(), key=lambda edit: KINDS.index(edit.kind)))


def _of_learner(bound: Bound, learned: Recipe, code: LearnerCode) -> tuple[Difference, ...]:
    pipeline = bound.pipeline
    classes = UNSET if bound.capabilities.open_labels else pipeline.label.known_classes or UNSET
    found = learner_differences(learned, replace(learned, learner=code, classes=classes))
    if isinstance(pipeline.update, Stateless):  # each update begins a new line
        return tuple(replace(change, way="free") for change in found)
    return found


def _next_update(
    bound: Bound, champion: Version | None, *, refused: bool, renews: bool, asks: bool
) -> str:
    if refused:
        return "is refused until the way on is taken"
    if champion is None:
        return "makes the first version"
    if asks:
        return "is refused until you say that a new line may begin: headwater plan PIPELINE --apply"
    if isinstance(bound.pipeline.update, Stateless):
        return "learns from scratch, as always"
    return "begins a new line" if renews else f"fine-tunes version {champion.number}"


def _service(
    bound: Bound, champion: Version | None, learned: Recipe | None, edits: Sequence[Edit]
) -> str:
    pipeline = bound.pipeline
    held = [edit.field for edit in edits if edit.kind == "refused" and not is_of_feature(edit.field)]
    if held:
        return f"one that runs goes on as it was started; none starts with another {', '.join(held)}"
    if champion is None or learned is None:
        return "answers once there is a version"
    number, rests = f"version {champion.number}", ""
    if pipeline.learn == "each label" and any(edit.kind in ("refused", "a new line") for edit in edits):
        rests = "; nothing is learned until a version has learned this declaration"
    if changes := unanswered(learned.features, pipeline, bound.log.declared.stored.recorded):
        try:
            by = answering(pipeline, learned.features, champion.number)
        except ChangedError as error:
            return f"one that runs goes on as it was started; none starts: {error.what}"
        changed, own = few(change.field for change in changes), few(by.feature_names)
        return (
            f"from its next start on {number} answers by its own features, {own}, which are what is "
            f"recorded: it cannot answer without {changed}; the first version that has learned this "
            f"declaration brings it, and a rollback brings the old one back{rests}"
        )
    known = {feature.name for feature in learned.features}
    more = ", ".join(name for name in pipeline.feature_names if name not in known)
    if more:
        rests = f"; {more} is recorded from the service's next start on, and not given to it{rests}"
    return f"{number} answers{rests}"


def _archive(bound: Bound) -> str:
    stored, pipeline = bound.log.declared.stored, bound.pipeline
    known = {feature.name for feature in (*stored.features, *stored.dropped)}
    words = []
    if added := [name for name in pipeline.feature_names if name not in known]:
        words.append(f"gets {', '.join(added)}, null where it was not recorded")
    declared = set(pipeline.feature_names)
    if gone := [feature.name for feature in stored.features if feature.name not in declared]:
        words.append(f"keeps {', '.join(gone)}")
    return "; ".join(words) or "stays as it is"
