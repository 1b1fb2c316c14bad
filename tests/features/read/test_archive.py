import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from tests.features.conftest import S3
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.s3_storage import S3Storage
from headwater.spec.errors import BusyError, FencedError, StorageError, TableError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange

Opener = Callable[..., FeatureLog]


def fill(log: FeatureLog, start: int, stop: int) -> None:
    log.record([prediction(str(i), x=float(i)) for i in range(start, stop)])
    log.label([label(str(i), i % 3 == 0) for i in range(start, stop)])
    drain(log)


def test_collect_to_s3_adds_each_range_once(open_log: Opener, on_s3: Settings) -> None:
    log = open_log(on_s3)
    fill(log, 0, 20)
    assert (log.collect(), log.collect()) == (20, 0)
    fill(log, 20, 30)
    before = log.examples(5, 30)
    assert log.collect() == 10
    assert log.examples(5, 30).equals(before)
    table = DeltaTable(log.archive["examples"].address, storage_options=open_storage(on_s3).options)
    assert table.to_pyarrow_table().num_rows == 30
    assert table.version() == 1


def test_the_doctor_sees_that_s3_honours_conditions(on_s3: Settings) -> None:
    storage = S3Storage(str(on_s3.storage), on_s3.s3_endpoint)
    storage.prepare()
    storage.check_conditional_write("doctor/try")


def test_s3_away_is_a_storage_error_and_loses_nothing(open_log: Opener, on_s3: Settings, s3: S3) -> None:
    log = open_log(on_s3)
    fill(log, 0, 5)
    log.collect()
    fill(log, 5, 10)
    s3.relay.cut()
    try:
        with pytest.raises(StorageError, match="does not answer"):
            log.collect()
    finally:
        s3.relay.mend()
    assert log.collect() == 5
    assert log.examples().height == 10


def test_many_small_files_are_compacted_and_read_the_same(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = FeatureLog(pipeline, settings, clock, compact_from_files=4)
    for start in range(0, 60, 10):
        fill(log, start, start + 10)
        log.collect()
    before = log.examples(15, 45)
    files = DeltaTable(log.archive["examples"].address).file_uris()
    assert len(files) < 6
    assert before["offset"].to_list() == list(range(15, 45))
    assert before["features"].struct.field("x").to_list() == [float(i) for i in range(15, 45)]
    log.close()
    log.database.close()


def size_of(log: FeatureLog) -> int:
    folder = Path(log.archive["examples"].address)
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def test_compaction_removes_what_it_replaced_after_a_while(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = FeatureLog(pipeline, settings, clock, compact_from_files=4, keep_replaced=timedelta(0))
    for start in range(0, 40, 10):
        fill(log, start, start + 10)
        log.collect()
    before = size_of(log)  # what was compacted, and what that replaced
    fill(log, 40, 50)
    log.collect()
    folder = Path(log.archive["examples"].address)
    table = DeltaTable(str(folder))
    assert {path.name for path in folder.glob("*.parquet")} == {
        Path(uri).name for uri in table.file_uris()
    }
    assert size_of(log) < before
    assert log.examples()["offset"].to_list() == list(range(50))
    log.close()
    log.database.close()


def test_a_damaged_file_is_not_compacted_into_another(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = FeatureLog(pipeline, settings, clock, compact_from_files=4)
    for start in range(0, 30, 10):
        fill(log, start, start + 10)
        log.collect()
    again = FeatureLog(pipeline, settings, clock, log.database, compact_from_files=4)
    path = next(Path(log.archive["examples"].address).glob("*.parquet"))
    path.write_bytes(path.read_bytes().replace(b"p", b"q", 1))
    fill(again, 30, 40)
    again.collect()
    assert len(DeltaTable(again.archive["examples"].address).file_uris()) == 4
    assert again.examples()["offset"].to_list() == list(range(40))
    log.close()
    again.close()
    log.database.close()


def test_a_cut_file_is_named_and_its_range_is_read_from_the_database(
    log: FeatureLog, caplog: pytest.LogCaptureFixture
) -> None:
    fill(log, 0, 10)
    log.collect()
    fill(log, 10, 20)
    log.collect()
    folder = Path(log.archive["examples"].address)
    newest = max(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:100])
    assert log.examples(5, 15)["offset"].to_list() == list(range(5, 15))
    assert newest.name in caplog.text
    caplog.clear()
    assert log.examples(0, 10).height == 10
    assert not caplog.text


def test_lost_files_are_refused_and_read_from_the_database(log: FeatureLog) -> None:
    fill(log, 0, 10)
    log.collect()
    for path in Path(log.archive["examples"].address).glob("*.parquet"):
        path.unlink()
    with pytest.raises(TableError):
        log.archive["examples"].read(OffsetRange(0, 10), log.frames.schema(("label",)))
    assert log.examples(0, 10).height == 10


def test_a_feature_added_later_is_null_before(
    open_log: Opener, log: FeatureLog, pipeline: object
) -> None:
    import msgspec  # noqa: PLC0415
    from tests.features.records import NOW  # noqa: PLC0415

    from headwater.spec.data.feature import Feature  # noqa: PLC0415
    from headwater.spec.data.records import Prediction  # noqa: PLC0415

    fill(log, 0, 3)
    log.collect()
    wider = msgspec.structs.replace(
        log.pipeline, features=(*log.pipeline.features, Feature("new", float, nullable=True))
    )
    again = FeatureLog(wider, Settings(home=log.inbox.path.parents[1]), log.clock)
    again.record(
        [Prediction(id="n", features={"x": 1.0, "city": None, "new": 4.0}, output=0.5, served_at=NOW)]
    )
    again.label([label("n")])
    drain(again)
    again.collect()
    assert again.examples()["features"].struct.field("new").to_list() == [None, None, None, 4.0]
    again.close()
    again.database.close()


_HOLD = """
import sys
from pathlib import Path
from headwater.infra.clock import SystemClock
from headwater.infra.store.database import Database
from headwater.infra.store.lease import acquire
from headwater.infra.settings import Settings
database = Database(Settings(home=Path(sys.argv[1])).operational_url)
acquire(database, SystemClock(), "sequence/toy")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_sequencer_is_refused_while_the_first_lives(log: FeatureLog) -> None:
    fill(log, 0, 1)
    home = str(log.inbox.path.parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, home], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="held by"):
            drain(log)
        holder.kill()
    assert drain(log) == 0


def test_a_sequencer_that_was_taken_over_writes_nothing(log: FeatureLog) -> None:
    fill(log, 0, 1)
    with log.sequencer() as old:
        log.record([prediction("a")])
        log.label([label("a")])
        with log.sequencer() as new:
            with pytest.raises(FencedError, match="taken over"):
                old.drain()
            assert new.drain() == 1
