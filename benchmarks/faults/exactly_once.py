"""A decision made, then something killed at a random moment and started again: one published update."""

import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from prefect.client.orchestration import SyncPrefectClient

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say
from benchmarks.faults.pieces import PIPELINE, Flows, Pieces, await_
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.registry.mlflow_store.housekeeping import close_leftovers

__all__ = ["measure"]

_FLOWS, _WORKERS, _SERVERS = 70, 20, 10
_PATIENCE = timedelta(minutes=15)  # until the pipeline is monitored again
_SHORT_S = 2.0
_EVENT_S, _START_S, _LIMIT_S = 20.0, 10.0, 300.0


class _Turn(NamedTuple):
    """One decision: what was killed, how far it was then, whether a run was asked for, what is wrong."""

    killed: str
    phase: str
    asked: bool
    wrong: list[str]


class _Scene:
    """Everything that a turn needs."""

    def __init__(self, settings: Settings, pieces: Pieces, flows: Flows) -> None:
        self.bound = Bound(PIPELINE, settings)
        self.pieces = pieces
        self.flows = flows
        self.drawn = random.Random(3)
        self.took_s: list[float] = []
        self.events_lost = 0
        self._batch = 0
        self._moments = 0

    def decide(self) -> str:
        """Feed a batch, and run the monitor flow until it has decided that an update is due."""
        self._batch += 1
        for _ in range(20):
            ended = self.flows.do("decide", self._batch)
            if ended.status:
                raise RuntimeError(ended.said[-3000:])
            if self.bound.decisions.get(ended.result).fired:
                return str(ended.result)
        raise RuntimeError(f"no decision fires: {self.bound.decisions.newest(1)}")

    def scheduled(self, id_: str) -> str | None:
        """Give a run of a decision that waits for a process."""
        with SyncPrefectClient(self.pieces.api) as client:
            runs = client.read_flow_runs(limit=200)
        waiting = [
            str(run.id)
            for run in runs
            if run.parameters.get("decision") == id_ and run.state and run.state.is_scheduled()
        ]
        return waiting[0] if waiting else None

    def ask_again(self) -> list[str]:
        """Let the reconciler ask for what was lost, as it will when the pipeline is monitored next."""
        ended = self.flows.do("ask again", (self.bound.clock.now() + _PATIENCE).isoformat())
        if ended.status:
            raise RuntimeError(ended.said[-3000:])
        return list(ended.result)

    def phase(self, id_: str) -> str:
        """Say how far a decision has come."""
        decision = self.bound.decisions.get(id_)
        if decision.outcome is not None:
            return "ended"
        made = any(version.decision == id_ for version in self.bound.registry.store.versions())
        return "registered" if made else "claimed" if decision.claimed_by else "unclaimed"

    def ended(self, id_: str) -> bool | None:
        """Say whether it has ended, for :func:`await_`."""
        return self.bound.decisions.get(id_).outcome is not None or None

    def await_moment(self, id_: str) -> None:
        """Wait for a moment at random: from the decision on, or every second time from its claim on."""
        self._moments += 1
        if self._moments % 2:
            await_(lambda: self.bound.decisions.get(id_).claimed_by, _LIMIT_S)
            limit_s = self.drawn.uniform(0, self.longest_s() / 2)
        else:
            limit_s = self.drawn.uniform(0, _START_S + self.longest_s())
        await_(lambda: self.ended(id_), limit_s)

    def longest_s(self) -> float:
        """Give how long an update may take whose process has started; others use the machine too."""
        return 1.1 * statistics.median(self.took_s or [_SHORT_S])


def measure(*, short: bool) -> Outcome:
    """Kill what carries a decision out, start it again, and count what was published (half an hour).

    Seventy times it is the flow's process, twenty times the worker with all its processes, ten times
    Prefect's server, about half of them with the worker. ``ratio`` is the share of
    decisions that ended in exactly one version, promoted once, without an example learned twice.
    """
    with fresh_home(mlflow_database()) as settings, _scene(settings) as scene:
        turns = [] if short else [_flow_turn(scene, kill=False)]
        turns += _repeat(scene, _flow_turn, 1 if short else _FLOWS)
        if not short:
            _pool(scene, paused=False)
            scene.pieces.start_worker()
            turns += _repeat(scene, _worker_turn, _WORKERS)
            turns += _repeat(scene, _server_turn, _SERVERS)
    killed = [turn for turn in turns if turn.killed]
    return at_least(
        1.0 - sum(bool(turn.wrong) for turn in killed) / len(killed),
        1.0,
        also=len(killed) >= _FLOWS + _WORKERS + _SERVERS and not any(turn.wrong for turn in turns),
        decisions=len(killed),
        one_version=sum(not turn.wrong for turn in killed),
        killed=dict(Counter(turn.killed for turn in killed)),
        phases=dict(Counter(turn.phase for turn in killed)),
        asked_again=sum(turn.asked for turn in killed),
        events_lost=scene.events_lost,
        wrong=[text for turn in turns for text in turn.wrong][:10],
    )


