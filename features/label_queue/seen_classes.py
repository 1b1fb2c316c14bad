"""The classes that labels have had, so that people can be offered them."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import queue_tables, tables
from headwater.spec.data.label import class_digest
from headwater.spec.errors import NotFoundError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue_results import KnownClass

__all__ = ["SeenClasses", "known_classes"]

_MOST = 10_000  # a task with more has no list that helps people


class SeenClasses:
    """The classes of one pipeline's sequenced labels, in transactions that callers open.

    Parameters
    ----------
    pipeline_id
        Whose.
    """

    def __init__(self, pipeline_id: int) -> None:
        self._pipeline_id = pipeline_id

    def names(self, connection: Connection) -> list[str]:
        """Return the names, ten thousand at most."""
        table = queue_tables.seen_class.c
        query = select(table.name).where(table.pipeline_id == self._pipeline_id).limit(_MOST)
        return list(connection.execute(query).scalars())

    def accepted(self, connection: Connection) -> list[str]:
        """Return the names, not declared, of which a person said that they are classes of their own."""
        table = tables.label_class.c
        mine = table.pipeline_id == self._pipeline_id
        query = select(table.name).where(mine, table.becomes == table.name).limit(_MOST)
        return list(connection.execute(query).scalars())

    def new(self, connection: Connection, names: Collection[str]) -> list[str]:
        """Return the names that are not stored yet."""
        if not names:
            return []
        table, by_digest = queue_tables.seen_class.c, {class_digest(name): name for name in names}
        mine = table.pipeline_id == self._pipeline_id
        query = select(table.digest).where(mine, table.digest.in_(by_digest))
        stored = set(connection.execute(query).scalars())
        return [name for digest, name in by_digest.items() if digest not in stored]

    def add(self, connection: Connection, names: Collection[str]) -> None:
        """Store names that are new."""
        rows = [(self._pipeline_id, class_digest(name), name) for name in names]
        insert_many(connection, queue_tables.seen_class, rows)


def known_classes(connection: Connection, pipeline: Pipeline, seen: SeenClasses) -> list[KnownClass]:
    """Return the classes that people may answer with, by name.

    Of a multiclass task these are the declared ones, and those that labels have had if others are taken;
    if labels of others are held back, of those only what a person accepted as a class of its own.

    Raises
    ------
    NotFoundError
        If the task is a regression: its answers are numbers.
    """
    if pipeline.task == "regression":
        raise NotFoundError(
            f"the labels of {pipeline.name!r} are numbers, which have no classes",
            hint="answer with a number",
        )
    if pipeline.task == "binary":
        return [KnownClass(value=False, text="false"), KnownClass(value=True, text="true")]
    rule = pipeline.label
    names = set(rule.known_classes)
    if rule.hold is True:
        names.update(seen.accepted(connection))
    elif not rule.closed_classes:
        names.update(seen.names(connection))
    return [KnownClass(value=name, text=name) for name in sorted(names)]
