"""The labels that people give: an answer is a label first, recorded in the inbox."""

from headwater.features.record.encoder import RecordEncoder
from headwater.infra.clock import Clock
from headwater.spec.data.records import Label, LabelValue
from headwater.spec.errors import ConflictError
from headwater.spec.serving.queue import label_key

__all__ = ["PersonLabels"]

_TRIES = 5


class PersonLabels:
    """The labels of people, each with a key of the person and his change of mind.

    Parameters
    ----------
    recorder, clock
        Where they go, and the time at which an answer is known.
    """

    def __init__(self, recorder: RecordEncoder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock

    def check(self, person: str, prediction_id: str, value: LabelValue) -> None:
        """Check that a value fits the task.

        Raises
        ------
        SchemaError
            If it does not.
        """
        self._recorder.label(self._label(person, prediction_id, value, 0))

    def record(self, person: str, prediction_id: str, value: LabelValue) -> bool:
        """Record the label, unless the person's newest has the same value; return whether it is new."""
        for _ in range(_TRIES):
            recorded = self._recorder.find(prediction_id)
            labels = [] if recorded is None else [received.label for received in recorded.labels]
            mine = [known for known in labels if known.source == "human" and known.by == person]
            if mine and mine[-1].value == value:
                return False
            label = self._label(person, prediction_id, value, len(mine))
            try:
                return self._recorder.inbox.append([self._recorder.label(label)], "label") == 1
            except ConflictError:
                continue  # another answer of the same person came at this moment: look again
        raise ConflictError(
            f"several answers of {person} to {prediction_id!r} come at once", hint="send one"
        )

    def _label(self, person: str, prediction_id: str, value: LabelValue, before: int) -> Label:
        return Label(
            prediction_id=prediction_id,
            value=value,
            known_at=self._clock.now(),
            source="human",
            key=label_key(person, before),
            by=person,
        )
