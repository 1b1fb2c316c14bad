"""The tables of the label queue, in the operational database."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from headwater.infra.store.schema.tables import metadata, of_pipeline, place

__all__ = ["answer", "claim", "equal_prediction", "question", "queue", "seen_class"]

queue = Table(
    "queue",
    metadata,
    of_pipeline(),
    Column("next_position", BigInteger, nullable=False, comment="all before it was looked at"),
    Column("dealt_random", BigInteger, nullable=False, comment="random questions anybody has seen"),
    Column("dealt", BigInteger, nullable=False, comment="questions anybody has seen"),
    Column("labelled", BigInteger, nullable=False, comment="questions that a label overtook"),
)

question = Table(
    "question",
    metadata,
    of_pipeline(),
    place("position"),
    Column("prediction_id", String(200), nullable=False),
    Column("why", String(20), nullable=False),
    Column("priority", Float, nullable=False),
    Column("people", Integer, nullable=False, comment="how many were meant to answer"),
    Column("wanted", Integer, nullable=False, comment="how many are, by what was answered"),
    Column("given", Integer, nullable=False, comment="how many have answered"),
    Column("seen", Boolean, nullable=False, comment="somebody has claimed it once"),
    Column("closed", String(20), comment="null while it is open"),
    Column(
        "shown",
        String(32),
        nullable=False,
        server_default=text("''"),
        comment="hash of its features and entity keys",
    ),
    Index("question_by_prediction", "pipeline_id", "prediction_id", unique=True),
    Index("question_by_priority", "pipeline_id", "closed", "why", "priority"),
    Index("question_by_shown", "pipeline_id", "shown"),
    sqlite_with_rowid=False,
)

equal_prediction = Table(
    "equal_prediction",
    metadata,
    of_pipeline(),
    place("position"),
    Column("prediction_id", String(200), nullable=False),
    Column("question", BigInteger, nullable=False, comment="position of its question"),
    Column("due", Boolean, nullable=False, comment="it lacks labels that people gave"),
    Index("equal_prediction_by_question", "pipeline_id", "question"),
    Index(
        "equal_prediction_due",
        "pipeline_id",
        "position",
        sqlite_where=text("due"),
        postgresql_where=text("due"),
    ),
    sqlite_with_rowid=False,
)

seen_class = Table(
    "seen_class",
    metadata,
    of_pipeline(),
    Column("digest", String(64), primary_key=True, comment="of the name"),
    Column("name", Text, nullable=False),
    sqlite_with_rowid=False,
)

claim = Table(
    "claim",
    metadata,
    of_pipeline(),
    place("position"),
    Column("person", String(100), primary_key=True),
    Column("until_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

answer = Table(
    "answer",
    metadata,
    of_pipeline(),
    place("position"),
    Column("person", String(100), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("turn", Integer, comment="place among those who answered; null where skipped"),
    Column("value", LargeBinary, comment="JSON; null where skipped"),
    sqlite_with_rowid=False,
)
