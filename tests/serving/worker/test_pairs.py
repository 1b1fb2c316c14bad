"""A declaration is rolled out that its champion cannot answer: the pair that fits serves."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from tests.loop import models
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.catch_up import check_served
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.pairing import pairing_of
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.spec.data.feature import Feature, bare
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import ChangedError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.serving import Serving

Eventually = Callable[[Callable[[], bool]], None]
A, B, C = Feature("a", float), Feature("b", float), Feature("c", str, nullable=True)
SLIM = replace(PIPELINE, features=(A,))
BOTH, ALONE = {"a": 1.0, "b": 0.5}, {"a": 1.0}


@pytest.fixture
def rolled_out(
    home: Settings, clock: SimulatedClock, open_service: Opener
) -> Iterator[Callable[[Pipeline], tuple[Bound, Keeper, httpx.Client]]]:
    """Start a service of a declaration, as ``headwater serve`` does: its keeper, then a worker."""
    with ExitStack() as stack:

        def start(declared: Pipeline) -> tuple[Bound, Keeper, httpx.Client]:
            bound = stack.enter_context(Bound(declared, home, clock))
            check_served(bound)
            keeper = stack.enter_context(Keeper(bound))
            keeper.step()
            return bound, keeper, open_service(declared)

        yield start


def ask(client: httpx.Client, features: dict[str, Any], **more: Any) -> httpx.Response:
    return client.post("/predict", json={"features": features, **more})


def shown(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/pipelines/line").json()
    return found


def alarms(client: httpx.Client, kind: str = "declaration") -> list[dict[str, Any]]:
    client.get("/metrics")  # which notes the faults of now
    return [one for one in shown(client)["alarms"] if one["kind"] == kind]


def train_anew(bound: Bound) -> str:
    """Begin a new line, as ``headwater train --fresh`` does; return its version's number."""
    assert train(bound, from_scratch=True).promoted
    champion = bound.registry.champion()
    assert champion is not None
    return champion.number


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ((A,), "feature 'b' was float, is gone"),
        ((A, Feature("b", str)), "feature 'b' was float, is str"),
        ((A, B, Feature("n", int)), "feature 'n' was not there, is int, never null"),
    ],
    ids=["gone", "retyped", "added"],
)
def test_the_champion_answers_by_its_own_declaration(
    rolled_out: Any, features: tuple[Any, ...], named: str
) -> None:
    bound, _, client = rolled_out(replace(PIPELINE, features=features))
    answer = ask(client, BOTH, id="p-1")
    assert (answer.status_code, answer.json()["version"]) == (200, "1")
    for other in ({"a": 1.0}, {"a": 1.0, "b": "x"}, {**BOTH, "n": 1}):
        assert ask(client, other).status_code == 422
    assert client.get("/predictions/p-1").json()["prediction"]["features"] == BOTH
    inputs = client.get("/v2/models/line").json()["inputs"]
    assert {one["name"]: one["datatype"] for one in inputs} == {"a": "FP64", "b": "FP64"}
    tensors = [{"name": n, "shape": [1], "datatype": "FP64", "data": [1.0]} for n in ("a", "b")]
    assert client.post("/v2/models/line/infer", json={"inputs": tensors}).json()["model_version"] == "1"
    ready = client.get("/v2/models/line/ready")
    assert (ready.status_code, ready.json()["ready_as_declared"]) == (200, False)
    (alarm,) = alarms(client)
    assert named in alarm["what"]
    assert "headwater plan PIPELINE" in alarm["hint"]
    found = shown(client)
    assert found["declared"]["features"] == {one.name: one.dtype for one in features}
    assert found["serves"]["features"] == found["serves"]["requests"] == {"a": "float", "b": "float"}
    assert (found["serves"]["version"], found["serves"]["as_declared"]) == ("1", False)
    assert client.get("/pipelines").json()[0]["serves"] == found["serves"]
    assert bound.declarations.in_force() is not None  # the audit has its start
    published = PublishedModels(bound.pipeline, bound.settings).read()
    assert published is not None
    assert published.states[0].probes  # records of before suffice to try a state


@pytest.mark.parametrize("isolated", [False, True])
def test_the_first_version_of_the_declaration_brings_it_and_a_rollback_takes_it_back(
    rolled_out: Any, eventually: Eventually, *, isolated: bool
) -> None:
    declared = replace(SLIM, serving=Serving(isolated=isolated))
    bound, keeper, client = rolled_out(declared)
    assert ask(client, BOTH, id="old").json()["version"] == "1"
    client.post("/labels", json={"prediction_id": "old", "value": True})
    assert train_anew(bound) == "2"
    keeper.step()
    eventually(lambda: shown(client)["version"] == "2")
    assert ask(client, ALONE, id="new").json()["version"] == "2"
    assert "unknown field `b`" in ask(client, BOTH).text
    assert alarms(client) == []
    assert client.get("/v2/models/line/ready").json()["ready_as_declared"]
    assert shown(client)["serves"]["as_declared"]
    bound.registry.promote("1", by="test", reason="back")
    keeper.step()
    eventually(lambda: shown(client)["version"] == "1")
    assert ask(client, BOTH).json()["version"] == "1"
    assert ask(client, ALONE).status_code == 422
    assert len(alarms(client)) == 1
    collect(bound.log)  # both kinds of records are read by what is declared
    rows = {row["prediction_id"]: row["features"] for row in bound.log.predictions().to_dicts()}
    assert (rows["old"], rows["new"]) == ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": None})
    stop = bound.log.positions()
    learned = bound.log.served(0, stop, ("prediction_id", "features")).to_dicts()
    assert all(
        row["features"] == {"a": 1.0} for row in learned if row["prediction_id"] in ("old", "new")
    )


