"""A version as the registry stores it in tags, with all that lists and lineage need."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from headwater.spec.recipe import OffsetRange
from headwater.spec.updating.update import UpdateKind

__all__ = ["Candidate", "Version"]

_PREFIX = "headwater."


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A learned state that is not registered yet.

    Parameters
    ----------
    recipe
        The recipe's canonical text.
    state
        The learner's dump.
    digest
        Hash of the state's canonical form.
    made_at
        When it was learned, by the pipeline's clock.
    line_started_at
        When the first version of its line was learned, from which stateful updates descend.
    learned
        How many examples were learned to make it from its base, passes and exclusions counted.
    train_cpu_s
        CPU seconds that took.
    metrics
        Its quality, by name of metric.
    decision, report
        The decision that asked for it, and the drift report made then; None if there is none.
    refused
        Why a gate refused it, in words; None if none did.
    """

    recipe: bytes
    state: bytes
    digest: str
    made_at: datetime
    line_started_at: datetime
    learned: int
    train_cpu_s: float
    metrics: dict[str, float] = {}
    decision: str | None = None
    report: str | None = None
    refused: str | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version.

    Parameters
    ----------
    pipeline, number
        Its name in the registry: ``models:/PIPELINE/NUMBER``.
    update
        How it was made.
    parent
        Number of the version it was fine-tuned from; None if it was made from scratch.
    examples
        The offsets it learned.
    learned, train_cpu_s, made_at, line_started_at
        As in :class:`Candidate`.
    digest, recipe_id
        Hash of the state, and of the recipe.
    model_id, run_id
        MLflow's names of the stored model and of the run that made it.
    decision, report, refused
        As in :class:`Candidate`.
    """

    pipeline: str
    number: str
    update: UpdateKind
    parent: str | None
    examples: OffsetRange
    learned: int
    train_cpu_s: float
    made_at: datetime
    line_started_at: datetime
    digest: str
    recipe_id: str
    model_id: str
    run_id: str
    decision: str | None = None
    report: str | None = None
    refused: str | None = None

    def tags(self) -> dict[str, str]:
        """Return the tags that store it, without the fields that MLflow stores itself."""
        fields = msgspec.to_builtins(self)
        del fields["pipeline"], fields["number"], fields["model_id"], fields["run_id"]
        fields["examples"] = f"{self.examples.start}:{self.examples.stop}"
        return {_PREFIX + name: str(value) for name, value in fields.items() if value is not None}

    @classmethod
    def from_tags(
        cls, pipeline: str, number: str, model_id: str, run_id: str, tags: Mapping[str, str]
    ) -> "Version | None":
        """Read a version back; None if the tags are not headwater's."""
        fields: dict[str, object] = {
            name.removeprefix(_PREFIX): value for name, value in tags.items() if name.startswith(_PREFIX)
        }
        if "recipe_id" not in fields:
            return None
        start, stop = map(int, str(fields["examples"]).split(":"))
        fields |= {"pipeline": pipeline, "number": number, "model_id": model_id, "run_id": run_id}
        fields |= {"examples": OffsetRange(start, stop), "parent": fields.get("parent")}
        return msgspec.convert(fields, cls, strict=False)
