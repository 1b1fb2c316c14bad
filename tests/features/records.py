"""Records for tests, short to write."""

from datetime import UTC, datetime

from headwater.features.log import FeatureLog
from headwater.features.sequence.sequencer import BATCH_ENTRIES
from headwater.spec.data.records import Label, LabelValue, Prediction

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def prediction(id_: str, x: float = 1.0, output: float = 0.5) -> Prediction:
    return Prediction(id=id_, features={"x": x, "city": None}, output=output, served_at=NOW)


def label(id_: str, value: LabelValue = True, key: str | None = None) -> Label:
    return Label(prediction_id=id_, value=value, known_at=NOW, key=key)


def drain(log: FeatureLog, batch_entries: int = BATCH_ENTRIES) -> int:
    with log.sequencer(batch_entries=batch_entries) as sequencer:
        return sequencer.drain()


def seen(log: FeatureLog) -> list[tuple[str, LabelValue]]:
    """Ids and labels of all examples, in offset order."""
    return list(log.examples(columns=("prediction_id", "label")).select("prediction_id", "label").rows())
