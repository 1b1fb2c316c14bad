"""A database of before is brought up to date with what it holds."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select, text

from headwater.infra.store.database import Database
from headwater.infra.store.schema import sequencing_tables

_MIGRATIONS = Path(__file__).parents[3] / "infra" / "migrations"
_RULE = '{"task":"binary","features":[],"label":{"wait":"10s","timeout":%s,"maturity":"%s"}}'


def test_open_deadlines_become_rows(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'old.sqlite'}"
    engine, config = create_engine(address), Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    pipelines = [("null", "arrival", 2), ("null", "window", 2), ("false", "arrival", 0)]
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0019")
        for id_, (timeout, maturity, next_deadline) in enumerate(pipelines, 1):
            row = {"id": id_, "name": f"p{id_}", "declaration": _RULE % (timeout, maturity)}
            into = "INSERT INTO pipeline (id, name, declaration) VALUES (:id, :name, :declaration)"
            connection.execute(text(into), row)
            place = {"id": id_, "deadline": next_deadline}
            connection.execute(
                text("INSERT INTO sequencer VALUES (:id, 5, 0, :deadline, 12000000, 0, 0)"), place
            )
            for position in range(4):
                prediction = {"id": id_, "position": position, "us": position * 1_000_000}
                connection.execute(
                    text(
                        "INSERT INTO prediction (pipeline_id, position, id, effective_at_us, payload) "
                        "VALUES (:id, :position, :position, :us, x'00')"
                    ),
                    prediction,
                )
    engine.dispose()
    database = Database(address)
    with database.reading() as connection:
        query = select(sequencing_tables.deadline).order_by(*sequencing_tables.deadline.c)
        rows = [tuple(row) for row in connection.execute(query)]
    database.close()
    window = [(2, 12_000_000, 2), (2, 13_000_000, 3)]
    # what was due before the horizon falls at the horizon
    timeout_rows = [(3, 12_000_000, 0), (3, 12_000_000, 1), (3, 12_000_000, 2), (3, 13_000_000, 3)]
    assert rows == window + timeout_rows
