"""A home is lost with its database and MLflow's records: its storage alone is adopted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Table, select
from tests.conftest import START
from tests.loop import models
from tests.loop.conftest import PIPELINE, day
from tests.loop.upkeep.conftest import grow, key_of

from headwater.features.read.archive_writer import ArchiveWriter
from headwater.infra.clock import SimulatedClock, to_us
from headwater.infra.commit_points import ADOPT_POINTS
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.schema import sequencing_tables, tables
from headwater.loop import adopt_storage
from headwater.loop.adopt import AdoptedLog, adopt
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild_here
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import HeadwaterError, IdentityError, NotFoundError, TableError
from headwater.spec.recipe import OffsetRange

OpenBound = Callable[..., Bound]
_ROWS = (
    tables.prediction,
    tables.label,
    tables.example,
    tables.label_class,
    tables.quarantine,
    sequencing_tables.deadline,
)


@pytest.fixture
def new(home: Settings, tmp_path: Path, mlflow_template: Path) -> Settings:
    """An empty home with the storage and the key of another."""
    settings = Settings(
        home=tmp_path / "new",
        storage=home.storage_uri,
        signing_key=key_of(home),  # type: ignore[arg-type]
    )
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    return settings


def taken(settings: Settings, *, new_key: bool = False) -> AdoptedLog:
    with closing(Database(settings.operational_url)) as database:
        clock = SimulatedClock(START + timedelta(days=9))
        return adopt("line", settings, database, clock, by="test", new_key=new_key)


def rows_of(settings: Settings) -> dict[str, list[Any]]:
    """Return the rows of a log, without the database's number of the pipeline, and without checksums.

    What a payload says in another order is the same.
    """
    with closing(Database(settings.operational_url)) as database, database.reading() as connection:
        return {
            table.name: [_row(row) for row in connection.execute(_select(table)).tuples()]
            for table in _ROWS
        }


def _select(table: Table) -> Any:
    columns = [c for c in table.columns if c.name not in {"pipeline_id", "checksum"}]
    return select(*columns).order_by(*table.primary_key.columns)


def _row(row: Any) -> list[Any]:
    return [msgspec.json.decode(value) if isinstance(value, bytes) else value for value in row]


def test_the_log_goes_on_from_its_archive_in_postgresql_and_s3(
    home: Settings,
    on_s3: Settings,
    new_postgres: Callable[[], str],
    open_bound: OpenBound,
    tmp_path: Path,
    mlflow_template: Path,
) -> None:
    stores = {"storage": on_s3.storage, "s3_endpoint": on_s3.s3_endpoint}
    old = home.model_copy(update=stores | {"database_url": new_postgres()})
    bound = open_bound(old)
    grow(bound)
    grow(bound)
    day(bound, 5, collected=False)
    log, digests = bound.log.identity.log, [v.digest for v in bound.registry.store.versions()]
    bound.close()
    new = Settings(home=tmp_path / "new", database_url=new_postgres(), **stores)
    shutil.copy(mlflow_template, new.root / "mlflow.sqlite")
    shutil.copy(old.root / "signing.key", new.root / "signing.key")
    adopted = taken(new)
    assert (adopted.log, adopted.alone, adopted.position, adopted.offset) == (log, True, 480, 240)
    assert (adopted.again, adopted.left, adopted.refused) == (("1", "2"), {}, ())
    assert [lost.read_to for lost in adopted.lost] == [480]
    assert rows_of(new) == rows_of(old)
    again = open_bound(new, SimulatedClock(START + timedelta(days=9)))
    versions = again.registry.store.versions()
    assert [version.digest for version in versions] == digests
    champion = again.registry.champion()
    assert champion is not None
    assert champion.number == "2"
    assert rebuild_here("line", "2", new, from_root=True).equal
    day(again, 20)
    assert again.log.archive["examples"].stop() == 260
    made = train(again).version
    assert made is not None
    assert (made.number, made.parent, made.examples.start) == ("3", "2", 240)
    with pytest.raises(IdentityError, match="a copy of this home went on by itself"):
        day(open_bound(old), 3)


def test_a_home_whose_database_alone_is_lost_goes_on_with_its_inbox(
    home: Settings, open_bound: OpenBound
) -> None:
    bound = open_bound(home)
    grow(bound)
    day(bound, 5, collected=False)  # sequenced, and not collected
    bound.log.record([Prediction(id="new", features={"a": 1.0, "b": 1.0}, output=0.5, served_at=START)])
    bound.close()
    before = rows_of(home)
    for path in home.root.glob("headwater.sqlite*"):
        path.unlink()
    with pytest.raises(IdentityError, match="knows no log") as refused:
        open_bound(home)
    assert "headwater adopt line" in refused.value.hint
    for _ in range(2):  # a second time, it changes nothing
        adopted = taken(home)
        assert (adopted.alone, adopted.lost, adopted.champion) == (True, (), "1")
    again = open_bound(home, SimulatedClock(START + timedelta(days=9)))
    collect(again.log)
    after = rows_of(home)
    for name, rows in before.items():
        assert after[name][: len(rows)] == rows
    assert any("new" in row for row in after["prediction"])
    assert train(again).version is not None


def test_without_the_key_every_state_is_folded_again_and_learned_on_from(
    home: Settings,
    on_s3: Settings,
    new_postgres: Callable[[], str],
    open_bound: OpenBound,
    tmp_path: Path,
) -> None:
    stores = {"storage": on_s3.storage, "s3_endpoint": on_s3.s3_endpoint, "database_url": new_postgres()}
    old = home.model_copy(update=stores)
    bound = open_bound(old)
    grow(bound)
    grow(bound)
    digests = [version.digest for version in bound.registry.store.versions()]
    bound.close()
    new = Settings(home=tmp_path / "new", mlflow_uri=old.tracking_uri, **stores)
    told = msgspec.json.decode(by_command(new, "adopt", "line", "--new-key", "--yes", "--json"))
    assert (told["adopted"]["refused"], told["adopted"]["champion"]) == (["1", "2"], "2")
    assert (told["renewed"]["folded"], told["renewed"]["left"]) == (["1", "2"], {})
    again = open_bound(new, SimulatedClock(START + timedelta(days=9)))
    store = again.registry.store
    assert [store.learner(version).digest() for version in store.versions()] == digests
    day(again, 20)
    made = train(again).version
    assert made is not None
    assert (made.number, made.parent) == ("3", "2")
    assert rebuild_here("line", "3", new, from_root=True).equal


def by_command(settings: Settings, *words: str) -> bytes:
    """Run a command as a user does, and return what it prints."""
    named = {
        f"HEADWATER_{name.upper()}": str(value)
        for name, value in settings.model_dump(exclude_defaults=True).items()
    }
    command = [sys.executable, "-W", "ignore", "-m", "headwater.cli", *words]
    ended = subprocess.run(command, env={**os.environ, **named}, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def test_every_record_is_as_it_was(home: Settings, open_bound: OpenBound, new: Settings) -> None:
    rule = LabelRule(
        wait="2d", timeout="none", classes=("yes", "no", "none"), hold=True, precedence=("human",)
    )
    changes = {"task": "multiclass", "label": rule, "model": models.sgd}
    features = (*PIPELINE.features, Feature("c", str, nullable=True), Feature("n", int, nullable=True))
    bound = open_bound(home, features=features, **changes)
    shares = {"yes": 0.25, "no": 0.75, "none": 0.0}

    def predict(name: str, **more: Any) -> None:
        values = {"a": 0.1, "b": 1e-300, "c": "\u00e9\n", "n": 2**53 + 1}
        made = Prediction(id=name, features=values, output=shares, served_at=bound.clock.now(), **more)
        bound.log.record([made])

    def label(name: str, value: str, **more: Any) -> None:
        told = Label(prediction_id=name, value=value, known_at=bound.clock.now(), **more)
        bound.log.label([told])

    predict("p1", version="7", role="challenger", propensity=0.3, entity={"shop": "s"})
    predict("p2", ages_s={"t": 1.5})
    predict("p3")
    predict("p4")
    label("p1", "no")
    label("p1", "yes", source="human", key="k", by="ann")
    label("early", "no")
    label("never", "no")
    label("p2", "odd")
    collect(bound.log)
    predict("early")
    label("early", "yes")
    bound.registry.quarantine.add([OffsetRange(0, 1)], by="test", reason="poison")
    bound.clock.advance_to(bound.clock.now() + timedelta(days=3))
    collect(bound.log)
    label("p3", "yes")
    collect(bound.log)
    before, counts = rows_of(home), bound.log.counts()
    assert [len(before[table.name]) for table in _ROWS][3:] == [1, 1, 0]
    bound.close()
    adopted = taken(new)
    assert adopted.alone
    assert rows_of(new) == before
    again = open_bound(new, SimulatedClock(START + timedelta(days=9)), features=features, **changes)
    assert again.log.counts() == counts
    collect(again.log)
    assert rows_of(new) == before


def test_due_times_and_open_deadlines_go_on(
    home: Settings, open_bound: OpenBound, new: Settings
) -> None:
    rules = (LabelRule(due="due_at", most="9d"), LabelRule(wait="3d", maturity="window", timeout=False))
    names = []
    for number, rule in enumerate(rules):
        bound = open_bound(home, label=rule)
        now = START + timedelta(hours=number)
        bound.clock.advance_to(now)
        for days in (0, 1, 5, None):
            names.append(f"p{number}-{days}")
            due = None if days is None else now + timedelta(days=days)
            features = {"a": 1.0, "b": 1.0}
            made = Prediction(id=names[-1], features=features, output=0.5, served_at=now, due_at=due)
            bound.log.record([made])
        bound.log.label([Label(prediction_id=name, value=True, known_at=now) for name in names])
        collect(bound.log)
        bound.close()
    bound = open_bound(home, SimulatedClock(START + timedelta(days=2)), label=rules[1])
    collect(bound.log)
    bound.close()
    before = rows_of(home)
    assert [len(before[table.name]) for table in (tables.example, sequencing_tables.deadline)] == [2, 6]
    assert taken(new).alone
    after = rows_of(new)
    fallen = after["deadline"].pop(0)  # the last that fell, opened again, which changes nothing
    assert fallen == [to_us(START + timedelta(days=1)) + 1, 1]
    assert after == before
    bound = open_bound(new, SimulatedClock(START + timedelta(days=20)), label=rules[0])
    with bound.log.sequencer() as sequencer:
        assert sequencer.drain() == 6
    emitted = bound.log.examples(columns=("prediction_id", "emitted_at")).rows()
    hours = {id_: (moment - START) / timedelta(hours=1) for id_, moment in emitted}
    waited = dict.fromkeys(names[4:], 1 + 3 * 24)
    assert hours == {"p0-0": 0, "p0-1": 24, "p0-5": 120, "p0-None": 216, **waited}


@pytest.mark.parametrize("point", ADOPT_POINTS)
def test_what_was_killed_goes_on(
    home: Settings, new: Settings, open_bound: OpenBound, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    bound = open_bound(home)
    grow(bound)
    grow(bound)
    bound.close()
    with monkeypatch.context() as patched:
        patched.setattr(adopt_storage, "reached", lambda name: _interrupt() if name == point else None)
        with pytest.raises(KeyboardInterrupt):
            taken(new)
    adopted = taken(new)
    assert (adopted.alone, adopted.versions, adopted.offset) == (True, 2, 240)
    assert rows_of(new) == rows_of(home)
    states = list((Path(new.storage_uri) / "mlflow").rglob("state.bin"))
    assert len(states) == 2


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_collect_that_was_interrupted_is_cut(
    home: Settings, new: Settings, open_bound: OpenBound, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = open_bound(home)
    grow(bound)
    before = rows_of(home)
    write = ArchiveWriter._write

    def torn(self: ArchiveWriter, name: Any, stop: int) -> int:
        if name == "examples":
            raise KeyboardInterrupt
        return write(self, name, stop)

    with monkeypatch.context() as patched:
        patched.setattr(ArchiveWriter, "_write", torn)
        with pytest.raises(KeyboardInterrupt):
            day(bound)
    made = train(bound).version  # it learns what the database has, and the archive has not
    assert made is not None
    bound.registry.promote(made.number, by="test", reason="test")
    bound.close()
    adopted = taken(new)
    assert (adopted.position, adopted.offset, adopted.again) == (240, 120, ("1",))
    assert (list(adopted.left), adopted.champion) == (["2"], "1")
    assert "those from 120 on are lost" in adopted.left["2"]
    assert rows_of(new) == before
    again = open_bound(new, SimulatedClock(START + timedelta(days=9)))
    day(again, 10)
    assert again.log.archive["predictions"].stop() == 260
    made = train(again).version
    assert made is not None
    assert (made.number, made.parent, made.examples.start) == ("3", "1", 120)
    assert rebuild_here("line", "3", new, from_root=True).equal


def test_what_is_damaged_or_signed_by_another_key_is_named(
    home: Settings, new: Settings, open_bound: OpenBound, tmp_path: Path
) -> None:
    bound = open_bound(home)
    grow(bound)
    bound.close()
    file = sorted((Path(home.storage_uri) / "tables" / "line" / "labels").glob("*.parquet"))[0]
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    refused(new, TableError, f"{file.name} is damaged")
    file.unlink()
    refused(new, TableError, f"{file.name} is damaged")
    file.write_bytes(whole)
    kept = file.parents[1] / "kept.json"
    text = kept.read_bytes()
    kept.write_bytes(text[:-9])
    refused(new, TableError, "kept.json is damaged")
    kept.unlink()
    refused(new, NotFoundError, "keeps a log of 'line'")
    kept.write_bytes(text)
    other = new.model_copy(update={"signing_key": Settings(signing_key="another").signing_key})
    adopted = taken(other, new_key=True)
    assert (adopted.versions, adopted.again, adopted.offset) == (0, (), 120)
    assert "its signature does not hold" in adopted.left["1"]
    made = train(open_bound(other, SimulatedClock(START + timedelta(days=9)))).version
    assert made is not None
    assert (made.number, made.parent) == ("2", None)


def refused(settings: Settings, error: type[HeadwaterError], match: str) -> None:
    with pytest.raises(error, match=match):
        taken(settings)
    assert not any(rows_of(settings).values())
