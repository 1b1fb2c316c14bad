"""What records were recorded under: declarations by number, which each sequenced prediction bears."""

from collections.abc import Iterable

from sqlalchemy import Connection, func, insert, select

from headwater.features.record.inbox import Inbox
from headwater.infra.store.schema import declaration_tables, tables
from headwater.spec.errors import IntegrityError

__all__ = ["RecordedBy", "numbers_between"]


def numbers_between(connection: Connection, pipeline_id: int, start: int, stop: int) -> list[int | None]:
    """Return the numbers of the declarations that a range of predictions was recorded under."""
    row = tables.prediction.c
    within = (row.pipeline_id == pipeline_id, row.position >= start, row.position < stop)
    return list(connection.execute(select(row.recorded_by).where(*within).distinct()).scalars())


class RecordedBy:
    """The numbers of the declarations that the entries of an inbox bear by hash.

    A declaration that comes for the first time is written down, in the transaction of its first record.

    Parameters
    ----------
    pipeline_id, inbox
        Whose, and where their content is.
    """

    def __init__(self, pipeline_id: int, inbox: Inbox) -> None:
        self._pipeline_id = pipeline_id
        self._inbox = inbox
        self._numbers: dict[int | None, int | None] = {None: None}

    def forget(self) -> None:
        """Forget what a failed transaction may have written down."""
        self._numbers = {None: None}

    def numbers(
        self, connection: Connection, hashes: Iterable[int | None], now_us: int
    ) -> dict[int | None, int | None]:
        """Return the number of each hash; None for entries of before declarations had one.

        Raises
        ------
        IntegrityError
            If neither database nor inbox knows a hash.
        """
        for hash_ in hashes:  # in their order, so that numbers do not depend on how batches are cut
            if hash_ not in self._numbers and hash_ is not None:
                self._numbers[hash_] = self._number(connection, hash_, now_us)
        return self._numbers

    def _number(self, connection: Connection, hash_: int, now_us: int) -> int:
        row = declaration_tables.recorded_by.c
        mine = row.pipeline_id == self._pipeline_id
        query = select(row.number).where(mine, row.hash == hash_)
        known = connection.execute(query).scalar_one_or_none()
        if known is not None:
            return int(known)
        content = self._inbox.declaration(hash_)
        if content is None:
            raise IntegrityError(
                f"records of the inbox {self._inbox.path} bear a declaration ({hash_:016x}) that "
                "neither it nor the database has",
                hint="restore the newest copy of the inbox, or of the database",
            )
        last = connection.execute(select(func.max(row.number)).where(mine)).scalar_one()
        number = (last or 0) + 1
        connection.execute(
            insert(declaration_tables.recorded_by).values(
                pipeline_id=self._pipeline_id,
                number=number,
                hash=hash_,
                content=content,
                since_us=now_us,
            )
        )
        return number
