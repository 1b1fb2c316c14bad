"""Lines in which bytes of a store are damaged, cut or lost."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from deltalake import DeltaTable
from sqlalchemy import select, update

from benchmarks.stores.course import Course, Line
from benchmarks.stores.scene import Scene
from headwater.infra.store.schema import tables
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.errors import IntegrityError, StorageError, TableError

__all__ = ["LINES"]

_ALL = ("SQLite", "PostgreSQL", "S3")
_PAGE = 16_384
_TABLE = ("tables", "lined", "examples")


def _files(scene: Scene, ending: str) -> list[str]:
    """Return the names of the files of the table of examples with an ending, the oldest first."""
    return [name for name in scene.storage.names(*_TABLE) if name.endswith(ending)]


def _inbox(scene: Scene) -> Path:
    return scene.settings.root / "inbox" / "lined.sqlite"


def _copy_log(path: Path) -> None:
    """Bring all of a file's write-ahead log into it, so that the file's own pages count."""
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _overwrite_page(path: Path, words: bytes) -> None:
    """Overwrite the first page that holds some bytes, under whoever has the file open."""
    _copy_log(path)
    page = path.read_bytes().find(words) // _PAGE
    with path.open("r+b") as file:
        file.seek(page * _PAGE)
        file.write(b"\xff" * _PAGE)
        os.fsync(file.fileno())


def _inbox_page(course: Course) -> None:
    _overwrite_page(_inbox(course.scene), b'"prediction_id":"past-1-40"')
    course.harmed()
    course.alarm("damage", "lined.sqlite at the positions")
    course.scene.answers_again()
    course.restarted(course.repaired)


def _inbox_row(course: Course) -> None:
    with closing(sqlite3.connect(_inbox(course.scene), timeout=60)) as connection, connection:
        connection.execute("UPDATE entry SET payload = x'7b7d' WHERE position = 300")


def _database_page(course: Course) -> None:
    scene = course.scene
    path = scene.settings.root / "headwater.sqlite"
    copy = path.with_name("copy")
    with closing(sqlite3.connect(path, timeout=60)) as of, closing(sqlite3.connect(copy)) as to:
        of.backup(to)
    scene.answers_again()  # what comes since is not in the copy
    _overwrite_page(path, b'"prediction_id":"past-1-40"')
    course.harmed()
    course.alarm("damage", "the database at the positions")
    with scene.bound() as bound:
        course.expect(bound.log.examples(0, 600).height == 600, "examples are not read")

    def put_back() -> None:
        for one in path.parent.glob("headwater.sqlite-*"):
            one.unlink()
        copy.replace(path)

    course.restarted(put_back)


def _database_row(course: Course) -> None:
    with course.scene.bound() as bound, bound.database.transaction() as connection:
        row = tables.prediction
        position = connection.execute(select(row.c.position).where(row.c.id == "past-1-40")).scalar_one()
        connection.execute(update(row).where(row.c.position == position).values(payload=b"{}"))


def _mlflow_page(course: Course) -> None:
    scene = course.scene
    path = scene.settings.root / "mlflow.sqlite"
    for one in path.parent.glob("mlflow.sqlite-*"):
        one.unlink()
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"\xff" * 4_096)
    course.harmed()
    scene.answers_again()  # workers answer on

    def trains() -> None:
        with scene.bound() as bound:
            train(bound)

    course.refused(trains, StorageError, "mlflow.sqlite")
    with path.open("r+b") as file:
        file.write(content)
    for one in path.parent.glob("mlflow.sqlite-*"):
        one.unlink()


def _killed_with(damage: Callable[[Path], None], name: str) -> Callable[[Course], None]:
    """Return a course that kills all of a service, damages a file, and says what a start does then."""

    def run(course: Course) -> None:
        scene = course.scene
        path = scene.settings.root / name
        collected(scene)  # so that the archive is ahead of a database that loses its newest
        scene.end(signal.SIGKILL)
        course.without_restart = False
        damage(path)
        if name.endswith("-wal"):
            course.refused(lambda: collected(scene), IntegrityError)
            course.repaired()
        scene.start()

    def collected(scene: Scene) -> None:
        with scene.bound() as bound:
            collect(bound.log)

    return run


def _cut(path: Path) -> None:
    """Cut a write-ahead log to its half, or so far that an acknowledged frame is gone."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _shm_lost(course: Course) -> None:
    for name in ("inbox/lined.sqlite-shm", "headwater.sqlite-shm"):
        (course.scene.settings.root / name).unlink()
    course.scene.answers_again()
    course.restarted()


