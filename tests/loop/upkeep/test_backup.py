"""A home is backed up while it goes on, and restored elsewhere: nothing acknowledged is missing."""

import hashlib
import os
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from deltalake import DeltaTable
from sqlalchemy import select, update
from tests.conftest import START
from tests.loop.conftest import PIPELINE, day
from tests.loop.upkeep.conftest import elsewhere, grow

from headwater.features.record.import_draft import _FEW
from headwater.features.record.inbox import inbox_file
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.schema import tables
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild, rebuild_here
from headwater.loop.training.update import train
from headwater.loop.upkeep.backup import back_up
from headwater.loop.upkeep.manifest import Manifest, read_manifest
from headwater.loop.upkeep.restore import restore_backup
from headwater.spec.data.records import Prediction
from headwater.spec.errors import ConflictError, DigestError, IntegrityError, NotFoundError, StorageError

OpenBound = Callable[..., Bound]


@pytest.fixture
def grown(home: Settings, open_bound: OpenBound) -> Bound:
    bound = open_bound(home)
    grow(bound)
    return bound


@pytest.mark.parametrize("stores", ["S3", "PostgreSQL"], indirect=True)  # each on disk otherwise
def test_a_backup_that_is_taken_while_all_goes_on_is_of_one_moment(
    stores: Settings, open_bound: OpenBound, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bound = open_bound(stores)
    grow(bound)
    steps: list[str] = []
    went_on = {"database", "inbox of line", "storage", "artifacts"}

    def told(step: str, _done: int, _total: int) -> None:
        kind = step.partition(":")[0]
        if kind in went_on:  # records, labels, sequencing, collecting, training, promotion
            went_on.remove(kind)
            steps.append(kind)
            grow(bound)

    manifest = back_up(stores, tmp_path / "backup", told=told)
    assert (len(steps), went_on) == (4, set())
    taken = manifest.pipelines["line"]
    assert taken.examples < bound.log.stop()
    assert taken.sequenced <= taken.position < bound.log.inbox.end()

    on_postgres = "PostgreSQL" in request.node.name
    changes = {"database_url": request.getfixturevalue("new_postgres")()} if on_postgres else {}
    there = elsewhere(stores, tmp_path / "there", **changes)
    restore_backup(there, tmp_path / "backup")
    before = bound.log.inbox.read(0, taken.position)
    expected = _versions(bound, taken.examples)
    bound.close()
    if not on_postgres:
        shutil.rmtree(stores.root)
    restored = open_bound(there, SimulatedClock(bound.clock.now()))
    assert restored.log.inbox.read(0, 10_000) == before[: taken.position]
    assert restored.log.stop() == taken.examples
    assert _versions(restored, 10_000) == expected
    for number in expected:
        assert rebuild_here("line", number, there).equal
    assert rebuild("line", max(expected, key=int), there, from_root=True).equal
    reign = restored.registry.championship.reign()
    assert reign is not None
    assert reign.version in expected

    grow(restored)  # it goes on from there
    ids = restored.log.predictions()["prediction_id"].to_list()
    assert len(ids) == len(set(ids)) == restored.log.counts().predictions
    assert restored.log.counts().unsequenced == 0
    assert restored.log.stop() == restored.log.counts().archived > taken.examples


def _versions(bound: Bound, stop: int) -> dict[str, str]:
    versions = bound.registry.store.versions()
    return {v.number: v.digest for v in versions if v.examples.stop <= stop}


def test_no_position_that_the_database_has_consumed_is_given_out_again(
    home: Settings, grown: Bound, open_bound: OpenBound, tmp_path: Path
) -> None:
    def told(step: str, _done: int, _total: int) -> None:
        if step == "database":
            day(grown, collected=False)

    manifest = back_up(home, tmp_path / "backup", told=told)
    taken = manifest.pipelines["line"]
    there = elsewhere(home, tmp_path / "there")
    restore_backup(there, tmp_path / "backup")
    restored = open_bound(there, SimulatedClock(grown.clock.now()))
    assert taken.position > taken.sequenced > 0
    before = restored.log.inbox.end()
    day(restored, rows=10, seed=1, collected=False)
    assert restored.log.inbox.read(before, 1)[0][0] == before + 1 > taken.sequenced
    collect(restored.log)
    assert restored.log.counts().unsequenced == 0
    assert restored.log.counts().predictions == taken.position // 2 + 10


def test_a_backup_whose_inbox_ends_before_its_database_is_refused(
    home: Settings, grown: Bound, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    back_up(home, folder)
    file = folder / "inbox" / "line.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM entry WHERE position > 100")
    manifest = read_manifest(folder)
    log = msgspec.structs.replace(manifest.pipelines["line"], position=100)
    _sign(folder, "inbox/line.sqlite", pipelines={"line": log})
    with pytest.raises(IntegrityError, match=r"ends at position 100 .* has read up to 240"):
        restore_backup(elsewhere(home, tmp_path / "there"), folder)
    assert not (tmp_path / "there").exists()


def test_imported_history_is_in_it(home: Settings, open_bound: OpenBound, tmp_path: Path) -> None:
    bound = open_bound(home)
    many = (
        Prediction(id=f"i{i}", features={"a": 1.0, "b": 2.0}, output=0.5, served_at=START)
        for i in range(_FEW + 1)
    )
    bound.log.import_history((prediction, None) for prediction in many)
    back_up(home, tmp_path / "backup")
    there = elsewhere(home, tmp_path / "there")
    restore_backup(there, tmp_path / "backup")
    restored = open_bound(there)
    assert restored.log.inbox.end() == restored.log.inbox.count_after(0) == _FEW + 1
    collect(restored.log)
    assert restored.log.counts().predictions == _FEW + 1


def test_a_database_may_become_one_of_another_kind(
    home: Settings,
    grown: Bound,
    open_bound: OpenBound,
    tmp_path: Path,
    new_postgres: Callable[[], str],
) -> None:
    back_up(home, tmp_path / "first")
    middle = elsewhere(home, tmp_path / "middle", database_url=new_postgres())
    restore_backup(middle, tmp_path / "first")
    bound = open_bound(middle, SimulatedClock(grown.clock.now()))
    grow(bound)  # numbers of new rows go on behind the copied ones
    assert rebuild_here("line", "2", middle).equal
    back_up(middle, tmp_path / "second")
    last = elsewhere(home, tmp_path / "last")
    restore_backup(last, tmp_path / "second")
    again = open_bound(last, SimulatedClock(bound.clock.now()))
    for table in (tables.audit, tables.example, tables.prediction, tables.reign):
        rows = [_rows(one, table) for one in (bound, again)]
        assert rows[0] == rows[1] != []


def _rows(bound: Bound, table: "tables.Table") -> list[tuple[object, ...]]:
    with bound.database.reading() as connection:
        return sorted((tuple(row) for row in connection.execute(select(table))), key=repr)


def test_a_lease_of_the_old_home_holds_up_nobody(
    home: Settings, grown: Bound, open_bound: OpenBound, tmp_path: Path
) -> None:
    with grown.database.transaction() as connection:
        connection.execute(update(tables.lease).values(holder="other/1/1.00", expires_at_us=2**60))
    back_up(home, tmp_path / "backup")
    there = elsewhere(home, tmp_path / "there")
    restore_backup(there, tmp_path / "backup")
    grow(open_bound(there, SimulatedClock(grown.clock.now())))


def test_the_key_is_in_it_if_asked_for(home: Settings, grown: Bound, tmp_path: Path) -> None:
    back_up(home, tmp_path / "with", with_key=True)
    back_up(home, tmp_path / "without")
    kept = tmp_path / "with" / "signing.key"
    assert (stat.S_IMODE(kept.stat().st_mode), kept.read_bytes()) == (0o600, home.key())
    assert not (tmp_path / "without" / "signing.key").exists()

    there = Settings(home=tmp_path / "there")
    restore_backup(there, tmp_path / "with")
    assert (there.root / "signing.key").read_bytes() == home.key()
    assert stat.S_IMODE((there.root / "signing.key").stat().st_mode) == 0o600
    with pytest.raises(DigestError, match="the signing key is not in the backup"):
        restore_backup(Settings(home=tmp_path / "other"), tmp_path / "without")
    wrong = Settings(home=tmp_path / "other", signing_key="wrong")  # type: ignore[arg-type]
    with pytest.raises(DigestError, match="this signing key signed none of the 1 states"):
        restore_backup(wrong, tmp_path / "without")
    with pytest.raises(DigestError, match="signed none"):
        back_up(home.model_copy(update={"signing_key": wrong.signing_key}), tmp_path / "third")
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "third").exists()


