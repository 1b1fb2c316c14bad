"""A storm of drift events: one run for each cool-down, nothing lost, memory flat."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid4, uuid5

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.faults.pieces import Flows, Pieces, await_
from benchmarks.models import river_regression
from headwater.flows.deployments import deploy
from headwater.flows.events import DRIFT_DETECTED, UPDATE_REQUESTED, resource, tell_decided
from headwater.flows.stack.prefect_environment import environment, within
from headwater.infra.clock import SimulatedClock, SystemClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.decide import decide
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.decision import Decision
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.drift import Drift
from headwater.spec.updating.update import Stateful

__all__ = ["STORM", "measure"]

STORM = Pipeline(
    name="storm",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="9999d"),
    model=river_regression,
    update=Stateful(),
    triggers=(Drift(),),
    pace=Pace(cool_down="1h"),
    monitoring=Monitoring(rows=200, least=100, reference_rows=400),
    gate=None,
    metrics=("log_loss",),
)
"""Its input moves, so that whoever watches it finds drift each time."""

_REFERENCE = f"{Path(__file__).resolve()}:STORM"
_ROWS = 400
_DECISIONS = 500
_EVENTS = 10_000
_UNKNOWN = 10  # every tenth request bears a decision that nobody made
_HOUR = timedelta(hours=1)
_FLAT = 1.1
_LIMIT_S = 900.0
_QUIET, _QUIET_SHORT = 10, 3  # seconds


class _Storm(NamedTuple):
    """What one storm did.

    Parameters
    ----------
    emitted
        How many events were sent, those of them that are the same counted each.
    kept, runs
        How many different events the server has kept after it, and how many runs it has started, in all.
    monitor_grew, server_grew
        Resident memory at the end over that after the first fifth of it, of the two processes.
    """

    emitted: int
    kept: int
    runs: int
    monitor_grew: float
    server_grew: float


class _Scene:
    """A watched pipeline on a clock that is moved, with a real server for its events."""

    def __init__(self, settings: Settings, pieces: Pieces, flows: Flows, share: float) -> None:
        self.clock = SimulatedClock(SystemClock().now() - timedelta(minutes=10))
        self.bound = Bound(STORM, settings, self.clock)
        self.pieces = pieces
        self.flows = flows
        self.share = share

    def serve(self, name: str, stuck: float | None) -> None:
        """Let the champion predict, and its labels come; a feature may be stuck near a value."""
        self.clock.advance_to(self.clock.now() + timedelta(minutes=1))
        champion = self.bound.registry.champion()
        drawn = random.Random(name)
        points = [(drawn.gauss(0, 1), drawn.gauss(0, 1)) for _ in range(_ROWS)]
        version, now = champion.number if champion else "", self.clock.now()
        self.bound.log.record(
            [
                Prediction(
                    id=f"{name}-{i}",
                    features={"x": x if stuck is None else stuck + x / 10, "y": y},
                    output=0.5,
                    served_at=now,
                    version=version,
                )
                for i, (x, y) in enumerate(points)
            ]
        )
        self.bound.log.label(
            [
                Label(prediction_id=f"{name}-{i}", value=2 * x + y > 0, known_at=now)
                for i, (x, y) in enumerate(points)
            ]
        )
        collect(self.bound.log)

    def runs(self) -> list[str]:
        """Give the runs of the update that the server knows."""
        with SyncPrefectClient(self.pieces.api) as client:
            found, offset = [], 0
            while page := client.read_flow_runs(limit=200, offset=offset):
                found += [str(run.id) for run in page if "decision" in run.parameters]
                offset += len(page)
        return found

    def told(self) -> int:
        """Count the events that the server has kept."""
        names = EventNameFilter(name=[DRIFT_DETECTED, UPDATE_REQUESTED])
        with SyncPrefectClient(self.pieces.api) as client:
            return client.read_events(filter=EventFilter(event=names), limit=1).total


def measure(*, short: bool) -> Outcome:
    """Let drift last and its events come in masses, twice, an hour apart (ten minutes).

    The monitor decides over and over within a minute of the pipeline's clock. Each decision tells of
    drift many times over; the request for an update is told again with the same id, with others, and for
    decisions that nobody made. ``ratio`` is how many runs were started for each cool-down.
    """
    share = 0.02 if short else 1.0
    with fresh_home(mlflow_database()) as settings, _scene(settings, share) as scene:
        scene.serve("first", None)
        train(scene.bound, by="benchmark")
        deploy([_REFERENCE], settings, prefect_api=scene.pieces.api)
        storms = [_storm(scene, f"storm-{number}", stuck) for number, stuck in ((1, 4.0), (2, -4.0))]
        decisions = scene.bound.decisions.newest()
        made = [v.decision for v in scene.bound.registry.store.versions() if v.decision]
        runs = len(scene.runs())
    fired = [decision for decision in decisions if decision.fired]
    ended = [each for each in fired if each.outcome is not None and each.outcome.version is not None]
    grew = max(storm.monitor_grew for storm in storms)
    return at_most(
        runs / len(storms),
        1.0,
        also=len(fired) == len(ended) == len(made) == len(storms) and grew <= _FLAT,
        events=[storm.emitted for storm in storms],
        events_kept=[storm.kept for storm in storms],
        decisions=len(decisions),
        fired=len(fired),
        ended_in_a_version=len(ended),
        runs=[*(storm.runs for storm in storms), runs],
        monitor_memory_grew=[round(storm.monitor_grew, 3) for storm in storms],
        server_memory_grew=[round(storm.server_grew, 3) for storm in storms],
    )


@contextmanager
def _scene(settings: Settings, share: float) -> Iterator[_Scene]:
    pieces = Pieces(settings)
    with within(environment(settings, secrets=True)):
        try:
            pieces.start_server()
            flows = Flows(pieces)
            scene = _Scene(settings, pieces, flows, share)
            with temporary_settings({PREFECT_API_URL: pieces.api}):
                yield scene
            scene.bound.close()
            flows.end()
        finally:
            pieces.end()


def _storm(scene: _Scene, name: str, stuck: float) -> _Storm:
    """Let drift last for a minute, then carry out what was asked for, and let the cool-down pass."""
    scene.serve(name, stuck)
    mine, server = psutil.Process(), psutil.Process(scene.pieces.pid("prefect"))
    count = max(10, int(_DECISIONS * scene.share))
    emitted, sizes = 0, []
    for number in range(count):
        scene.clock.advance_to(scene.clock.now() + timedelta(minutes=1) / count)
        emitted += _tell(scene, decide(scene.bound), int(_EVENTS * scene.share) // count)
        if number == count // 5:
            sizes = [mine.memory_info().rss, server.memory_info().rss]
    EventsWorker.drain_all()
    _settle(scene)
    grown = [p.memory_info().rss / before for p, before in zip((mine, server), sizes, strict=True)]
    storm = _Storm(emitted, scene.told(), len(runs := scene.runs()), *grown)
    say(f"  {name}: {storm}")
    for run in runs:
        scene.flows.do("run", run)  # those that ran before end at once
    scene.clock.advance_to(scene.clock.now() + _HOUR)
    return storm


def _tell(scene: _Scene, decision: Decision, count: int) -> int:
    """Tell of a decision, and request the newest update that fired, so often and in so many ways."""
    tell_decided(decision)
    newest = scene.bound.decisions.newest(1, fired=True)[0].id
    asked = [newest if number % _UNKNOWN else uuid4().hex for number in range(count // 2)]
    found = [decision.id] * (count - len(asked))
    events = [
        _event(name, id_, decision, again=number % 2 == 1)
        for name, ids in ((DRIFT_DETECTED, found), (UPDATE_REQUESTED, asked))
        for number, id_ in enumerate(ids)
    ]
    httpx.post(f"{scene.pieces.api}/events", json=events, timeout=None).raise_for_status()
    return len(events)


def _event(name: str, id_: str, decision: Decision, *, again: bool) -> dict[str, object]:
    """Give an event as the server takes it: the same one again, or one of its own."""
    same = uuid5(NAMESPACE_URL, f"{name}/{decision.pipeline}/{id_}")
    made = Event(
        event=name,
        resource=resource(decision.pipeline),
        occurred=decision.at,
        payload={"decision": id_, "reason": decision.reason},
        id=same if again else uuid4(),
    )
    return made.model_dump(mode="json")


def _settle(scene: _Scene) -> None:
    """Wait until the server has kept what came, and makes no more of it."""
    seen: list[tuple[int, int]] = []
    quiet = _QUIET if scene.share == 1 else _QUIET_SHORT

    def still() -> bool | None:
        seen.append((scene.told(), len(scene.runs())))
        return (len(seen) > quiet and len(set(seen[-quiet:])) == 1) or None

    await_(still, _LIMIT_S, every_s=1.0)
