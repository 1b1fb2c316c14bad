"""``learn="each label"``: every example is learned as it comes, and serves within a moment."""

import logging
from datetime import datetime

import msgspec
from msgspec.structs import replace

from headwater.features.sequencer import Sequencer
from headwater.loop.binding import Bound
from headwater.loop.checkpoint import checkpoint
from headwater.loop.folding import Folding
from headwater.loop.update import Plan, recipe_of
from headwater.registry.proof import prove
from headwater.registry.version import Version
from headwater.spec.duration import duration
from headwater.spec.errors import BusyError, ConflictError
from headwater.spec.recipe import Recipe

__all__ = ["EachLabel", "Learned"]

_logger = logging.getLogger("headwater.learning")


class Learned:
    """A state that was learned on from a version, signed as a version's is.

    Parameters
    ----------
    state, recipe, proof
        The bytes that a worker verifies.
    learned_to
        The offset behind the last example learned.
    """

    def __init__(self, state: bytes, recipe: bytes, proof: bytes, learned_to: int) -> None:
        self.state = state
        self.recipe = recipe
        self.proof = proof
        self.learned_to = learned_to


class EachLabel:
    """Sequences one pipeline, learns each example, and makes versions of it on a schedule.

    Made by the keeper in a ``with`` block, within which it is the pipeline's sequencer and owns its
    learned state. At every offset the state is the fold of its recipe: a rebuild gives the same digest.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._sequencer: Sequencer = bound.log.sequencer()
        self._folding: Folding | None = None
        self._parent: Version | None = None
        self._made: str | None = None
        self._checkpointed_at = bound.clock.now()

    @property
    def parent(self) -> Version | None:
        """The version that the present state was learned on from."""
        return self._parent

    def __enter__(self) -> "EachLabel":
        self._sequencer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self.checkpoint()
        finally:
            self._sequencer.__exit__(*error)

    def begin(self, champion: Version) -> None:
        """Learn on from a champion, with all that came since its last example.

        Raises
        ------
        DigestError, NotRebuildableError, StorageError
            If its state cannot be loaded: what was learned before goes on.
        """
        bound = self._bound
        learner = bound.registry.store.learner(champion, bound.pipeline.model)
        folding = Folding(self._recipe(champion), bound.log, learner)
        folding.advance(bound.log.stop())
        self._parent, self._folding = champion, folding
        self._checkpointed_at = bound.clock.now()

    def step(self) -> Learned | None:
        """Sequence what came, and learn it; give the state if it has changed.

        Raises
        ------
        FencedError
            If another sequencer took over.
        NonFiniteError, SchemaError
            If an example cannot be learned: the state stays at the one before.
        """
        self._sequencer.drain()
        if self._folding is None or not self._folding.advance(self._bound.log.stop()):
            return None
        return self.learned()

    def learned(self) -> Learned | None:
        """Give the present state; None where nothing has come since the champion's last example."""
        folding = self._folding
        if folding is None or not folding.learned:
            return None
        state, recipe = folding.learner.dump(), folding.recipe.to_json()
        bound = self._bound
        proof = prove(bound.settings.key(), bound.pipeline.name, folding.learner.digest(), state, recipe)
        return Learned(state, recipe, msgspec.json.encode(proof), folding.learned_to)

    def due(self) -> bool:
        """Say whether a version is due."""
        every = duration(self._bound.pipeline.serving.checkpoint)
        now: datetime = self._bound.clock.now()
        return now - self._checkpointed_at >= every

    def checkpoint(self) -> None:
        """Make a version of what was learned, which becomes champion.

        Nothing is made where nothing was learned, another trainer works, or another version became
        champion: the keeper follows that one, and learns on from it.
        """
        bound, folding, parent = self._bound, self._folding, self._parent
        self._checkpointed_at = bound.clock.now()
        if folding is None or parent is None or not folding.learned:
            return
        bound.log.collect()
        try:
            version, _ = checkpoint(bound, folding, parent)
        except (BusyError, ConflictError) as error:
            _logger.info("%s: no checkpoint now: %s", bound.pipeline.name, error)
            return
        self._made = version.number

    def made(self, version: Version) -> bool:
        """Say whether a version is the one that was made here last."""
        return self._made == version.number

    def _recipe(self, champion: Version) -> Recipe:
        """Write down how to learn on from a champion; its range starts where the champion's stopped."""
        bound = self._bound
        plan = Plan(parent=champion, reason="each label")
        recipe = recipe_of(bound, plan, champion.examples.stop, bound.clock.now())
        return replace(recipe, exclusions=tuple(bound.registry.championship.quarantined()))
