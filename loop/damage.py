"""Damage of the logs of a home: ``headwater doctor --damage`` finds all of it, ``--repair`` mends it.

What is damaged in one store is mended from another one that has it whole. A table of the archive is
written anew from the database; nothing is removed before the database was found whole.
"""

from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import select

from headwater.features.integrity.inbox_mending import lost_positions, mend_inbox
from headwater.features.integrity.refill import refill
from headwater.features.integrity.salvage import salvage
from headwater.features.integrity.scrub import Scrub
from headwater.features.log import FeatureLog
from headwater.features.read.archive import Archived
from headwater.features.read.repository import damaged_examples, registered
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.features.sequence.sequencer import Sequencer
from headwater.infra.clock import SystemClock, to_us
from headwater.infra.settings import Settings
from headwater.infra.store.audit import note
from headwater.infra.store.database import Database
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.schema import tables
from headwater.loop.broken_files import open_database_again, open_inbox_again
from headwater.loop.doctor import CheckResult
from headwater.spec.data.feature import requested
from headwater.spec.declaration import Declaration
from headwater.spec.errors import HeadwaterError, IdentityError, TableError, spans_of
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateless

__all__ = ["check_damage"]

_TABLES: tuple[Archived, ...] = ("predictions", "labels", "examples")


def check_damage(settings: Settings, *, by: str, repair: bool = False) -> list[CheckResult]:
    """Look at every record of every log of a home; faults are results, not raised.

    Rows and entries that have a whole copy are mended as they are found.

    Parameters
    ----------
    settings
        Where the stores are.
    by
        Who asks, for the audit.
    repair
        Whether damaged tables of the archive are written anew, and lost entries removed from the inbox.
    """
    found = []
    try:
        done = open_database_again(settings) if repair else None
        database = Database(settings.operational_url)
        with closing(database):
            if done is not None:
                found.append(CheckResult(what="damage", good=True, found=done))
                _note(database, None, by, [done])
            for name in sorted(registered(database)):
                found += _of_log(name, settings, database, by, repair=repair)
    except HeadwaterError as error:
        found.append(CheckResult(what="damage", good=False, found=error.what, hint=error.hint))
    return found


def _of_log(
    name: str, settings: Settings, database: Database, by: str, *, repair: bool
) -> Iterator[CheckResult]:
    what = f"damage of {name}"
    try:
        pipeline, done = _stored_pipeline(name, database), []
        if repair:
            again = open_inbox_again(name, settings, database, registered(database)[name])
            done = [*filter(None, [again]), *_brought_level(pipeline, settings, database)]
            with closing(FeatureLog(pipeline, settings, database=database)) as log:
                done += _repaired(log, settings)
                _note(database, log.pipeline_id, by, done)
        with closing(FeatureLog(pipeline, settings, database=database)) as log:
            found = Scrub(log).whole()
        for text in done:
            yield CheckResult(what=what, good=True, found=text)
        if found is not None:
            yield CheckResult(what=what, good=False, found=found.what, hint=found.hint)
        elif not done:
            yield CheckResult(what=what, good=True, found="none")
    except HeadwaterError as error:
        yield CheckResult(what=what, good=False, found=error.what, hint=error.hint)


def _brought_level(pipeline: Pipeline, settings: Settings, database: Database) -> list[str]:
    """Refill an inbox that is behind the database, and sequence again what a database has lost.

    An inbox has every record, and joining depends on the entries and their times alone: the rows that it
    makes are those that were archived. If they are not, the archive is refused, as before.
    """
    done = []
    number = registered(database)[pipeline.name]
    if salvaged := salvage(inbox_file(pipeline.name, settings), database, number):
        done.append(
            f"the file of the inbox was written anew: {salvaged.whole} entries were whole, "
            f"{salvaged.given_back} came from the database"
        )
    with closing(Inbox(inbox_file(pipeline.name, settings))) as inbox:
        if refilled := refill(database, number, inbox):
            done.append(f"{refilled} entries were put back into the inbox")
        if lost := inbox.pass_over_lost():
            done.append(
                f"{len(lost)} records of the inbox are lost, at the positions {spans_of(lost)}: they "
                "were acknowledged, and not sequenced yet"
            )
    with closing(FeatureLog(pipeline, settings, database=database)) as log:
        if lost:
            _sequence(log)  # which writes them down
        try:
            log.same_rows.check_all(log.frames)
        except TableError:
            return done  # a table is damaged, and not ahead
        except IdentityError:
            if not log.unsequenced():
                raise
        else:
            return done
        emitted = _sequence(log)
    with closing(FeatureLog(pipeline, settings, database=database)) as log:
        log.same_rows.check_all(log.frames)
    return [*done, f"{emitted} examples that the database had lost were made again from the inbox"]


