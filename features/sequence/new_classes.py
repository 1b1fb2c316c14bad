"""The classes of labels that were not declared when they came: who sees them, and who names them."""

from collections.abc import Sequence
from difflib import get_close_matches

from sqlalchemy import ColumnElement, Connection, func, select, update

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.data.label import LabelRule, class_digest
from headwater.spec.declaration import Declaration
from headwater.spec.errors import ConflictError, DeclarationError, NotFoundError, few
from headwater.spec.rulings import AppearedClass

__all__ = ["MOST_CLASSES", "NewClasses"]

MOST_CLASSES = 1_000
"""How many of the newest classes are listed."""


class NewClasses:
    """The new classes of one pipeline's labels.

    Parameters
    ----------
    pipeline, pipeline_id
        The pipeline's name, and its number in the database.
    database, clock
        Where the rows are, and the time.
    """

    def __init__(self, pipeline: str, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock

    def all(self) -> list[AppearedClass]:
        """List the newest classes, oldest first."""
        return self._list(*self._mine())

    def unannounced(self) -> list[AppearedClass]:
        """List the newest classes whose event was not emitted yet, oldest first."""
        return self._list(*self._mine(), ~tables.label_class.c.announced)

    def announced(self, classes: Sequence[AppearedClass]) -> None:
        """Store that the events of classes were emitted."""
        table = tables.label_class
        with self._database.transaction() as connection:
            for one in classes:
                connection.execute(update(table).where(*self._mine(one.name)).values(announced=True))

    def name(self, name: str, becomes: str, *, by: str, reason: str) -> None:
        """Say what a new class is: a class of its own, or another by its right name.

        The labels that were held back for it are emitted at the next offsets, by whoever sequences.

        Parameters
        ----------
        name
            The class as it was told.
        becomes
            The same name, or that of a known class.
        by, reason
            Who says so, and why.

        Raises
        ------
        NotFoundError
            If no label of that class came.
        DeclarationError
            If `becomes` is no known class, or the pipeline holds no labels back.
        ConflictError
            If it was named otherwise before.
        """
        check_note(by, reason)
        table = tables.label_class
        with self._database.transaction() as connection:
            row = connection.execute(
                select(table.c.becomes).where(*self._mine(name)).with_for_update()
            ).one_or_none()
            if row is None:
                raise NotFoundError(
                    f"no label of class {name!r} came that was not declared",
                    hint=f"headwater classes {self._pipeline} lists those that came",
                )
            if row.becomes == becomes:
                return
            if row.becomes is not None:
                raise ConflictError(
                    f"class {name!r} was named before: it is {row.becomes!r}",
                    hint="labels that came since bear that name; send those that are wrong again",
                )
            self._check(connection, name, becomes)
            connection.execute(update(table).where(*self._mine(name)).values(becomes=becomes))
            detail = {"class": name, "becomes": becomes, "reason": reason}
            now_us = to_us(self._clock.now())
            note(connection, now_us, by, "name class", pipeline_id=self._pipeline_id, detail=detail)

    def _check(self, connection: Connection, name: str, becomes: str) -> None:
        rule = self._rule(connection)
        if rule.hold is not True and not self._held(connection, name):
            raise DeclarationError(
                f"pipeline {self._pipeline!r} holds no label of class {name!r} back",
                hint="declare LabelRule(classes=(...), hold=True), to be asked first",
            )
        if becomes == name or becomes in rule.known_classes:
            return
        table = tables.label_class.c
        accepted = select(table.name).where(*self._mine(), table.becomes == table.name)
        known = [*rule.known_classes, *connection.execute(accepted.limit(MOST_CLASSES)).scalars()]
        if becomes not in known:
            near = get_close_matches(becomes, known, n=3)
            close = f"; near it: {', '.join(map(repr, near))}" if near else ""
            raise DeclarationError(
                f"{becomes!r} is no known class{close}", hint=f"write one of {few(known, 20)}"
            )

    def _rule(self, connection: Connection) -> LabelRule:
        table = tables.pipeline.c
        query = select(table.declaration).where(table.id == self._pipeline_id)
        return Declaration.from_json(connection.execute(query).scalar_one()).label

    def _held(self, connection: Connection, name: str) -> int:
        label = tables.label.c
        query = select(func.count()).where(
            label.pipeline_id == self._pipeline_id, label.held_class == class_digest(name)
        )
        return connection.execute(query).scalar_one()

    def _list(self, *which: ColumnElement[bool]) -> list[AppearedClass]:
        table = tables.label_class.c
        query = select(table.name, table.appeared_at_us, table.becomes, table.named_from).where(*which)
        newest = query.order_by(table.position.desc()).limit(MOST_CLASSES)
        with self._database.reading() as connection:
            rows = connection.execute(newest).all()[::-1]
            return [
                AppearedClass(
                    pipeline=self._pipeline,
                    name=row.name,
                    appeared_at=from_us(row.appeared_at_us),
                    held=0 if row.named_from is not None else self._held(connection, row.name),
                    becomes=row.becomes,
                )
                for row in rows
            ]

    def _mine(self, name: str | None = None) -> tuple[ColumnElement[bool], ...]:
        table = tables.label_class.c
        mine = table.pipeline_id == self._pipeline_id
        return (mine,) if name is None else (mine, table.digest == class_digest(name))
