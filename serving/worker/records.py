"""The record of one prediction, as requests ask for it."""

from headwater.features.record.encoder import RecordEncoder
from headwater.spec.data.records import Recorded
from headwater.spec.errors import NotFoundError

__all__ = ["find_record"]


def find_record(recorder: RecordEncoder, prediction_id: str) -> Recorded:
    """Return the record of a prediction.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    record = recorder.find(prediction_id)
    if record is None:
        raise NotFoundError(
            f"pipeline {recorder.pipeline.name!r} has recorded no prediction {prediction_id!r}",
            hint="check the id and the pipeline",
        )
    return record
