"""SQLite and PostgreSQL keep names and texts as they came; the doors refuse all others."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from tests.conftest import START
from tests.serving.http.test_doors import BAD_NAMES, BAD_TEXTS, DOORS, GOOD_NAMES, GOOD_TEXTS, PLAIN

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited, note
from headwater.infra.store.database import Database
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import SchemaError
from headwater.spec.serving.queue import People

TOY = replace(DOORS, batch=None, people=People(random=1.0))


@pytest.fixture
def log(database: Database, settings: Settings) -> Iterator[FeatureLog]:
    kept = Settings(home=settings.home, database_url=database.url)
    log = FeatureLog(TOY, kept, SimulatedClock(START))
    yield log
    log.close()
    log.database.close()


def test_the_audit_refuses_wrong_names_and_reasons(database: Database) -> None:
    for by, reason in zip(GOOD_NAMES, GOOD_TEXTS, strict=False):
        with database.transaction() as connection:
            note(connection, 0, by, "tested", detail={"reason": reason})
    for by, reason in [*((name, "") for name in BAD_NAMES), *(("ada", text) for text in BAD_TEXTS)]:
        with pytest.raises(SchemaError), database.transaction() as connection:
            note(connection, 0, by, "tested", detail={"reason": reason})
    kept = [(one.by, one.detail["reason"]) for one in audited(database, 100)]
    assert kept == [*zip(GOOD_NAMES, GOOD_TEXTS, strict=False)]


def test_the_log_and_the_queue_keep_names_as_they_came(log: FeatureLog) -> None:
    for id_ in GOOD_NAMES:
        log.record([Prediction(id=id_, features=PLAIN, output=0.5, served_at=START, version="1")])
        log.label([Label(prediction_id=id_, value=1.0, known_at=START, key=id_)])
        its = PLAIN | {"c": id_}
        waits = Prediction(id=f"{id_} waits", features=its, output=0.5, served_at=START, version="1")
        log.record([waits])
    for bad in BAD_NAMES:
        with pytest.raises(SchemaError):
            log.label([Label(prediction_id="p", value=1.0, known_at=START, key=bad)])
        with pytest.raises(SchemaError):
            log.queue().claim(bad)
    with log.sequencer() as sequencer:
        sequencer.drain()
    log.queue().fill()
    assert log.predictions()["prediction_id"].to_list() == [
        n for g in GOOD_NAMES for n in (g, f"{g} waits")
    ]
    people = [name for name in GOOD_NAMES if log.queue().claim(name)]
    assert len(people) == len(GOOD_NAMES)
    assert log.queue().counts().claimed == len(people)
