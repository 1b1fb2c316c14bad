"""The label rules of the declarations that the predictions of a pipeline were recorded under."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from headwater.features.record.declared import recorded_declarations
from headwater.features.sequence.joining_rule import JoiningRule
from headwater.spec.data.label import LabelRule

__all__ = ["RecordedRules"]

_FIRST = 1


class RecordedRules:
    """The label rules of one pipeline's declarations, by number: rows are inserted once.

    Parameters
    ----------
    pipeline_id
        The pipeline's number in the database.
    otherwise
        The rule of records of before declarations had a number, where the database has no first one.
    """

    def __init__(self, pipeline_id: int, otherwise: LabelRule | None = None) -> None:
        self._pipeline_id = pipeline_id
        self._otherwise = None if otherwise is None else JoiningRule(otherwise)
        self._rules: dict[int | None, JoiningRule] = {}

    def forget(self) -> None:
        """Forget what a failed transaction may have written."""
        self._rules = {}

    def of(
        self, connection: Connection, numbers: Iterable[int | None]
    ) -> Mapping[int | None, JoiningRule]:
        """Return the rules of some declarations, and of others."""
        if not self._rules.keys() >= set(numbers):
            declarations = recorded_declarations(connection, self._pipeline_id)
            self._rules = {n: JoiningRule(declared.label) for n, declared in declarations.items()}
            first = self._rules.get(_FIRST, self._otherwise)
            if first is not None:
                self._rules[None] = first
        return self._rules

    def named_due_us(
        self, connection: Connection, number: int | None, payload: bytes, received_us: int
    ) -> int | None:
        """Return when the truth of a prediction is due; None unless its rule names it."""
        rule = self.of(connection, (number,)).get(number)
        return rule.due_us(payload, received_us) if rule is not None and rule.names_due else None