@contextmanager
def _scene(settings: Settings) -> Iterator[_Scene]:
    pieces = Pieces(settings)
    try:
        pieces.start_server()
        flows = Flows(pieces)
        scene = _Scene(settings, pieces, flows)
        ended = flows.do("settle", pieces.api)
        if ended.status:
            raise RuntimeError(ended.said[-3000:])
        _pool(scene, paused=True)  # runs are executed here, until there is a worker
        yield scene
        scene.bound.close()
        flows.end()
    finally:
        pieces.end()


def _pool(scene: _Scene, *, paused: bool) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate  # noqa: PLC0415 - slow

    with SyncPrefectClient(scene.pieces.api) as client:
        client.update_work_pool("headwater", WorkPoolUpdate(is_paused=paused))


def _repeat(scene: _Scene, turn: Callable[..., _Turn], times: int) -> Iterator[_Turn]:
    for _ in range(times):
        done = turn(scene)
        say(f"  {done.killed} killed, decision {done.phase}: {'; '.join(done.wrong) or 'once'}")
        yield done


def _flow_turn(scene: _Scene, *, kill: bool = True) -> _Turn:
    """Kill the process of the flow that the automation asked for."""
    id_ = scene.decide()
    run = await_(lambda: scene.scheduled(id_), _EVENT_S)
    if run is None:
        scene.events_lost += 1
        scene.ask_again()
        run = scene.scheduled(id_)
    after_s = scene.drawn.uniform(0, scene.longest_s()) if kill else None
    ended = scene.flows.do("run", run, kill_after_s=after_s)
    phase = scene.phase(id_)
    if not kill:
        scene.took_s.append(ended.took_s)
    asked = scene.ask_again()
    if asked:
        _execute(scene, id_)
    return _Turn("flow" if kill else "", phase, bool(asked), list(_check(scene, id_)))


def _execute(scene: _Scene, id_: str) -> None:
    """Execute the run that was asked for."""
    run = scene.scheduled(id_)
    if run is not None:
        ended = scene.flows.do("run", run)
        scene.took_s.append(ended.took_s)
        if ended.status or scene.bound.decisions.get(id_).open:
            sys.stderr.write(ended.said[-3000:])


def _worker_turn(scene: _Scene) -> _Turn:
    """Kill the worker with its processes."""

    def crash() -> None:
        scene.pieces.kill("worker")
        scene.pieces.start_worker()

    return _restarted(scene, "worker", crash)


def _server_turn(scene: _Scene) -> _Turn:
    """Kill Prefect's server, every second time with the worker."""

    def crash() -> None:
        scene.pieces.kill("prefect")
        if scene.drawn.random() < 0.5:
            scene.pieces.kill("worker")
        scene.pieces.start_server()
        scene.pieces.start_worker()

    return _restarted(scene, "server", crash)


def _restarted(scene: _Scene, killed: str, crash: Callable[[], None]) -> _Turn:
    """Let the worker carry a decision out, and something crash meanwhile."""
    id_ = scene.decide()
    scene.await_moment(id_)
    crash()
    phase = scene.phase(id_)
    asked = bool(scene.ask_again())
    await_(lambda: scene.ended(id_), _LIMIT_S)
    return _Turn(killed, phase, asked, list(_check(scene, id_)))


def _check(scene: _Scene, id_: str) -> Iterator[str]:
    """Say what is wrong with a decision that has been carried out."""
    bound = scene.bound
    decision = bound.decisions.get(id_)
    if decision.outcome is None:
        yield f"{id_} has not ended: {_runs(scene, id_)}"
        return
    versions = bound.registry.store.versions()
    made = [version for version in versions if version.decision == id_]
    if [version.number for version in made] != [decision.outcome.version]:
        yield f"{id_} ended in {decision.outcome.version}, registered {[v.number for v in made]}"
    reigns = Counter(reign.version for reign in bound.registry.championship.history())
    if any(reigns[version.number] != 1 for version in made):
        yield f"{id_}: versions {[v.number for v in made]} reigned {dict(reigns)}"
    stops = [0, *(version.examples.stop for version in versions)]
    if [version.examples.start for version in versions] != stops[:-1]:
        yield f"examples are learned twice or not at all: {[str(v.examples) for v in versions]}"
    if left := close_leftovers(bound.registry.mlflow):
        yield f"{id_}: {left} runs or models were left open"


def _runs(scene: _Scene, id_: str) -> list[Any]:
    with SyncPrefectClient(scene.pieces.api) as client:
        runs = client.read_flow_runs(limit=200)
    return [(run.name, str(run.state)) for run in runs if run.parameters.get("decision") == id_]
