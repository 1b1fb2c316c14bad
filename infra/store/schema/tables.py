"""The operational database's tables. Times are microseconds since 1970, UTC."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "api_key",
    "archive_file",
    "audit",
    "bandit",
    "batch_run",
    "champion",
    "decision",
    "example",
    "inbox_position",
    "label",
    "label_class",
    "learning_stop",
    "lease",
    "log",
    "lost_entry",
    "materialisation",
    "metadata",
    "of_pipeline",
    "pause",
    "pipeline",
    "place",
    "prediction",
    "quarantine",
    "reign",
    "routing",
    "sequencer",
    "shadow",
    "shadow_output",
]

metadata = MetaData()


def of_pipeline() -> Column[int]:
    """Make the column that says whose a row is, a part of its key."""
    return Column("pipeline_id", Integer, ForeignKey("pipeline.id"), primary_key=True)


def place(name: str) -> Column[int]:
    """Make a column of positions or numbers, a part of its row's key."""
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


pipeline = Table(
    "pipeline",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("declaration", Text, nullable=False, comment="JSON, the one in force"),
)

log = Table(
    "log",
    metadata,
    of_pipeline(),
    Column("uuid", String(36), nullable=False, unique=True, comment="what all stores of the log bear"),
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", String(200)),
    Column("expires_at_us", BigInteger, nullable=False),
)

