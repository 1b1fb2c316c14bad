"""Recipes: how to make a version again, to the same digest."""

import hashlib
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.label import RevisionPolicy
from headwater.spec.pipeline import Task
from headwater.spec.updating.update import Subsample, UpdateKind

__all__ = ["LearnerCode", "OffsetRange", "Recipe"]


class OffsetRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """The offsets from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


class LearnerCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The code that makes the estimator.

    Parameters
    ----------
    module, function
        The factory's module and name.
    source
        The module's text, kept so that a later edit changes nothing.
    adapter
        Which learner wraps the estimator: ``"river"``, ``"sklearn"`` or ``"lightgbm"``.
    parameters
        What the factory made: classes and parameters by path, as
        :func:`~headwater.learners.parameters.parameters_of` lists them. A version without them cannot be
        learned on from.
    """

    module: str
    function: str
    source: str
    adapter: Literal["river", "sklearn", "lightgbm"]
    parameters: dict[str, str] | UnsetType = UNSET  # left out where not known: ids stay


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of the fold that makes a version's state.

    Parameters
    ----------
    pipeline, task
        Which pipeline, and what it predicts.
    update
        ``"stateless"`` starts from the unfitted estimator, ``"stateful"`` from `parent`.
    parent, parent_digest
        The version whose state the fold starts from, and that state's digest; None if it starts
        from the unfitted estimator.
    examples
        The offsets learned.
    exclusions
        Offsets within `examples` that are quarantined and not learned.
    subsample
        Which of them are drawn; None learns all.
    revisions
        What is done with a correction of an example that the parent has learned.
    batch_rows, passes, seed, threads
        As in the pipeline.
    learner
        The estimator's code.
    features
        What the model sees.
    libraries
        Versions of the libraries that compute, by name.
    classes
        The declared classes, sorted, if the learner must know all classes ahead.
    """

    pipeline: str
    task: Task
    update: UpdateKind
    parent: str | None
    parent_digest: str | None
    examples: OffsetRange
    exclusions: tuple[OffsetRange, ...]
    subsample: Subsample | None
    revisions: RevisionPolicy
    batch_rows: int | None
    passes: int
    seed: int
    threads: int
    learner: LearnerCode
    features: tuple[FeatureKind, ...]
    libraries: dict[str, str]
    classes: tuple[str, ...] | UnsetType = UNSET  # left out where not declared: ids stay

    def to_json(self) -> bytes:
        """Encode canonically: the same recipe gives the same bytes in every process."""
        return msgspec.json.encode(self, order="deterministic")

    @classmethod
    def from_json(cls, text: bytes) -> "Recipe":
        """Decode the text that :meth:`to_json` returned."""
        return msgspec.json.decode(text, type=cls)

    @property
    def id(self) -> str:
        """Hash of the recipe: two updates with the same id make the same state."""
        return hashlib.sha256(self.to_json()).hexdigest()
