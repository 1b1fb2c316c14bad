"""Online learning, for ``learn="each label"``: learn each example as it comes, and let it serve."""

import logging
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

import msgspec

from headwater.features.sequence.sequencer import Sequencer
from headwater.loop.binding import Bound
from headwater.loop.training.catch_up import fold_from
from headwater.loop.training.checkpoint import checkpoint
from headwater.loop.training.incremental_fold import IncrementalFold
from headwater.registry.proof import prove
from headwater.registry.version import Version
from headwater.serving.isolation.at_work import working
from headwater.spec.duration import duration
from headwater.spec.errors import (
    BusyError,
    ChangedError,
    ConflictError,
    HeadwaterError,
    UnlearnableError,
)
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Pause

__all__ = ["LearnedState", "OnlineLearning", "working_on"]

_TIMES_DEADLINE = 6
_LONGEST_LAG = timedelta(minutes=1)

_logger = logging.getLogger("headwater.learning")


class LearnedState:
    """A state that was learned on from a version, signed like a version's state.

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


class OnlineLearning:
    """Sequence one pipeline, learn each example, and make versions of the state on a schedule.

    The keeper uses it in a ``with`` block, within which it is the pipeline's sequencer and owns the
    learned state. At every offset the state is the fold of its recipe: a rebuild gives the same digest.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._sequencer: Sequencer | None = None
        self._folding: IncrementalFold | None = None
        self._rests_at = 0
        self._parent: Version | None = None
        self._epoch = 0
        self._spans: tuple[OffsetRange, ...] = ()
        self._refolded = False
        self._goal: tuple[datetime, int] | None = None
        self._checkpointed_at = bound.clock.now()
        self.stop = 0
        """The offset behind the last example that was sequenced."""
        self.pause: Pause | None = None
        """The pause that is in force."""
        self.blocked: UnlearnableError | None = None
        """The example at which learning stands still, until somebody quarantines it."""
        self.jump: HeadwaterError | None = None
        """Why the learned state is not served, until it is better again; learning goes on."""
        self.rests: ChangedError | None = None
        """Why nothing is learned: champion, records and declaration do not go together."""

    @property
    def parent(self) -> Version | None:
        """The version that the present state was learned on from."""
        return self._parent

    @property
    def learned_to(self) -> int:
        """The offset behind the last example that was learned."""
        return self._rests_at if self._folding is None else self._folding.learned_to

    def __enter__(self) -> "OnlineLearning":
        self._open()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self.checkpoint()
        finally:
            if self._sequencer is not None:
                self._sequencer.__exit__(*error)

    def read_rulings(self) -> bool:
        """Read the pause and the quarantine in force; return whether the quarantine changed."""
        registry = self._bound.registry
        self.pause = registry.pauses.in_force()
        spans = tuple(registry.quarantine.ranges())
        changed, self._spans = spans != self._spans, spans
        if changed and self._folding is not None:
            self._apply_quarantine(self._folding)
        return changed

    def limit(self, epoch: int, start: int) -> int:
        """Return the offset below which a champion may learn.

        Parameters
        ----------
        epoch
            Epoch of its reign: a reign that began during a pause learns nothing while the pause lasts.
        start
            The offset behind its last example.
        """
        if self.pause is None:
            return self.stop
        return min(self.stop, self.pause.offset) if epoch <= self.pause.epoch else start

    def begin(self, champion: Version, epoch: int) -> None:
        """Learn on from a champion, at the next step.

        Raises
        ------
        DigestError, NotRebuildableError, StorageError
            If its state cannot be loaded: learning goes on from the state before.
        """
        self._folding, self.rests = _folding_from(self._bound, champion)
        self._rests_at = champion.examples.stop
        self._parent, self._epoch = champion, epoch
        self._checkpointed_at = self._bound.clock.now()
        self.blocked = self.jump = None

    def keep(self, epoch: int) -> None:
        """Go on with the present state in a new reign of the same version."""
        self._epoch = epoch

    def step(self) -> LearnedState | None:
        """Sequence and learn new examples; return the state if it has changed, and may be served.

        At an example that cannot be learned, the state stays before it, and :attr:`blocked` names it.
        While :attr:`jump` says that the state became much worse, none is returned.

        Raises
        ------
        FencedError
            If another sequencer took over.
        """
        sequencer = self._sequencer or self._open()
        if sequencer is None:
            return None
        sequencer.drain()
        self.stop = self._bound.log.stop()
        self.pause = self._bound.registry.pauses.in_force()  # after the stop: see Pauses.pause
        folding, parent = self._folding, self._parent
        if folding is None or parent is None or self.blocked is not None:
            return None
        before, refolded = folding.learned, self._refolded
        with working_on(self._bound, folding.learned_to):
            try:
                folding.advance(self.limit(self._epoch, parent.examples.stop))
            except UnlearnableError as error:
                self.blocked = error
            changed = refolded or folding.learned != before
            if changed:
                self.jump = folding.jump()
            self._refolded = changed and self.jump is not None
            if self.jump is not None:
                return None
            return _learned_state(self._bound, folding, parent) if changed else None

    def lag(self) -> HeadwaterError | None:
        """Return that learning is behind, if for a minute it did not reach what was there at its start.

        Learning that is paused, or stands still at an example, is not behind.
        """
        folding, now = self._folding, self._bound.clock.now()
        if folding is None or self.pause is not None or self.blocked is not None:
            self._goal = None
            return None
        if self._goal is None or folding.learned_to >= self._goal[1]:
            self._goal = now, folding.cut(self.stop)
        if now - self._goal[0] < _LONGEST_LAG:
            return None
        return HeadwaterError(
            f"learning has been behind since {self._goal[0]:%Y-%m-%d %H:%M:%S} UTC",
            hint="give the keeper processor time, or learn in larger batches: batch_rows",
        )

    def due(self) -> bool:
        """Return whether a version is due."""
        every = duration(self._bound.pipeline.serving.checkpoint)
        now: datetime = self._bound.clock.now()
        return now - self._checkpointed_at >= every

    def checkpoint(self) -> None:
        """Make a version of the learned state, which becomes champion.

        No version is made if nothing was learned, if the state is not to be served, if another trainer
        works, or if another version became champion: the keeper follows that version, and learns on
        from it.
        """
        bound, folding, parent = self._bound, self._folding, self._parent
        self._checkpointed_at = bound.clock.now()
        if folding is None or parent is None or not folding.learned:
            return
        if self.jump is not None:
            _logger.info("%s: no checkpoint now: %s", bound.pipeline.name, self.jump.what)
            return
        reign = bound.registry.championship.reign()
        if reign is None or reign.version != parent.number:
            now = "none" if reign is None else f"version {reign.version}"
            _logger.info("%s: no checkpoint now: the champion is %s", bound.pipeline.name, now)
            return
        bound.log.collect()
        try:
            checkpoint(bound, folding, parent)
        except (BusyError, ConflictError) as error:
            _logger.info("%s: no checkpoint now: %s", bound.pipeline.name, error)

    def _open(self) -> Sequencer | None:
        """Begin to sequence; while records are of another declaration, learning rests."""
        try:
            sequencer = self._bound.log.sequencer()
        except ChangedError as error:
            self.rests = _resting(error)
            return None
        self._sequencer = sequencer.__enter__()
        if self._folding is not None:
            self.rests = None
        return sequencer

    def _apply_quarantine(self, folding: IncrementalFold) -> None:
        """Exclude the quarantined offsets; if they were learned already, fold anew without them."""
        self.blocked = None
        if not folding.exclude(self._spans) and self._parent is not None:
            self._folding = fold_from(self._bound, self._parent)
            self._refolded = True


