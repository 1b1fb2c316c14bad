"""Requests for each CPU second, beside other servers of the same model."""

import random
import statistics
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import msgspec

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say
from benchmarks.service.load import LOAD_CORE, Server, load, pinned
from benchmarks.service.serving import serving
from benchmarks.service.serving_toy import features, pipeline, publish
from benchmarks.speed.peer_servers import NotInstalledError, peer_server, version_of
from benchmarks.speed.peer_setups import PEERS, Features, Peer
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound

__all__ = ["measure"]

_BOUND = 5.0
_CONNECTIONS = 64
_REQUESTS, _SHORT_REQUESTS = 4_000, 200
_TURNS, _SHORT_TURNS = 5, 1
_SHORT_PEERS = ("bentoml", "mlserver_0")  # MLflow imports itself three times before it serves
_PROBES = 20
_LEAST = 1e-9


class _Served(NamedTuple):
    """A peer that runs, what it is sent, and what it cost: microseconds a request, turn by turn."""

    peer: Peer
    server: Server
    bodies: list[bytes]
    cost_us: list[float]


def measure(*, short: bool) -> Outcome:
    """Compare CPU for each request with MLflow's scoring server, BentoML and MLServer.

    The same state everywhere, twenty features, River's scaler and logistic regression; one row a
    request, 64 connections that each wait for their answer. Our record is durable; theirs is not
    logged. All processes of a server count, ours with its keeper; each has one worker and is on one
    core, the load is on the other. Turns alternate, after one to warm up.

    Each peer is installed from its pins in an environment of its own, with uvloop and httptools, without
    a log of accesses, and set up as it documents: MLflow by ``models serve`` with a pyfunc that has type
    hints, BentoML by ``serve`` with an async method, MLServer by a custom runtime, once without and once
    with a worker for inference. The cheapest of several ways was taken where several are documented.

    ``ratio`` is what the cheapest peer costs over what we cost. It holds where all could be installed
    and answer the same probabilities as we do, within 1e-9.
    """
    requests = _SHORT_REQUESTS if short else _REQUESTS
    peers = [peer for peer in PEERS if not short or peer.name in _SHORT_PEERS]
    drawn = random.Random(11)
    rows = [features(drawn) for _ in range(requests)]
    ours_us: list[float] = []
    failed = 0
    with fresh_home(mlflow_database()) as settings, ExitStack() as stack:
        publish(settings)
        to = stack.enter_context(serving(settings, workers=1))
        ours = Server(to.port, to.process)
        bodies = [msgspec.json.encode({"features": row}) for row in rows]
        served, missing = _start(stack, settings, peers, rows)
        differ = sum(_differ(to.address, one, rows[:_PROBES]) for one in served)
        with pinned(LOAD_CORE):
            for turn in range(1 + (_SHORT_TURNS if short else _TURNS)):
                runs = [(ours, bodies, "/predict", ours_us)]
                runs += [(one.server, one.bodies, one.peer.path, one.cost_us) for one in served]
                for server, sent, path, cost_us in runs:
                    found = load(server, sent, _CONNECTIONS, path=path)
                    failed += found.failed
                    if turn:
                        cost_us.append(found.cpu_us)
                say(f"  turn {turn}: " + _told(ours_us, served))
    ratios = {
        one.peer.name: statistics.median(a / b for a, b in zip(one.cost_us, ours_us, strict=True))
        for one in served
    }
    return at_least(
        min(ratios.values(), default=0.0),
        _BOUND,
        also=not missing and differ == 0 and failed == 0,
        ours_us=round(statistics.median(ours_us), 1),
        peers_us={one.peer.name: round(statistics.median(one.cost_us), 1) for one in served},
        ratios={name: round(ratio, 2) for name, ratio in ratios.items()},
        versions={package: version_of(package) for package in sorted({peer.package for peer in peers})},
        not_measured=missing,
        probabilities_that_differ=differ,
        failed=failed,
        requests=requests * len(ours_us),
    )


def _start(
    stack: ExitStack, settings: Settings, peers: list[Peer], rows: list[Features]
) -> tuple[list[_Served], dict[str, str]]:
    """Start the peers on our champion's state; give those that run, and why others do not."""
    with Bound(pipeline, settings) as bound:
        champion = bound.registry.champion()
        assert champion is not None  # the toy was published
        estimator = settings.root / "estimator.pickle"
        estimator.write_bytes(bound.registry.store.verified_files(champion).state)  # River's pickle
    found, missing = [], {}
    for peer in peers:
        say(f"  starting {peer.name}")
        try:
            server = stack.enter_context(peer_server(peer, estimator, settings.root / peer.name))
        except (NotInstalledError, TimeoutError) as error:
            missing[peer.name] = str(error)
            continue
        bodies = [msgspec.json.encode(peer.body(row)) for row in rows]
        found.append(_Served(peer, server, bodies, []))
    return found, missing


def _differ(ours: str, served: _Served, probes: list[Features]) -> int:
    """Count the probes to which a peer answers another probability than we do."""
    theirs = f"http://127.0.0.1:{served.server.port}{served.peer.path}"
    count = 0
    for row in probes:
        wanted = _ask(f"{ours}/predict", {"features": row})["output"]
        found = served.peer.read(_ask(theirs, served.peer.body(row)))
        count += abs(found - wanted) > _LEAST
    return count


def _ask(address: str, body: object) -> Any:
    return httpx.post(address, json=body, timeout=60).raise_for_status().json()


def _told(ours_us: list[float], served: list[_Served]) -> str:
    if not ours_us:
        return "warm"
    theirs = ", ".join(f"{one.peer.name} {one.cost_us[-1]:.0f}" for one in served)
    return f"we {ours_us[-1]:.0f} us, {theirs}"
