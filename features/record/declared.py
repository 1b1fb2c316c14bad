"""The declaration in force of one pipeline, stored beside its records, and its replacement."""

from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import select, update

from headwater.features.record.inbox import Inbox
from headwater.features.record.waiting import is_waiting
from headwater.infra.clock import Clock, to_us
from headwater.infra.store.database import Database
from headwater.infra.store.lease import holding
from headwater.infra.store.schema import tables
from headwater.spec.data.feature import FeatureKind, RequestFeature
from headwater.spec.data.label import LabelRule
from headwater.spec.declaration import Declaration, declaration_of, differences, needing_a_word, refusal
from headwater.spec.difference import Difference
from headwater.spec.errors import BusyError, ChangedError, ConflictError
from headwater.spec.pipeline import Pipeline, Task

__all__ = ["Declared"]


class Declared:
    """The comparison of a pipeline's declaration with the stored one.

    Made by the feature log. Reading never changes what is stored; whoever records, sequences, collects,
    trains or serves calls :meth:`agree` first.

    Parameters
    ----------
    pipeline, pipeline_id
        As declared now, and its number in the database.
    inbox, database, clock
        Where records wait, where they are stored, and the time.
    """

    def __init__(
        self, pipeline: Pipeline, pipeline_id: int, inbox: Inbox, database: Database, clock: Clock
    ) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._inbox = inbox
        self._database = database
        self._clock = clock
        self._declared = declaration_of(pipeline)
        self._text, self._agreed = "", False
        self.stored = self._read()

    @property
    def agreed(self) -> bool:
        """Whether this declaration was already found fit to record by."""
        return self._agreed

    def readable(self, also: Sequence[FeatureKind] = ()) -> Pipeline:
        """Return the pipeline by which records are read, and more features; types are as stored."""
        stored, pipeline = self.stored, self._pipeline
        known = {feature.name: feature for feature in stored.recorded}
        names = set(pipeline.feature_names)
        wanted = (*pipeline.features, *(feature for feature in also if feature.name not in names))
        features = tuple(known.get(feature.name, feature) for feature in wanted)
        types = [feature.dtype for feature in features]
        if stored.task == pipeline.task and types == [feature.dtype for feature in pipeline.features]:
            return pipeline
        return _reading(pipeline, stored.task, features)

    def archived(self) -> Pipeline:
        """Return the pipeline by which records are archived, with the features that were dropped."""
        dropped, pipeline = self.stored.dropped, self._pipeline
        if not dropped:
            return pipeline
        return _reading(pipeline, pipeline.task, (*pipeline.features, *dropped))

    def agree(self, *, fresh: bool = False) -> bool:
        """Check that the declaration is in force, or put it in force if it may be.

        Parameters
        ----------
        fresh
            Whether a new line is asked for, which needs nothing of what was learned.

        Returns
        -------
        bool
            Whether another one was in force.

        Raises
        ------
        ChangedError
            If records or versions are held by what differs; nothing is changed then.
        BusyError
            If another process sequences, and the label rule is to change.
        ConflictError
            If another process declared anew meanwhile.
        """
        stored = self._read()
        if stored != self.stored:
            self.stored = stored
        declaration = self._declared.after(self.stored)
        if declaration == self.stored:
            self._agreed = True
            return False
        changes = differences(self.stored, self._declared)
        if any(change.field.startswith("label.") for change in changes):
            name = f"sequence/{self._pipeline.name}"  # nobody sequences meanwhile by the stored rule
            self._check(changes, fresh=fresh)
            with holding(self._database, self._clock, name):
                self._take_over(changes, declaration, fresh=fresh, rule=True)
        else:
            self._take_over(changes, declaration, fresh=fresh, rule=False)
        return True

    def agree_to_record(self) -> None:
        """Agree as :meth:`agree` does, without the label rule, which does not affect recording.

        Raises
        ------
        ChangedError
            If task or features differ from those that records or versions have.
        """
        try:
            self.agree()
        except ChangedError as error:
            if any(difference.way != "wait" for difference in error.differences):
                raise
        except BusyError:
            pass  # the label rule changes when nobody sequences
        self._agreed = True

    def check_to_record(self) -> None:
        """Check what :meth:`agree_to_record` checks, and put nothing in force.

        Raises
        ------
        ChangedError
            As for that.
        """
        self.stored = self._read()
        changes = differences(self.stored, self._declared)
        self._check([change for change in changes if change.way != "wait"], fresh=False)

    def check(self) -> None:
        """Check that the declaration is still in force.

        Raises
        ------
        ConflictError
            If another process declared anew since it was agreed.
        """
        if self._read() != self.stored:
            raise _meanwhile(self._pipeline.name)

    def _take_over(
        self, changes: Sequence[Difference], declaration: Declaration, *, fresh: bool, rule: bool
    ) -> None:
        recorded = self._check(changes, fresh=fresh)
        if not recorded:  # so nothing was dropped
            declaration = self._declared
        self._replace(declaration, rule=rule)
        self.stored, self._agreed = declaration, True

    def _check(self, changes: Sequence[Difference], *, fresh: bool) -> bool:
        """Refuse differences that need a decision; return whether anything was recorded."""
        if not self._is_recorded():
            return False
        rule = any(change.way == "wait" for change in changes)
        refused = needing_a_word(
            changes,
            learned=not fresh and self.is_learned(),
            waiting=rule and self.waits(),
        )
        if refused:
            raise refusal(self._pipeline.name, "its records", refused)
        return True

    def _read(self) -> Declaration:
        pipeline = tables.pipeline.c
        with self._database.reading() as connection:
            self._text = connection.execute(
                select(pipeline.declaration).where(pipeline.id == self._pipeline_id)
            ).scalar_one()
        return Declaration.from_json(self._text)

    def _replace(self, declaration: Declaration, *, rule: bool) -> None:
        pipeline, place = tables.pipeline, tables.sequencer
        with self._database.transaction() as connection:
            changed = connection.execute(
                update(pipeline)
                .where(pipeline.c.id == self._pipeline_id, pipeline.c.declaration == self._text)
                .values(declaration=declaration.to_json())
            )
            if changed.rowcount != 1:
                raise _meanwhile(self._pipeline.name)
            if rule:  # what was sequenced is decided: the new rule is for what comes
                connection.execute(
                    update(place)
                    .where(place.c.pipeline_id == self._pipeline_id)
                    .values(next_deadline=place.c.next_position)
                )

    def _is_recorded(self) -> bool:
        place = tables.sequencer.c
        with self._database.reading() as connection:
            sequenced = connection.execute(
                select(place.next_position).where(place.pipeline_id == self._pipeline_id)
            ).scalar_one()
        return bool(sequenced) or self._inbox.count_after(0) > 0

    def is_learned(self) -> bool:
        """Return whether a version is champion."""
        mine = tables.champion.c.pipeline_id == self._pipeline_id
        with self._database.reading() as connection:
            return connection.execute(select(tables.champion.c.version).where(mine)).first() is not None

    def waits(self) -> bool:
        """Return whether the two label rules could join a waiting record differently."""
        rules, now_us = (self.stored.label, self._declared.label), to_us(self._clock.now())
        with self._database.reading() as connection:
            return is_waiting(connection, self._pipeline_id, self._inbox, rules, now_us)


def _meanwhile(pipeline: str) -> ConflictError:
    return ConflictError(
        f"another process declared pipeline {pipeline!r} anew meanwhile",
        hint="see that both have the same declaration, then do it again",
    )


def _reading(pipeline: Pipeline, task: Task, features: Sequence[FeatureKind]) -> Pipeline:
    """Return a pipeline for reading records, in which every feature is a request feature."""
    return Pipeline(
        name=pipeline.name,
        task=task,
        features=tuple(
            RequestFeature(feature.name, feature.dtype, feature.nullable) for feature in features
        ),
        label=LabelRule(wait=pipeline.label.wait),
        monitoring=replace(pipeline.monitoring, slices=()),
        model=pipeline.model,
        update=pipeline.update,
    )
