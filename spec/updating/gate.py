"""The gate that a candidate must pass before it becomes champion."""

import msgspec

from headwater.spec.errors import DeclarationError

__all__ = ["Gate"]


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold the newest examples back, and compare candidate and champion on them.

    Neither has learned what it is judged on. What was held back is learned by the next update.

    Parameters
    ----------
    examples
        How many are held back; at most a fifth of what is new.
    deviations
        Refuse the candidate if its mean loss is higher than the champion's by this many standard
        errors of the paired differences. Loss is log loss, or squared error in a regression.

    Raises
    ------
    DeclarationError
        If `examples` is no count of at least two, or `deviations` is below 0.
    """

    examples: int = 500
    deviations: float = 1.64

    def __post_init__(self) -> None:
        if not isinstance(self.examples, int) or isinstance(self.examples, bool) or self.examples < 2:
            raise DeclarationError(
                f"Gate(examples={self.examples!r}) holds nothing back",
                hint="write examples=500, or gate=None for no gate",
            )
        if not self.deviations >= 0:
            raise DeclarationError(
                f"Gate(deviations={self.deviations!r}) is below 0", hint="write deviations=1.64"
            )
