"""The interface that every learner has."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import polars as pl

from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import FeatureValue, LabelValue, Output
from headwater.spec.pipeline import Task

__all__ = ["Capabilities", "Learner", "Schema"]


class Schema(NamedTuple):
    """The schema of a learner: the task, the features in their order, and the classes known ahead."""

    task: Task
    features: tuple[FeatureKind, ...]
    classes: tuple[str, ...] = ()


class Capabilities(NamedTuple):
    """The capabilities of a learner.

    Parameters
    ----------
    stateful
        Whether it can go on learning from its state.
    probabilities
        Whether its output is a probability, not a bare class.
    open_labels
        Whether a class never seen before can be learned in a stateful update.
    batch_rows
        How many examples it learns at a time where the pipeline does not say; None takes all at once.
    fit_only
        Why it cannot go on, where that is not for its class but for a parameter.
    """

    stateful: bool
    probabilities: bool
    open_labels: bool
    batch_rows: int | None
    fit_only: str = ""


@runtime_checkable
class Learner(Protocol):
    """An estimator that can predict, learn, dump and load.

    ``loop/`` makes one from a pipeline's factory or from a stored state; nobody else learns with it.
    """

    @property
    def schema(self) -> Schema:
        """The task and features that the learner was made for."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The learner's capabilities."""
        ...

    def expect_classes(self, classes: Sequence[LabelValue]) -> None:
        """Prepare for the classes of an update before it is learned (multiclass only).

        Raises
        ------
        SchemaError
            If the state cannot take a class that it has not seen.
        """
        ...

    def predict(self, features: pl.DataFrame) -> Sequence[Output]:
        """Predict one output a row; columns are the schema's, in its order."""
        ...

    def predict_one(self, features: Mapping[str, FeatureValue]) -> Output:
        """Predict for one set of features; the same number that :meth:`predict` gives."""
        ...

    def learn(self, features: pl.DataFrame, labels: pl.Series) -> None:
        """Learn a batch, in its order. The batch is checked first; a bad one changes nothing.

        Raises
        ------
        NonFiniteError
            If the batch holds NaN or infinity, or learning it made the state non-finite; the state
            is then what it was before.
        """
        ...

    def learn_one(self, features: Mapping[str, FeatureValue], label: LabelValue) -> None:
        """Learn one example, as a batch of one."""
        ...

    def dump(self) -> bytes:
        """Return the state as bytes that :meth:`load` takes."""
        ...

    def load(self, state: bytes) -> None:
        """Load a state. Only call it on bytes whose signature and digest were checked."""
        ...

    def digest(self) -> str:
        """Hash the state's canonical form: 64 hexadecimal digits, the same in every process."""
        ...
