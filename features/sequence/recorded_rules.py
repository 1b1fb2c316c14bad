"""The label rules of the declarations under which the predictions of a pipeline were recorded."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from headwater.features.sequence.join_records import Arrival
from headwater.features.sequence.joining_rule import JoiningRule
from headwater.spec.data.label import LabelRule

__all__ = ["RecordedRules"]


class RecordedRules:
    """The label rules of one pipeline's records."""

    def __init__(self, pipeline_id: int, rule: LabelRule) -> None:
        self._pipeline_id = pipeline_id
        self._rule = JoiningRule(rule)

    def by_hash(
        self, connection: Connection, arrivals: Sequence[Arrival]
    ) -> Mapping[int | None, JoiningRule]:
        """Return the rules of the predictions of a batch, by hash of their declaration."""
        return {None: self._rule}

    def by_number(self, connection: Connection, number: int | None) -> JoiningRule:
        """Return the rule of a declaration by its number."""
        return self._rule
