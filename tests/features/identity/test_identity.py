"""A log has an id that inbox, database and archive bear; stores of another log are refused."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from sqlalchemy import delete
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.features.read.repository import find
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.infra.ids import new_id
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Claim, Identity
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.schema import tables
from headwater.loop.collect import collect
from headwater.spec.errors import IdentityError, IntegrityError

Opener = Callable[..., FeatureLog]


@pytest.fixture(params=["disk", "S3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home whose storage others may use, too."""
    if request.param == "S3":
        found: Settings = request.getfixturevalue("on_s3")
        return found
    return Settings(home=tmp_path / "home", storage=str(tmp_path / "storage"))


def fill(log: FeatureLog, rows: int = 10, tag: str = "") -> None:
    log.record([prediction(f"{tag}{i}", x=float(i)) for i in range(rows)])
    log.label([label(f"{tag}{i}", i % 3 == 0) for i in range(rows)])


def beside(settings: Settings, tmp_path: Path) -> Settings:
    """Another home on the same storage."""
    return Settings(
        home=tmp_path / "other", storage=settings.storage_uri, s3_endpoint=settings.s3_endpoint
    )


def close(log: FeatureLog) -> None:
    log.close()
    log.database.close()


def test_a_storage_of_another_log_is_refused_before_sequencing(
    open_log: Opener, shared: Settings, tmp_path: Path
) -> None:
    mine = open_log(shared)
    fill(mine)
    collect(mine)
    other = open_log(beside(shared, tmp_path))
    fill(other, 20, "b")
    for _ in range(2):
        with pytest.raises(IdentityError) as refused:
            collect(other)
    assert (refused.value.whose, refused.value.log) == (mine.identity.log, other.identity.log)
    assert refused.value.since is not None
    assert mine.identity.log in refused.value.what
    assert shared.storage_uri in refused.value.what
    for way in ("another name", "HEADWATER_STORAGE", "HEADWATER_HOME"):
        assert way in refused.value.hint
    assert (other.stop(), other.positions()) == (0, 0)
    assert mine.archive["examples"].stop() == 10
    fill(mine, 5, "later")
    assert collect(mine).archived == 5


def test_every_reader_of_another_log_s_tables_is_refused(
    open_log: Opener, shared: Settings, tmp_path: Path
) -> None:
    mine = open_log(shared)
    fill(mine)
    collect(mine)
    other = open_log(beside(shared, tmp_path))
    fill(other)
    drain(other)
    readers: list[Callable[[], object]] = [
        other.examples,
        other.counts,
        other.collect,
        other.archive["predictions"].stop,
        lambda: other.archive["labels"].append(pl.DataFrame({"position": [0]}), 0, 1),
    ]
    for reader in readers:
        with pytest.raises(IdentityError):
            reader()


def test_tables_of_another_log_are_refused_without_a_claim(
    open_log: Opener, settings: Settings, tmp_path: Path
) -> None:
    mine = open_log(settings)
    fill(mine)
    collect(mine)
    other = open_log(Settings(home=tmp_path / "other"))
    fill(other)
    there = Path(other.archive["examples"].address)
    shutil.copytree(mine.archive["examples"].address, there)
    with pytest.raises(IdentityError, match="table 'examples' of 'toy'"):
        collect(other)
    assert [path.name for path in there.parent.iterdir()] == ["examples"]


def test_a_table_without_an_id_is_refused(open_log: Opener, shared: Settings) -> None:
    log = open_log(shared)
    fill(log)
    storage = open_storage(shared)
    storage.prepare()
    address = log.archive["labels"].address
    write_deltalake(address, pl.DataFrame({"position": [0]}), storage_options=storage.options)
    with pytest.raises(IdentityError, match="bears no log's id") as refused:
        collect(log)
    assert refused.value.whose is None
    assert DeltaTable(address, storage_options=storage.options).version() == 0


