"""The labels that people give: an answer is a label first, recorded in the inbox."""

from collections.abc import Iterator, Sequence

from headwater.features.record.encoder import RecordEncoder
from headwater.features.record.entries import Entry
from headwater.infra.clock import Clock
from headwater.spec.data.records import Label, LabelValue, ReceivedLabel
from headwater.spec.errors import ConflictError
from headwater.spec.serving.queue import label_key

__all__ = ["PersonAnswer", "PersonLabels", "known_from_elsewhere"]

_TRIES = 5

PersonAnswer = tuple[str, LabelValue]
"""A person, and what he said."""


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

    def record(self, answers: Sequence[PersonAnswer], prediction_ids: Sequence[str]) -> int:
        """Record the labels of predictions in one synced transaction; return how many are new.

        A label whose value is that of the person's newest is left out.

        Raises
        ------
        ConflictError
            If other labels of the same people come at this moment, again and again.
        """
        for _ in range(_TRIES):
            entries = [entry for id_ in prediction_ids for entry in self._missing(answers, id_)]
            if not entries:
                return 0
            try:
                return self._recorder.inbox.append(entries, "label")
            except ConflictError:
                continue  # another answer of the same person came at this moment: look again
        raise ConflictError(
            f"several answers of {answers[0][0]} to {prediction_ids[0]!r} come at once", hint="send one"
        )

    def wanting(self, prediction_ids: Sequence[str]) -> list[str]:
        """Return the predictions that are recorded, and whose truth is not known from elsewhere."""
        found = [(id_, self._recorder.find(id_)) for id_ in prediction_ids]
        return [
            id_
            for id_, recorded in found
            if recorded is not None
            and recorded.prediction is not None
            and not known_from_elsewhere(recorded.labels)
        ]

    def _missing(self, answers: Sequence[PersonAnswer], prediction_id: str) -> Iterator[Entry]:
        recorded = self._recorder.find(prediction_id)
        labels = [] if recorded is None else [received.label for received in recorded.labels]
        for person, value in answers:
            mine = [known for known in labels if known.source == "human" and known.by == person]
            if not mine or mine[-1].value != value:
                yield self._recorder.label(self._label(person, prediction_id, value, len(mine)))

    def _label(self, person: str, prediction_id: str, value: LabelValue, before: int) -> Label:
        return Label(
            prediction_id=prediction_id,
            value=value,
            known_at=self._clock.now(),
            source="human",
            key=label_key(person, before),
            by=person,
        )


def known_from_elsewhere(labels: Sequence[ReceivedLabel]) -> bool:
    """Return whether the environment told the truth, or a person without a name; no timeout does."""
    return any(
        one.label.source == "natural" or (one.label.source == "human" and not one.label.by)
        for one in labels
    )
