"""Catch a new champion up before it serves: it learns the examples that it missed, as a new version."""

import polars as pl
from msgspec.structs import replace

from headwater.loop.binding import Bound
from headwater.loop.declaring.edit_plan import declare
from headwater.loop.training.checkpoint import SERVICE, candidate_of
from headwater.loop.training.gate import GateResult, judge_outputs
from headwater.loop.training.incremental_fold import IncrementalFold
from headwater.loop.training.parent_state import learned_state
from headwater.loop.training.plan import UpdatePlan, recipe_of
from headwater.loop.training.update import trainer
from headwater.monitoring.measure.scores import as_logged
from headwater.registry.version import Version
from headwater.spec.answering import check_servable
from headwater.spec.difference import is_of_feature
from headwater.spec.errors import ChangedError
from headwater.spec.recipe import Recipe
from headwater.spec.rulings import Reign
from headwater.spec.updating.gate import Gate

__all__ = ["CatchUp", "check_served", "fold_from"]

_PART = 4_096  # offsets a part, so that whoever else learns is not held up for long
_JUDGED_PART = 128
_LEAST_JUDGED = 30
_COLUMNS = ("offset", "features", "role", "output", "label")


def check_served(bound: Bound) -> None:
    """Check that a service may begin, and put its declaration in force.

    A feature that the champion has not learned is recorded, and not given to it. If the champion cannot
    answer the requests that are declared, the service answers by what the champion has learned, until a
    version has learned what is declared. Records that differ in features hold nobody up then.

    Raises
    ------
    ChangedError
        If the records or the champion are of another task, records wait for their labels under another
        rule, features differ and there is no champion, or it needs a table that is not declared.
    """
    pipeline, champion = bound.pipeline, bound.registry.champion()
    if champion is not None:
        learned = bound.registry.store.recipe(champion)
        check_servable(learned, pipeline, champion.number, bound.log.declared.stored.recorded)
    try:
        declare(bound, by=SERVICE)
    except ChangedError as error:
        if champion is None or not all(is_of_feature(one.field) for one in error.differences):
            raise
        declare(bound, by=SERVICE, agreed=False)


def fold_from(bound: Bound, version: Version) -> IncrementalFold:
    """Begin a fold that continues from a version, at the offset at which the version's range stopped.

    Raises
    ------
    ChangedError
        If it is of another learner or other features than are declared.
    DigestError, NotRebuildableError, StorageError
        If its state does not hold, or cannot be loaded.
    """
    recipe = _recipe_from(bound, version)
    learner = learned_state(bound, version)
    spans = tuple(bound.registry.quarantine.ranges())
    guarded = bound.pipeline.serving.guard
    return IncrementalFold(replace(recipe, exclusions=spans), bound.log, learner, guarded=guarded)


def _recipe_from(bound: Bound, version: Version) -> Recipe:
    plan = UpdatePlan(parent=version, reason="each label")
    return recipe_of(bound, plan, version.examples.stop, bound.clock.now())


class CatchUp:
    """Learns what a new champion has missed, while another version serves.

    Made by the keeper when somebody else made a version champion; lives until that serves, or is
    refused. The newest examples are predicted before they are learned, and the gate compares that with
    what was served.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    reign, version
        The reign that began, and its version.
    gated
        Whether the gate is asked.

    Raises
    ------
    DigestError, NotRebuildableError, StorageError
        If its state does not hold, or cannot be loaded.
    """

    def __init__(self, bound: Bound, reign: Reign, version: Version, *, gated: bool) -> None:
        self.reign = reign
        self.version = version
        self.folding = fold_from(bound, version)
        self._bound = bound
        self._gate: Gate | None = bound.pipeline.gate if gated else None
        self._said: list[pl.DataFrame] = []

    def advance(self, stop: int) -> bool:
        """Learn a part of the examples below an offset.

        Returns
        -------
        bool
            Whether it has caught up.

        Raises
        ------
        UnlearnableError
            If an example cannot be learned.
        NotFoundError, TableError, StorageError
            If the examples cannot be read.
        """
        folding, stop = self.folding, self.folding.cut(stop)
        if folding.learned_to >= stop:
            return True
        judged_from = stop if self._gate is None else stop - self._gate.examples
        if self._said or folding.next_cut > judged_from:
            self._predict_and_learn(min(stop, self._part(_JUDGED_PART)))
        else:
            folding.advance(min(max(folding.cut(judged_from), folding.next_cut), self._part(_PART)))
        return folding.learned_to >= stop

    def judge(self) -> GateResult | None:
        """Compare with the served outputs on the newest examples; None if no gate is asked."""
        if self._gate is None:
            return None
        said = pl.concat(self._said).tail(self._gate.examples) if self._said else pl.DataFrame()
        if said.height < _LEAST_JUDGED:
            reason = f"too few to judge: {said.height}"
            return GateResult(passes=True, reason=reason, examples=said.height, worse=0.0, error=0.0)
        task = self._bound.pipeline.task
        return judge_outputs(self._gate, task, said["said"], said["output"], said["label"])

    def publish(self, serving: Version | None) -> Version:
        """Register what was learned as a child version, and make it champion if the gate lets it pass.

        Parameters
        ----------
        serving
            The version that serves meanwhile: it becomes champion again where the gate refuses.

        Returns
        -------
        Version
            The child, whose reign began; or ``refused`` says why it does not serve.

        Raises
        ------
        BusyError, FencedError
            If another trainer works: nothing is published then.
        ConflictError
            If another version became champion meanwhile: the child is kept, and does not serve.
        StorageError
            If a store is away.
        """
        bound, judged = self._bound, self.judge()
        metrics = {} if judged is None else {"gate_worse": judged.worse, "gate_error": judged.error}
        candidate = candidate_of(self.folding, self.version, bound.clock, metrics)
        jump = self.folding.jump()
        if jump is not None and serving is not None:
            candidate = replace(candidate, refused=f"refused: {jump.what}")
        elif judged is not None and not judged.passes and serving is not None:
            candidate = replace(candidate, refused=f"refused by the gate: {judged.reason}")
        bound.log.collect()
        with trainer(bound) as lease:
            child = bound.registry.publish(candidate, lease)
            if child.refused is None or serving is None:
                reason = f"version {self.version.number}, caught up"
                bound.registry.succeed(self.version, child, by=SERVICE, reason=reason, lease=lease)
            else:
                reason = f"version {child.number} was {child.refused}"
                bound.registry.put_back(serving, expected=self.reign, by=SERVICE, reason=reason)
        return child

    def _part(self, rows: int) -> int:
        """Return the end of the next part: whole batches, at least one."""
        folding = self.folding
        return max(folding.cut(folding.learned_to + rows), folding.next_cut)

    def _predict_and_learn(self, stop: int) -> None:
        folding, start = self.folding, self.folding.learned_to
        left_out = folding.unlearned(start, stop).tolist()
        rows = self._bound.log.projected(start, stop, _COLUMNS, without=left_out)
        rows = rows.filter(
            pl.col("role") == "champion",
            pl.col("output").is_not_null(),
        )
        said = None
        if rows.height:
            features = rows["features"].struct.unnest()
            outputs = as_logged(folding.learner.predict(features))
            said = rows.select("output", "label").with_columns(said=outputs)
        folding.advance(stop)
        if said is not None:
            self._said.append(said)