def test_records_of_a_pair_are_sequenced_whatever_else_was_edited(rolled_out: Any) -> None:
    bound, _, client = rolled_out(replace(SLIM, label=LabelRule(wait="3d")))
    assert ask(client, BOTH, id="old").status_code == 200
    client.post("/labels", json={"prediction_id": "old", "value": True})
    stop = bound.log.stop()
    bound.log.agree(fresh=True)
    assert collect(bound.log).emitted == 1
    features = bound.log.examples(stop)["features"].to_list()
    assert features == [BOTH]


def test_each_request_is_decoded_predicted_and_recorded_by_one_pair(
    rolled_out: Any, eventually: Eventually
) -> None:
    patient = replace(SLIM, serving=Serving(deadline="60s"))  # other work may hold the model up
    bound, keeper, client = rolled_out(patient)
    train_anew(bound)
    by, ends = {"1": BOTH, "2": ALONE}, threading.Event()
    wrong: list[object] = []
    answered: list[tuple[str, str]] = []

    def send(features: dict[str, float]) -> None:
        while not ends.is_set():
            answer = client.post("/predict", json={"predictions": [{"features": features}] * 50})
            if answer.status_code == 200:
                found = answer.json()["predictions"]
                wrong.extend(one for one in found if by[one["version"]] != features)
                answered.extend((one["id"], one["version"]) for one in found)
            elif answer.status_code != 422:
                wrong.append(answer.text)

    senders = [threading.Thread(target=send, args=(features,)) for features in (BOTH, ALONE)]
    for sender in senders:
        sender.start()
    for version in ("2", "1", "2", "1"):
        bound.registry.promote(version, by="test", reason="in turns")
        keeper.step()
        eventually(lambda version=version: shown(client)["version"] == version)  # type: ignore[misc] # now
    ends.set()
    for sender in senders:
        sender.join()
    assert wrong == []
    for id_, version in answered[:: max(1, len(answered) // 40)]:
        record = client.get(f"/predictions/{id_}").json()["prediction"]
        assert (record["version"], record["features"]) == (version, by[version])


def test_an_old_service_goes_on_beside_a_new_one_and_both_say_so(
    rolled_out: Any, open_service: Opener, home: Settings, eventually: Eventually
) -> None:
    old, old_keeper, old_client = rolled_out(PIPELINE)
    new, new_keeper, new_client = rolled_out(SLIM)
    assert alarms(old_client) == []
    train_anew(new)
    live, numbers = PublishedModels(PIPELINE, home), []
    for _ in range(4):
        old_keeper.step()
        new_keeper.step()
        found = live.read()
        assert found is not None
        numbers.append((found.number, found.states[0].version))
    assert numbers[0][1] == "2"
    assert len(set(numbers)) == 1  # neither publishes what the other one has
    eventually(lambda: shown(new_client)["version"] == "2")
    eventually(lambda: len(alarms(old_client)) == 1)
    restarted = open_service(PIPELINE)
    for client in (old_client, restarted):
        assert ask(client, BOTH).json()["version"] == "1"
        (alarm,) = alarms(client)
        assert "version 2, the champion, is of another declaration" in alarm["what"]
        assert "version 1 answers on" in alarm["what"]
        assert client.get("/v2/models/line/ready").json() == {
            "name": "line",
            "ready": True,
            "ready_as_declared": False,
        }
    assert ask(new_client, ALONE).json()["version"] == "2"
    old.registry.promote("1", by="test", reason="back")
    for keeper in (old_keeper, new_keeper):
        keeper.step()
    eventually(lambda: shown(new_client)["version"] == "1")
    assert ask(new_client, BOTH).status_code == 200
    eventually(lambda: alarms(old_client) == [])


def test_the_files_of_an_earlier_champion_stay(rolled_out: Any, home: Settings) -> None:
    rolled_out(PIPELINE)
    new, keeper, _ = rolled_out(SLIM)
    train_anew(new)
    keeper.step()
    live = PublishedModels(PIPELINE, home)
    serving = live.read()
    assert serving is not None
    (first,) = serving.earlier
    for number in range(6):
        live.put(b"state", b"recipe", b"proof %d" % number)
    live.publish(serving)
    assert first.version == "1"
    assert len(list(live.folder.glob(f"{first.name}.*"))) == 3


def test_a_keeper_that_has_not_seen_a_reign_yet_leaves_what_the_other_one_published(
    rolled_out: Any, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, slow, _ = rolled_out(PIPELINE)
    new, quick, _ = rolled_out(SLIM)
    train_anew(new)
    live = PublishedModels(PIPELINE, home)
    quick.step()
    with monkeypatch.context() as away:
        away.setattr(slow._follower, "follow", lambda: False)
        slow.step()
    found = live.read()
    assert found is not None
    assert found.states[0].version == "2"


def test_with_each_label_learning_rests_until_there_is_a_version_and_goes_on_then(
    rolled_out: Any, eventually: Eventually, clock: SimulatedClock
) -> None:
    each = replace(SLIM, learn="each label", batch_rows=10, gate=None)
    bound, keeper, client = rolled_out(each)
    assert ask(client, BOTH, id="p-1").json()["version"] == "1"
    client.post("/labels", json={"prediction_id": "p-1", "value": True})
    keeper.step()
    (alarm,) = alarms(client, "learning")
    assert "learning stands still" in alarm["what"]
    assert "feature 'b' was float, is gone" in alarm["what"]
    assert shown(client)["learning"]["learned_to"] == 200
    assert train_anew(bound) == "2"
    for _ in range(3):
        keeper.step()
    eventually(lambda: int(shown(client)["version"]) >= 2)
    assert alarms(client, "learning") == alarms(client) == []
    items = [{"id": f"n{row}", "features": {"a": float(row % 3 - 1)}} for row in range(20)]
    assert client.post("/predict", json={"predictions": items}).status_code == 200
    for item in items:
        client.post("/labels", json={"prediction_id": item["id"], "value": True})
    before = shown(client)["learning"]["learned_to"]
    clock.advance_to(clock.now() + timedelta(minutes=1))
    keeper.step()
    eventually(lambda: shown(client)["learning"]["learned_to"] >= before + 20)
    bound.registry.promote("1", by="test", reason="back")
    keeper.step()
    eventually(lambda: shown(client)["version"] == "1")
    assert ask(client, BOTH).status_code == 200
    assert len(alarms(client, "learning")) == 1


def test_another_task_is_refused_at_start(home: Settings, clock: SimulatedClock) -> None:
    regression = replace(PIPELINE, task="regression", model=models.linear)
    with (
        Bound(regression, home, clock) as bound,
        pytest.raises(ChangedError, match="task was 'binary'"),
    ):
        check_served(bound)


def test_a_range_holds_for_a_feature_that_both_declare(rolled_out: Any) -> None:
    _, _, client = rolled_out(replace(PIPELINE, features=(Feature("a", float, low=0.0),)))
    assert ask(client, BOTH).status_code == 200
    assert ask(client, {**BOTH, "a": -1.0}).status_code == 422


def state(version: str, *features: Any) -> ServedState:
    return ServedState(
        version=version,
        role="champion",
        name=version,
        learned_to=0,
        features=tuple(map(bare, features)),
    )


TEXT_B = Feature("b", str, nullable=True)


@pytest.mark.parametrize(
    ("declared", "champion", "earlier", "recorded", "version", "names"),
    [
        ((A, B), ("1", A, B), (), (), "1", "a b"),  # equal
        ((A, B, C), ("1", A, B), (), (), "1", "a b c"),  # nullable, and so not needed
        ((B, A), ("1", A, B), (), (), "1", "b a"),  # it takes them by name
        ((A,), ("1", A, B), (), (), "1", "a b"),  # not learned yet
        ((A,), ("1", A, B), (("2", A),), (), "1", "a b"),  # rolled back
        ((A, B), ("2", A), (("1", A, B),), (), "1", "a b"),  # an old service
        ((A, B), ("3", A), (("2", A, C), ("1", A, B)), (), "1", "a b"),
        ((A, B), ("2", A), (), (), "2", "a"),  # an old service that never had a version
        ((A, TEXT_B), ("1", A), (), (), "1", "a b"),
        ((A, TEXT_B), ("1", A), (), (A, B), "1", "a"),  # the log has it with another type
        ((A, B), ("1",), (), (), "1", "a b"),  # a file of before
    ],
)
def test_the_pair_of_a_publication(
    declared: tuple[Any, ...],
    champion: tuple[Any, ...],
    earlier: tuple[Any, ...],
    recorded: tuple[Any, ...],
    version: str,
    names: str,
) -> None:
    pipeline = replace(PIPELINE, features=declared)
    serving = ServingFile(
        number=1,
        epoch=1,
        states=(state(*champion),),
        earlier=tuple(state(*one) for one in earlier),
        recorded=tuple(map(bare, recorded)),
    )
    chosen = pairing_of(pipeline, serving)
    assert chosen.serving.states[0].version == version
    assert " ".join(chosen.pipeline.feature_names) == names
    pair = version == champion[0] and chosen.pipeline == pipeline
    assert (chosen.misfit is None) == pair


def test_a_worker_keeps_the_version_that_it_serves_where_no_earlier_one_is_published() -> None:
    serving = ServingFile(number=1, epoch=1, states=(state("2", A),))
    assert pairing_of(PIPELINE, serving, state("1", A, B)).serving.states[0].version == "1"
    assert pairing_of(PIPELINE, serving, state("3", A, B)).serving.states[0].version == "2"