def test_one_of_several_logs_that_claim_a_name_at_once_gets_it(shared: Settings) -> None:
    storage = open_storage(shared)
    storage.prepare()
    many = 8
    start = Barrier(many)

    def claim(log: str) -> str | None:
        mine = Claim(storage, Identity("toy", log))
        start.wait()
        try:
            mine.take()
        except IdentityError as error:
            return error.whose
        return log

    logs = [new_id() for _ in range(many)]
    with ThreadPoolExecutor(many) as pool:
        (holder,) = set(pool.map(claim, logs))
    assert holder in logs
    Claim(storage, Identity("toy", holder)).take()


def test_a_damaged_claim_is_refused_until_it_is_removed(settings: Settings) -> None:
    storage, identity = open_storage(settings), Identity("toy", new_id())
    Claim(storage, identity).take()
    storage.write(b"", "tables", "toy", "log.json")
    with pytest.raises(IdentityError, match="is damaged") as refused:
        Claim(storage, identity).take()
    assert "remove that file" in refused.value.hint
    Path(storage.address("tables", "toy", "log.json")).unlink()
    Claim(storage, identity).take()


def test_a_copy_of_a_home_is_of_the_same_log(
    open_log: Opener, settings: Settings, tmp_path: Path
) -> None:
    log = open_log(settings)
    fill(log)
    collect(log)
    close(log)
    shutil.copytree(settings.root, tmp_path / "copy")
    copied = open_log(Settings(home=tmp_path / "copy"))
    assert copied.identity == log.identity
    fill(copied, 5, "more")
    assert collect(copied).stop == 15


def copies(open_log: Opener, settings: Settings, other: Path) -> tuple[FeatureLog, FeatureLog]:
    """A log of ten examples, and a copy of its home."""
    log = open_log(settings)
    fill(log)
    collect(log)
    close(log)
    shutil.copytree(settings.root, other)
    copied = Settings(
        home=other,
        storage=settings.storage_uri,
        database_url=settings.database_url,
        s3_endpoint=settings.s3_endpoint,
    )
    return open_log(settings), open_log(copied)


@pytest.mark.parametrize("rows", [3, 5, 8])
def test_a_copy_of_a_home_that_goes_on_by_itself_is_refused_where_another_has_archived(
    open_log: Opener, shared: Settings, tmp_path: Path, rows: int
) -> None:
    log, copied = copies(open_log, shared, tmp_path / "copied")
    fill(log, 5, "mine")
    collect(log)
    fill(copied, rows, "its")
    for work in (lambda: collect(copied), copied.collect):
        with pytest.raises(IdentityError, match="a copy of this home"):
            work()
    assert copied.stop() == 10
    drain(copied)
    with pytest.raises(IdentityError, match="a copy of this home"):
        copied.examples(9, copied.stop())
    fill(log, 5, "more")
    assert collect(log).archived == 5
    assert log.examples(10)["prediction_id"].to_list() == [
        f"{tag}{i}" for tag in ("mine", "more") for i in range(5)
    ]


@pytest.mark.parametrize("table", ["predictions", "labels"])
def test_a_copy_that_records_other_halves_under_the_same_ids_is_refused(
    open_log: Opener, settings: Settings, tmp_path: Path, table: str
) -> None:
    there = Settings(home=settings.root, storage=str(tmp_path / "storage"))
    log, copied = copies(open_log, there, tmp_path / "copied")
    for one, differs in ((log, 0.0), (copied, 1.0)):
        one.record([prediction("same", x=differs if table == "predictions" else 0.0)])
        if table == "labels":
            one.label([label("same", bool(differs))])
        drain(one)
    collect(log)
    with pytest.raises(IdentityError, match="is not the one that the database has"):
        collect(copied)


@pytest.mark.parametrize("last", ["prediction", "label", "early label"])
def test_a_copy_whose_records_the_database_would_pass_over_is_refused(
    open_log: Opener, settings: Settings, tmp_path: Path, last: str
) -> None:
    database, storage = f"sqlite:///{tmp_path / 'one.sqlite'}", str(tmp_path / "storage")
    there = Settings(home=settings.root, database_url=database, storage=storage)
    log, copied = copies(open_log, there, tmp_path / "copied")
    for one, tag, value in ((log, "mine", True), (copied, "its", False)):
        if last == "prediction":
            one.record([prediction(tag)])
        else:
            one.label([label("3" if last == "label" else "later", value, key=tag)])
    collect(log)
    position = log.positions()
    with pytest.raises(IdentityError, match="a copy of this home"):
        collect(copied)
    with pytest.raises(IdentityError, match="a copy of this home"):
        open_log(Settings(home=tmp_path / "copied", database_url=database, storage=storage))
    assert log.positions() == position
    fill(log, 3, "more")
    assert collect(log).emitted == 3