def _delta_log(course: Course) -> None:
    scene = course.scene
    name = "_delta_log/" + f"{1:020}.json"
    scene.storage.write(scene.storage.read(*_TABLE, *name.split("/"))[:300], *_TABLE, *name.split("/"))
    course.harmed()
    course.alarm("damage")
    with scene.bound() as bound:
        course.expect(bound.log.examples(0, 600).height == 600, "examples are not read")
        course.refused(lambda: collect(bound.log), TableError)
        course.expect(train(bound).version is not None, "training does not go on")
    course.restarted(course.repaired)


def _outsider(*, vacuums: bool) -> Callable[[Course], None]:
    def run(course: Course) -> None:
        storage = course.scene.storage
        address = storage.address(*_TABLE)
        table = DeltaTable(address, storage_options=storage.options_for(address))
        table.optimize.compact()
        if vacuums:
            table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        with course.scene.bound() as bound:
            collect(bound.log)
            course.expect(bound.log.examples(0, 600).height == 600, "examples are not read")
        course.scene.answers_again()

    return run


def _archive_file(course: Course) -> None:
    scene = course.scene
    name = _files(scene, ".parquet")[0]
    content = bytearray(scene.storage.read(*_TABLE, name))
    content[len(content) // 3] ^= 1
    scene.storage.write(bytes(content), *_TABLE, name)
    course.harmed()
    course.alarm("damage", name)
    with scene.bound() as bound:
        course.expect(bound.log.examples(0, 600).height == 600, "examples are not read")
        collect(bound.log)
        course.expect(train(bound).version is not None, "training does not go on")
    course.restarted(course.repaired)


LINES = (
    Line(
        "a page of the inbox is overwritten",
        "what the database has read is mended, nothing acknowledged is lost, the rest goes on",
        _inbox_page,
    ),
    Line("a byte of the inbox is overwritten", "mended by itself from the database", _inbox_row, _ALL),
    Line(
        "a page of the database is overwritten",
        "archived examples are read from the archive; a copy is put back, what came since is made anew",
        _database_page,
    ),
    Line("a row of the database is changed", "mended by itself from the inbox", _database_row, _ALL),
    Line(
        "a file of the archive is damaged",
        "read from the database, training goes on; --repair writes the table anew",
        _archive_file,
        _ALL,
    ),
    Line(
        "a page of MLflow's database is overwritten",
        "workers answer on, training is refused by name; put a copy back",
        _mlflow_page,
    ),
    Line(
        "the inbox's write-ahead log is cut",
        "opening is refused, --repair puts back what the database has read",
        _killed_with(_cut, "inbox/lined.sqlite-wal"),
        copy_left=False,
    ),
    Line(
        "the database's write-ahead log is cut",
        "collecting is refused, --repair sequences again from the inbox",
        _killed_with(_cut, "headwater.sqlite-wal"),
    ),
    Line("the -shm files are lost while they are used", "nothing", _shm_lost),
    Line(
        "the -shm file of the inbox is lost after a kill",
        "nothing",
        _killed_with(Path.unlink, "inbox/lined.sqlite-shm"),
    ),
    Line(
        "a commit of the archive's Delta log is cut",
        "read from the database, collecting waits, training goes on; --repair writes the table anew",
        _delta_log,
        _ALL,
    ),
    Line("an outsider compacts a table", "nothing", _outsider(vacuums=False), _ALL),
    Line("an outsider vacuums a table", "nothing", _outsider(vacuums=True), _ALL),
)