def _spoil_file(folder: Path) -> None:
    with (folder / "headwater.sqlite").open("r+b") as file:
        file.seek(5_000)
        file.write(b"?")


def _lose_file(folder: Path) -> None:
    next(folder.rglob("state.bin")).unlink()


def _sign(folder: Path, name: str | None = None, **changes: object) -> None:
    """Write a manifest anew, with the checksum of a changed file."""
    raw = msgspec.json.decode((folder / "backup.json").read_bytes())
    if name is not None:
        content = (folder / name).read_bytes()
        raw["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "backup.json").write_bytes(msgspec.json.encode(raw | changes))


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda folder: (folder / "backup.json").unlink(), IntegrityError, "is no whole backup"),
        (lambda folder: (folder / "backup.json").write_text("{"), IntegrityError, "is damaged"),
        (lambda folder: _sign(folder, layout=9), StorageError, "has layout 9"),
        (lambda folder: _sign(folder, revision="9999"), StorageError, "has schema 9999"),
        (_spoil_file, IntegrityError, "missing or damaged: headwater.sqlite"),
        (_lose_file, IntegrityError, "missing or damaged: .*state.bin"),
        (shutil.rmtree, NotFoundError, "there is no folder"),
    ],
)
def test_what_is_no_whole_backup_is_refused_before_anything_is_written(
    spoil: Callable[[Path], object],
    error: type[Exception],
    said: str,
    home: Settings,
    grown: Bound,
    tmp_path: Path,
) -> None:
    back_up(home, tmp_path / "backup")
    spoil(tmp_path / "backup")
    with pytest.raises(error, match=said):
        restore_backup(elsewhere(home, tmp_path / "there"), tmp_path / "backup")
    assert not (tmp_path / "there").exists()


