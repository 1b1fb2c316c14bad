"""Backups taken under load, the home deleted, each restored elsewhere: all is there, all rebuilds."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.claim import Outcome, at_least, mlflow_database, say
from benchmarks.faults.postgres_server import running_postgres
from benchmarks.stores.growing import GROWING, acknowledged, growing, ids_of, record
from headwater.features.record.entries import InboxRow
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild_here
from headwater.loop.training.update import train
from headwater.loop.upkeep.backup import back_up
from headwater.loop.upkeep.manifest import read_manifest
from headwater.loop.upkeep.restore import restore_backup

__all__ = ["measure"]

_MOMENTS = 20
_LONGEST_S = 2.0
_NEW_BATCH = 900_000

_NewDatabase = Callable[[], str | None]


class _Restored(NamedTuple):
    """A restored backup: the records and versions that were to be in it, and what is wrong."""

    records: int
    versions: int
    took_s: float
    wrong: list[str]


def measure(*, short: bool) -> Outcome:
    """Take backups at random moments while one process records and labels, and one trains (ten minutes).

    Then the home is deleted, and each backup is restored into a home of its own: on SQLite, then on
    PostgreSQL. ``ratio`` is the share of backups in which every record that was acknowledged before the
    stated position and time is there once, every version rebuilds to its digest, and the home goes on.
    """
    moments = 1 if short else _MOMENTS
    found: dict[str, list[_Restored]] = {}
    for kind in ("SQLite", "PostgreSQL"):
        with _databases(kind) as new_database, tempfile.TemporaryDirectory() as folder:
            found[kind] = list(_restored(Path(folder), new_database, moments))
    every = [one for restored in found.values() for one in restored]
    return at_least(
        sum(not one.wrong for one in every) / len(every),
        1.0,
        also=len(every) == 2 * _MOMENTS,
        backups={kind: len(restored) for kind, restored in found.items()},
        records_checked=sum(one.records for one in every),
        versions_rebuilt=sum(one.versions for one in every),
        slowest_backup_s=round(max(one.took_s for one in every), 2),
        wrong=[text for one in every for text in one.wrong][:10],
    )


@contextmanager
def _databases(kind: str) -> Iterator[_NewDatabase]:
    with ExitStack() as stack:
        if kind == "SQLite":
            yield lambda: None
        else:
            yield stack.enter_context(running_postgres()).new_database


def _restored(folder: Path, new_database: _NewDatabase, moments: int) -> Iterator[_Restored]:
    """Back up under load, delete the home, and restore each backup."""
    settings = Settings(home=folder / "home", database_url=new_database())
    notes = folder / "notes"
    notes.mkdir()
    shutil.copy(mlflow_database(), settings.root)
    took_s = _back_up_on(settings, folder, notes, moments)
    key = settings.key().decode()
    with Bound(GROWING, settings) as bound:
        everything = bound.log.inbox.read(0, 10**9)
    shutil.rmtree(settings.root)
    for number in range(moments):
        there = Settings(
            home=folder / f"restored-{number}",
            database_url=new_database(),
            signing_key=key,  # type: ignore[arg-type] # pydantic makes a secret of it
        )
        yield _check(there, folder / f"backup-{number}", notes, everything, took_s[number])
        shutil.rmtree(there.root)
        say(f"  backup {number + 1} of {moments} was restored")


def _back_up_on(settings: Settings, folder: Path, notes: Path, moments: int) -> list[float]:
    drawn, took_s = random.Random(5), []
    with growing(settings, notes):
        while not (settings.root / "storage" / "mlflow").exists():  # the first version is being made
            time.sleep(0.1)
        for number in range(moments):
            time.sleep(drawn.uniform(0, _LONGEST_S))
            started_s = time.monotonic()
            back_up(settings, folder / f"backup-{number}")
            took_s.append(time.monotonic() - started_s)
    return took_s


def _check(
    there: Settings, backup: Path, notes: Path, everything: list[InboxRow], took_s: float
) -> _Restored:
    manifest = read_manifest(backup)
    position = manifest.pipelines[GROWING.name].position
    expected = [row for row in everything if row[0] <= position]
    restore_backup(there, backup)
    wrong: list[str] = []
    with Bound(GROWING, there) as bound:
        found = bound.log.inbox.read(0, 10**9)
        if found != expected:
            wrong.append(f"the inbox has {len(found)} records, not the {len(expected)} up to {position}")
        before = {batch for batch, moment in acknowledged(notes).items() if moment < manifest.at}
        there_ids = {id_ for _, id_ in ids_of(found)}
        if lost := [batch for batch in sorted(before) if f"{batch:06}-0" not in there_ids]:
            wrong.append(f"{len(lost)} batches acknowledged before the time are lost, such as {lost[0]}")
        versions = bound.registry.store.versions()
        wrong += [
            f"version {version.number} rebuilds to another digest"
            for version in versions
            if not rebuild_here(GROWING.name, version.number, there).equal
        ]
        wrong += _go_on(bound, len(expected))
    return _Restored(len(expected), len(versions), took_s, [f"{backup.name}: {text}" for text in wrong])


def _go_on(bound: Bound, recorded: int) -> Iterator[str]:
    """Record, collect and train, and look for records that are there twice or were passed over."""
    record(bound, _NEW_BATCH)
    collect(bound.log)
    counts = bound.log.counts()
    whole = bound.log.inbox.end()
    if counts.unsequenced or counts.predictions + counts.labels != whole or whole <= recorded:
        yield f"of {whole} records {counts.predictions + counts.labels} were sequenced"
    ids = bound.log.predictions()["prediction_id"].to_list()
    if len(set(ids)) != len(ids):
        yield f"{len(ids) - len(set(ids))} predictions are there twice"
    if train(bound, by="benchmark").version is None:
        yield "nothing more is trained"