sequencer = Table(
    "sequencer",
    metadata,
    of_pipeline(),
    Column("next_position", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("horizon_us", BigInteger, nullable=False, comment="all before it has been sequenced"),
    Column("parked", BigInteger, nullable=False, comment="labels whose prediction has not come"),
    Column("expired", BigInteger, nullable=False, comment="labels whose prediction came too late"),
)

inbox_position = Table(
    "inbox_position",
    metadata,
    of_pipeline(),
    Column("inbox", String(200), primary_key=True, comment="the id in its file"),
    Column("position", BigInteger, nullable=False),
)

archive_file = Table(
    "archive_file",
    metadata,
    of_pipeline(),
    Column("table_name", String(20), primary_key=True),
    Column("path", String(200), primary_key=True, comment="below the table's folder"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("replaced_at_us", BigInteger, comment="when compaction replaced it; null while it is read"),
)

lost_entry = Table(
    "lost_entry",
    metadata,
    of_pipeline(),
    Column("inbox", String(200), primary_key=True, comment="the id in its file"),
    place("position"),
    Column("since_us", BigInteger, nullable=False, comment="when it was passed over"),
)

prediction = Table(
    "prediction",
    metadata,
    of_pipeline(),
    place("position"),
    Column("id", String(200), nullable=False),
    Column("effective_at_us", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("checksum", BigInteger, comment="null for a row of before checksums"),
    Column("recorded_by", Integer, comment="the number of its declaration; null is the first"),
    Column("due_us", BigInteger, comment="when its truth is due, if its rule's due names it"),
    Index("prediction_by_id", "pipeline_id", "id", unique=True),
    sqlite_with_rowid=False,
)

label = Table(
    "label",
    metadata,
    of_pipeline(),
    place("position"),
    Column("prediction_position", BigInteger, comment="null where the prediction had not come"),
    Column("prediction_id", String(200), comment="only where the prediction had not come"),
    Column("revision", Integer, nullable=False),
    Column("effective_at_us", BigInteger, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("held_class", String(64), comment="digest of its class, if it is held back for that"),
    Column("checksum", BigInteger),
    Index(
        "label_held",
        "pipeline_id",
        "held_class",
        "position",
        sqlite_where=text("held_class IS NOT NULL"),
        postgresql_where=text("held_class IS NOT NULL"),
    ),
    Index("label_by_prediction", "pipeline_id", "prediction_position", "revision", unique=True),
    Index(
        "label_parked",
        "pipeline_id",
        "prediction_id",
        "revision",
        unique=True,
        sqlite_where=text("prediction_id IS NOT NULL"),
        postgresql_where=text("prediction_id IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

label_class = Table(
    "label_class",
    metadata,
    of_pipeline(),
    Column("digest", String(64), primary_key=True, comment="SHA-256 of the name"),
    Column("name", Text, nullable=False, comment="a class that was not declared when it came"),
    Column("position", BigInteger, nullable=False, comment="of its first label"),
    Column("appeared_at_us", BigInteger, nullable=False),
    Column("announced", Boolean, nullable=False, comment="whether its event was emitted"),
    Column("becomes", Text, comment="the class that it is; null until a person named it"),
    Column("named_from", BigInteger, comment="the position from which it is named; null before"),
    Index(
        "label_class_named",
        "pipeline_id",
        "position",
        sqlite_where=text("becomes IS NOT NULL AND named_from IS NULL"),
        postgresql_where=text("becomes IS NOT NULL AND named_from IS NULL"),
    ),
)

example = Table(
    "example",
    metadata,
    of_pipeline(),
    place("offset"),
    Column("prediction_position", BigInteger, nullable=False),
    Column("label_position", BigInteger, nullable=False),
    Column("emitted_at_us", BigInteger, nullable=False),
    Column("supersedes", BigInteger),
    Column("checksum", BigInteger),
    Index("example_by_prediction", "pipeline_id", "prediction_position"),
    sqlite_with_rowid=False,
)

champion = Table(
    "champion",
    metadata,
    of_pipeline(),
    Column("version", String(40), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
    Column("mirrored_epoch", BigInteger, nullable=False, comment="the aliases show this epoch"),
)

reign = Table(
    "reign",
    metadata,
    of_pipeline(),
    place("epoch"),
    Column("version", String(40), nullable=False),
    Column("previous", String(40)),
    Column("since_us", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    of_pipeline(),
    place("start"),
    place("stop"),
    Column("since_us", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

decision = Table(
    "decision",
    metadata,
    of_pipeline(),
    Column("id", String(40), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("fired", Boolean, nullable=False),
    Column("record", LargeBinary, nullable=False, comment="JSON, the decision as it was made"),
    Column("attempts", Integer, nullable=False, comment="how often a run was asked for"),
    Column("dispatched_at_us", BigInteger),
    Column("claimed_by", String(200)),
    Column("work", LargeBinary, comment="JSON, what the first claim set out to do"),
    Column("ended_at_us", BigInteger),
    Column("outcome", LargeBinary, comment="JSON"),
    Index("decision_by_time", "pipeline_id", "at_us"),
)

routing = Table(
    "routing",
    metadata,
    of_pipeline(),
    place("number"),
    Column("routing", Text, comment="JSON; null is the declared one"),
    Column("since_us", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
)

materialisation = Table(
    "materialisation",
    metadata,
    of_pipeline(),
    Column("table_name", String(100), primary_key=True),
    place("number"),
    Column("read_at_us", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("source", Text, nullable=False),
)

pause = Table(
    "pause",
    metadata,
    of_pipeline(),
    place("number"),
    Column("paused", Boolean, nullable=False, comment="false: it goes on from here"),
    Column("offset", BigInteger, nullable=False, comment="the first one that is not learned"),
    Column("epoch", BigInteger, nullable=False, comment="the reign that learned; 0 for none"),
    Column("since_us", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
)

learning_stop = Table(
    "learning_stop",
    metadata,
    of_pipeline(),
    Column("since_us", BigInteger, nullable=False),
    Column("what", Text, nullable=False),
    Column("hint", Text, nullable=False),
)

shadow = Table(
    "shadow",
    metadata,
    of_pipeline(),
    Column("version", String(40), primary_key=True),
    Column("first_position", BigInteger, nullable=False),
    Column("next_position", BigInteger, nullable=False),
)

shadow_output = Table(
    "shadow_output",
    metadata,
    of_pipeline(),
    place("position"),
    Column("version", String(40), primary_key=True),
    Column("output", LargeBinary, nullable=False, comment="JSON"),
    sqlite_with_rowid=False,
)

bandit = Table(
    "bandit",
    metadata,
    of_pipeline(),
    Column("reward", String(20), nullable=False),
    Column("scale", Float, comment="null where the reward has none"),
    Column("first_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("next_position", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False, comment="JSON, counts by version"),
    Column(
        "left_out",
        BigInteger,
        nullable=False,
        comment="how many ranges of the quarantine its rewards leave out",
    ),
)

batch_run = Table(
    "batch_run",
    metadata,
    of_pipeline(),
    place("number"),
    Column("id", String(40), nullable=False, comment="names its files, and is in its predictions' ids"),
    Column("state", String(20), nullable=False, comment="begun, staged or published"),
    Column("version", String(40), nullable=False),
    Column("at_us", BigInteger, nullable=False, comment="when its predictions count as served"),
    Column("by", String(200), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("sha256", LargeBinary, comment="of the table that finds an answer; null until it is staged"),
    Column("published_at_us", BigInteger),
    Column("read", BigInteger, nullable=False, comment="predictions that somebody has looked up"),
    Column("kept", Boolean, nullable=False, comment="its files are in storage"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("sha256", LargeBinary, nullable=False, comment="of the whole key, which is kept nowhere"),
    Column("scopes", String(200), nullable=False, comment="with commas between"),
    Column("made_at_us", BigInteger, nullable=False),
    Column("made_by", String(200), nullable=False),
    Column("revoked_at_us", BigInteger),
    Column(
        "closes",
        String(200),
        nullable=False,
        server_default="predict,label,operate,read",
        comment="the scopes for which requests need a key since, with commas between",
    ),
    Index(
        "api_key_by_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at_us IS NULL"),
        postgresql_where=text("revoked_at_us IS NULL"),
    ),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
    Column("action", String(40), nullable=False),
    Column("pipeline_id", Integer, ForeignKey("pipeline.id")),
    Column("detail", Text, nullable=False, comment="JSON"),
)
