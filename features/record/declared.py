"""The declaration in force of one pipeline, stored beside its records, and its replacement."""

from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import Connection, select, update

from headwater.features.record.inbox import Inbox
from headwater.infra.store.database import Database
from headwater.infra.store.schema import declaration_tables, tables
from headwater.spec.data.feature import FeatureKind, can_become, requested
from headwater.spec.data.label import LabelRule
from headwater.spec.declaration import Declaration, declaration_of, differences, needing_a_word, refusal
from headwater.spec.difference import Difference
from headwater.spec.errors import ConflictError
from headwater.spec.feature_differences import unreadable
from headwater.spec.pipeline import Pipeline, Task

__all__ = ["Declared", "recorded_contents", "recorded_declarations"]


class Declared:
    """The comparison of a pipeline's declaration with the stored one.

    Made by the feature log. Reading never changes what is stored; whoever records, sequences, collects,
    trains or serves calls :meth:`agree` first.

    Parameters
    ----------
    pipeline, pipeline_id
        As declared now, and its number in the database.
    inbox, database
        Where records wait, and where they are stored.
    """

    def __init__(self, pipeline: Pipeline, pipeline_id: int, inbox: Inbox, database: Database) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._inbox = inbox
        self._database = database
        self._declared = declaration_of(pipeline)
        self._text, self._agreed = "", False
        self.stored = self._read()

    @property
    def agreed(self) -> bool:
        """Whether this declaration was already found fit to record by."""
        return self._agreed

    def readable(self) -> Pipeline:
        """Return the pipeline by which records are read.

        A type that differs, and that nothing says how to convert to, is as stored.
        """
        stored, pipeline = self.stored, self._pipeline
        known = {feature.name: feature for feature in (*stored.dropped, *stored.features)}
        features = tuple(
            feature if can_become(known.get(feature.name, feature), feature) else known[feature.name]
            for feature in pipeline.features
        )
        types = [feature.dtype for feature in features]
        if stored.task == pipeline.task and types == [feature.dtype for feature in pipeline.features]:
            return pipeline
        return _reading(pipeline, stored.task, features)

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
        if not self._check(self.differences(), fresh=fresh):
            declaration = self._declared  # nothing was recorded, so nothing was dropped
        self._replace(declaration)
        self.stored, self._agreed = declaration, True
        return True

    def check_to_record(self) -> None:
        """Check what :meth:`agree` checks, and put nothing in force.

        Raises
        ------
        ChangedError
            As for that.
        """
        self.stored = self._read()
        self._check(self.differences(), fresh=False)

    def differences(self) -> tuple[Difference, ...]:
        """Return how the declaration differs from the stored one, and from what any record has."""
        with self._database.reading() as connection:
            recorded = recorded_declarations(connection, self._pipeline_id).values()
        found = {one.field: one for one in differences(self.stored, self._declared)}
        for one in unreadable([each.features for each in recorded], self._declared.features):
            found[one.field] = one
        return tuple(found.values())

    def check(self) -> None:
        """Check that the declaration is still in force.

        Raises
        ------
        ConflictError
            If another process declared anew since it was agreed.
        """
        if self._read() != self.stored:
            raise _meanwhile(self._pipeline.name)

    def _check(self, changes: Sequence[Difference], *, fresh: bool) -> bool:
        """Refuse differences that need a decision; return whether anything was recorded."""
        if not self._is_recorded():
            return False
        refused = needing_a_word(changes, learned=not fresh and self.is_learned())
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

    def _replace(self, declaration: Declaration) -> None:
        pipeline = tables.pipeline
        with self._database.transaction() as connection:
            changed = connection.execute(
                update(pipeline)
                .where(pipeline.c.id == self._pipeline_id, pipeline.c.declaration == self._text)
                .values(declaration=declaration.to_json())
            )
            if changed.rowcount != 1:
                raise _meanwhile(self._pipeline.name)

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
        features=tuple(map(requested, features)),
        label=LabelRule(wait=pipeline.label.wait),
        monitoring=replace(pipeline.monitoring, slices=()),
        model=pipeline.model,
        update=pipeline.update,
    )


def recorded_declarations(connection: Connection, pipeline_id: int) -> dict[int, Declaration]:
    """Return the declarations that a pipeline's records were recorded under, by number, rising."""
    rows = recorded_contents(connection, pipeline_id)
    return {number: Declaration.from_json(content) for number, _, content in rows}


def recorded_contents(connection: Connection, pipeline_id: int) -> list[tuple[int, int, str]]:
    """Return number, hash and content of what records were recorded under, by number, rising."""
    row = declaration_tables.recorded_by.c
    query = select(row.number, row.hash, row.content).where(row.pipeline_id == pipeline_id)
    return list(connection.execute(query.order_by(row.number)).tuples())