def test_nothing_is_restored_over_what_is_there(home: Settings, grown: Bound, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    back_up(home, folder)
    with pytest.raises(ConflictError, match=r"the home .* is not empty: it holds headwater.sqlite"):
        restore_backup(home, folder)
    new = elsewhere(home, tmp_path / "there", storage=str(home.root / "storage"))
    with pytest.raises(ConflictError, match=r"the storage .* is not empty: it holds mlflow/line"):
        restore_backup(new, folder)
    new = elsewhere(home, tmp_path / "there", database_url=home.operational_url)
    with pytest.raises(ConflictError, match=r"the database .* is not empty"):
        restore_backup(new, folder)
    new = elsewhere(home, tmp_path / "there", mlflow_uri=home.tracking_uri)
    with pytest.raises(ConflictError, match=r"MLflow's file .* is there already"):
        restore_backup(new, folder)
    assert not (tmp_path / "there").exists()


def test_a_backup_takes_the_place_of_nothing(home: Settings, grown: Bound, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for folder, said in (
        (tmp_path / "full", "is not empty"),
        (home.root / "storage" / "backup", "which is copied"),
    ):
        with pytest.raises(ConflictError, match=said):
            back_up(home, folder)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(NotFoundError, match="there is no home"):
        back_up(Settings(home=tmp_path / "none"), tmp_path / "backup")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("step", ["MLflow", "database", "inbox of line", "storage", "checksums"])
def test_an_interrupted_backup_leaves_nothing(
    step: str, home: Settings, grown: Bound, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        back_up(home, tmp_path / "backup", told=_interrupting(step))
    assert not (tmp_path / "backup").exists()
    (tmp_path / "made").mkdir()
    with pytest.raises(KeyboardInterrupt):
        back_up(home, tmp_path / "made", told=_interrupting(step))
    assert list((tmp_path / "made").iterdir()) == []
    grow(grown)  # and holds nobody up


@pytest.mark.parametrize("step", ["checking the backup", "storage", "artifacts", "database"])
def test_an_interrupted_restore_leaves_nothing(
    step: str, stores: Settings, open_bound: OpenBound, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    grow(open_bound(stores))
    back_up(stores, tmp_path / "backup")
    changes: dict[str, object] = {}
    if "PostgreSQL" in request.node.name:
        changes = {"database_url": request.getfixturevalue("new_postgres")()}
    if "S3" in request.node.name:
        changes = {"storage": f"{stores.storage}-2", "s3_endpoint": stores.s3_endpoint}
    there = elsewhere(stores, tmp_path / "there", **changes)
    with pytest.raises(KeyboardInterrupt):
        restore_backup(there, tmp_path / "backup", told=_interrupting(step))
    assert not (tmp_path / "there").exists()
    restore_backup(there, tmp_path / "backup")  # so that it can be done again
    assert rebuild_here("line", "1", there).equal


def _interrupting(at: str) -> Callable[[str, int, int], None]:
    def told(step: str, _done: int, _total: int) -> None:
        if step.partition(":")[0] == at:
            raise KeyboardInterrupt

    return told


def test_a_killed_restore_is_met_by_name(home: Settings, grown: Bound, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup")
    there = elsewhere(home, tmp_path / "there")

    def told(step: str, _done: int, _total: int) -> None:
        if step == "artifacts":
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        restore_backup(there, tmp_path / "backup", told=told)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with pytest.raises(IntegrityError, match="is not whole: a backup is being restored"):
        Bound(PIPELINE, there)
    with pytest.raises(ConflictError, match=r"a restore into .* was interrupted"):
        restore_backup(there, tmp_path / "backup")
    shutil.rmtree(tmp_path / "there")
    restore_backup(there, tmp_path / "backup")
    assert rebuild_here("line", "1", there).equal


def test_a_table_that_was_compacted_comes_back_as_it_is(
    home: Settings, grown: Bound, open_bound: OpenBound, tmp_path: Path
) -> None:
    day(grown)
    address = grown.log.archive["examples"].address
    DeltaTable(address).optimize.compact()
    DeltaTable(address).create_checkpoint()
    back_up(home, tmp_path / "backup")
    there = elsewhere(home, tmp_path / "there")
    restore_backup(there, tmp_path / "backup")
    restored = open_bound(there, SimulatedClock(grown.clock.now()))
    assert restored.log.examples().equals(grown.log.examples())
    assert len(list(Path(restored.log.archive["examples"].address).glob("*.parquet"))) == 1
    grow(restored)


def test_the_manifest_names_the_position(home: Settings, grown: Bound, tmp_path: Path) -> None:
    made = back_up(home, tmp_path / "backup")
    assert read_manifest(tmp_path / "backup") == made
    assert isinstance(made, Manifest)
    log = made.pipelines["line"]
    assert log.position == grown.log.inbox.end() == log.sequenced
    assert (log.log, log.inbox) == (grown.log.identity.log, grown.log.inbox.identity.inbox)
    assert inbox_file("line", home).exists()
    assert train(grown, by="test") is not None
