"""The base of every trigger, and its answer."""

import msgspec

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.update import UpdateKind

__all__ = ["TriggerAnswer", "TriggerRule"]


class TriggerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a trigger to evidence.

    Parameters
    ----------
    fired
        Whether an update is due.
    reason
        Why, or why not, in words.
    update
        The kind of update asked for; None leaves it to the pipeline.
    """

    fired: bool
    reason: str
    update: UpdateKind | None = None


class TriggerRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every trigger: the kind of update that it asks for.

    Parameters
    ----------
    update
        The kind of update it asks for: ``"stateless"``, ``"stateful"``, or None, which leaves it to
        the pipeline.
    """

    update: UpdateKind | None = None

    def answer(self, fired: bool, reason: str) -> TriggerAnswer:
        """Make the trigger's answer; only one that fired asks for an update."""
        return TriggerAnswer(fired=fired, reason=reason, update=self.update if fired else None)

    def check_update(self) -> None:
        """Refuse an unknown kind of update; each trigger calls it when it is declared.

        Raises
        ------
        DeclarationError
            If `update` is neither a kind nor None.
        """
        if self.update not in (None, "stateless", "stateful"):
            raise DeclarationError(
                f"{type(self).__name__}(update={self.update!r}) is not an update",
                hint='write update="stateless" or update="stateful", or leave it out',
            )