def _learned_state(bound: Bound, folding: IncrementalFold, parent: Version) -> LearnedState:
    """Return the present state; the parent's own if nothing was learned on from it."""
    if not folding.learned:
        artifacts = bound.registry.store.verified_files(parent)
        return LearnedState(artifacts.state, artifacts.recipe, artifacts.proof, folding.learned_to)
    state, recipe = folding.learner.dump(), folding.recipe.to_json()
    proof = prove(bound.settings.key(), bound.pipeline.name, folding.learner.digest(), state, recipe)
    return LearnedState(state, recipe, msgspec.json.encode(proof), folding.learned_to)


def _folding_from(
    bound: Bound, champion: Version
) -> tuple[IncrementalFold, None] | tuple[None, ChangedError]:
    """Begin a fold that continues from a champion, or return why there can be none."""
    try:
        with working_on(bound, champion.examples.stop):
            return fold_from(bound, champion), None
    except ChangedError as error:
        return None, _resting(error)


def _resting(error: ChangedError) -> ChangedError:
    return ChangedError(
        f"learning stands still until a version has learned it: {error.what}", error.hint
    )


def working_on(bound: Bound, offset: int) -> AbstractContextManager[None]:
    """Mark that a pipeline's model learns from an offset on, where the keeper's parent sees it.

    A part of learning may take six times as long as the models of a request.
    """
    pipeline = bound.pipeline
    return working(pipeline.name, offset, _TIMES_DEADLINE * pipeline.serving.deadline_s)
