"""The audit of actions: rows that are written in the action's transaction, and never changed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from headwater.infra.clock import from_us
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.data.values import check_name, misfit_of_text
from headwater.spec.errors import SchemaError

__all__ = ["Audited", "audited", "check_note", "note"]


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """One action of a person or a process.

    Parameters
    ----------
    number
        Rises with every row.
    at, by
        When, and who.
    action
        What: ``"promote"``, ``"add key"``.
    pipeline
        Of which pipeline; None if it is of none.
    detail
        More of it, by name.
    """

    number: int
    at: datetime
    by: str
    action: str
    pipeline: str | None
    detail: dict[str, Any]


def note(
    connection: Connection,
    at_us: int,
    by: str,
    action: str,
    *,
    pipeline_id: int | None = None,
    detail: Mapping[str, object],
) -> None:
    """Write an action to the audit, in the transaction of the action itself.

    Parameters
    ----------
    connection
        The open transaction.
    at_us, by, action
        When, who and what.
    pipeline_id
        Of which pipeline, if of one.
    detail
        More of it; never a secret.

    Raises
    ------
    SchemaError
        If `by` is no name, or the reason in `detail` holds what no store does.
    """
    check_note(by, str(detail.get("reason", "")))
    connection.execute(
        insert(tables.audit).values(
            at_us=at_us,
            by=by,
            action=action,
            pipeline_id=pipeline_id,
            detail=msgspec.json.encode(detail).decode(),
        )
    )


def check_note(by: str, reason: str = "") -> None:
    """Check the name and the reason of an action, before its effect.

    Raises
    ------
    SchemaError
        If `by` is no name, or the reason holds what no store does.
    """
    check_name(by, "by")
    why = misfit_of_text(reason)
    if why is not None:
        raise SchemaError(f"reason: it {why}", hint="take that out of the text")


def audited(database: Database, last: int) -> list[Audited]:
    """Return the last actions, newest last.

    Parameters
    ----------
    database
        Where it is kept.
    last
        How many rows.
    """
    row, pipeline = tables.audit.c, tables.pipeline.c
    query = (
        select(row.number, row.at_us, row.by, row.action, pipeline.name, row.detail)
        .select_from(tables.audit.outerjoin(tables.pipeline, row.pipeline_id == pipeline.id))
        .order_by(row.number.desc())
        .limit(last)
    )
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        Audited(
            number=number,
            at=from_us(at_us),
            by=by,
            action=action,
            pipeline=name,
            detail=msgspec.json.decode(detail),
        )
        for number, at_us, by, action, name, detail in reversed(rows)
    ]