def _sequence(log: FeatureLog) -> int:
    """Sequence all that waits, by the stored rule; return how many examples were emitted."""
    pipeline, number, database = log.pipeline, log.pipeline_id, log.database
    with Sequencer(pipeline, number, log.inbox, database, log.clock, lambda: None) as sequencer:
        return sequencer.drain()


def _repaired(log: FeatureLog, settings: Settings) -> list[str]:
    """Mend what can be, and return what was done."""
    Scrub(log).whole()  # mends rows and entries from each other
    done = []
    lost = sorted(lost_positions(log.database, log.pipeline_id, log.inbox))
    if removed := mend_inbox(log.database, log.pipeline_id, log.inbox, lost, removes_lost=True):
        done.append(f"{len(removed)} lost entries were removed from the inbox")
    for table in _TABLES:
        if _is_damaged(log, table):
            _write_anew(log, table, settings)
            done.append(f"the table {table!r} of the archive was written anew from the database")
    return done


def _note(database: Database, number: int | None, by: str, done: list[str]) -> None:
    if done:
        with database.transaction() as connection:
            now_us = to_us(SystemClock().now())
            note(connection, now_us, by, "repair", pipeline_id=number, detail={"done": done})


def _is_damaged(log: FeatureLog, name: Archived) -> bool:
    """Return whether a table cannot be read, or has other rows than the database has up to there."""
    table = log.archive[name]
    try:
        paths, stop = list(table.list_files()), table.stop()
        if table.files is None or table.files.damaged(paths, again=True):
            return True
        count = sum(table.list_files(column="num_records").values())
    except TableError:
        return True
    rows = log.repository.rows
    if name == "examples":
        return count != stop - len(_left_out(log, stop))
    stored = rows.predictions(0, stop) if name == "predictions" else rows.labels(0, stop)
    return count < len(stored)


def _left_out(log: FeatureLog, stop: int) -> list[int]:
    quarantined = set(log.quarantined(0, stop))
    return [offset for offset in log.repository.rows.damaged_examples(0, stop) if offset in quarantined]


def _write_anew(log: FeatureLog, name: Archived, settings: Settings) -> None:
    """Remove a table and write it again.

    Raises
    ------
    DamagedError
        If the table may hold the only whole copy of an example: it stays.
    """
    _, end = log.repository.ends()
    damaged = set(log.repository.rows.damaged_examples(0, end)).difference(log.quarantined(0, end))
    if damaged:
        raise damaged_examples(sorted(damaged))
    open_storage(settings).remove("tables", log.pipeline.name, name)
    files = log.archive[name].files
    if files is not None:
        files.seals.forget_all()
    pipeline, database = log.pipeline, log.database
    with closing(FeatureLog(pipeline, settings, database=database)) as fresh:  # holds no table open
        fresh.archive_writer.write()


def _stored_pipeline(name: str, database: Database) -> Pipeline:
    """Make a pipeline that suffices to read a log and to archive it, from the declaration in force."""
    pipeline = tables.pipeline.c
    with database.reading() as connection:
        text = connection.execute(select(pipeline.declaration).where(pipeline.name == name)).scalar_one()
    declaration = Declaration.from_json(text)
    return Pipeline(
        name=name,
        task=declaration.task,
        features=tuple(map(requested, declaration.features)),
        label=declaration.label,
        model=_no_model,
        update=Stateless(),
    )


def _no_model() -> object:
    raise NotImplementedError("a log is read, and nothing is learned")