def test_processes_that_begin_a_log_at_once_have_one(open_log: Opener, settings: Settings) -> None:
    Database(settings.operational_url).close()
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(lambda _: open_log(settings), range(4)))
    assert len({log.identity for log in logs}) == 1
    assert len({log.inbox.identity.inbox for log in logs}) == 1


def test_a_missing_inbox_is_refused_if_the_database_knows_the_log(
    open_log: Opener, settings: Settings, tmp_path: Path
) -> None:
    log = open_log(settings)
    fill(log, 5)
    other = Settings(home=tmp_path / "other", database_url=settings.operational_url)
    with pytest.raises(IdentityError, match="is missing") as refused:
        open_log(other)
    assert refused.value.log == log.identity.log
    assert "HEADWATER_DATABASE_URL" in refused.value.hint
    assert not (other.root / "inbox").exists()


def test_an_inbox_of_another_log_is_refused(
    open_log: Opener, settings: Settings, tmp_path: Path
) -> None:
    log, other = open_log(settings), Settings(home=tmp_path / "other")
    stranger = open_log(other)
    fill(stranger, 5)
    mixed = Settings(home=other.home, database_url=settings.operational_url)
    with pytest.raises(IdentityError) as refused:
        open_log(mixed)
    assert (refused.value.whose, refused.value.log) == (stranger.identity.log, log.identity.log)
    with pytest.raises(IdentityError):
        find(log.database, "toy", mixed)
    assert find(log.database, "toy", settings) == log.pipeline_id
    assert find(log.database, "toy", Settings(home=tmp_path / "none")) == log.pipeline_id


def test_a_new_inbox_is_refused_if_the_database_knows_the_log(
    open_log: Opener, settings: Settings, tmp_path: Path
) -> None:
    open_log(settings)
    other = Settings(home=tmp_path / "other", database_url=settings.operational_url)
    Inbox(inbox_file("toy", other)).close()
    with pytest.raises(IdentityError, match="is new"):
        open_log(other)


def test_an_inbox_of_a_log_is_refused_by_a_new_database(open_log: Opener, settings: Settings) -> None:
    log = open_log(settings)
    fill(log, 5)
    drain(log)
    anew = Settings(home=settings.home, database_url=f"sqlite:///{settings.root / 'new.sqlite'}")
    with pytest.raises(IdentityError, match="knows no log of that pipeline") as refused:
        open_log(anew)
    assert refused.value.whose == log.identity.log
    assert open_log(settings).stop() == 5


@pytest.mark.parametrize("marked", [True, False])
def test_an_inbox_restored_from_an_older_copy_is_refused(
    open_log: Opener, settings: Settings, tmp_path: Path, marked: bool
) -> None:
    log = open_log(settings)
    fill(log, 5)
    log.close()
    file = inbox_file("toy", settings)
    shutil.copy(file, tmp_path / "copy")
    log = open_log(settings)
    fill(log, 5, "later")
    drain(log)
    log.close()
    shutil.copy(tmp_path / "copy", file)
    if not marked:
        file.with_suffix(".end").unlink()
    why = "had acknowledged records up to 20" if marked else "the database has read it up to 20"
    with pytest.raises(IntegrityError, match=f"at position 10, and {why}"):
        open_log(settings)


def test_an_inbox_of_another_shape_is_refused_by_name(open_log: Opener, settings: Settings) -> None:
    file = inbox_file("toy", settings)
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE entry (position INTEGER PRIMARY KEY)")
    connection.close()
    with pytest.raises(IdentityError, match="made before inboxes had one"):
        open_log(settings)


def test_a_database_of_another_shape_is_refused_by_name(open_log: Opener, settings: Settings) -> None:
    log = open_log(settings)
    with log.database.transaction() as connection:
        connection.execute(delete(tables.log))
    with pytest.raises(IdentityError):
        open_log(settings)
