"""Models that misbehave, in a process of their own and on the loop, cost their own requests."""

import asyncio
import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest
from benchmarks.bad_models import HARM
from benchmarks.service.bad_pipelines import first, publish, second, third
from msgspec.structs import replace
from tests.patience import await_
from tests.serving.conftest import Opener
from tests.serving.metrics.test_metrics import totals
from tests.serving.running import running

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.isolation.isolated_versions import forget_isolated
from headwater.serving.isolation.model_process import Row
from headwater.serving.keeper.trials import try_state
from headwater.serving.process.app import create_app
from headwater.serving.published.published_models import Probe, PublishedModels
from headwater.serving.worker.isolated_models import IsolatedModels
from headwater.spec.data.feature import Feature
from headwater.spec.errors import ModelError
from headwater.spec.serving.serving import Serving

ACTS = {name: float(place) for place, name in enumerate(HARM, 1)}
APART = replace(first, serving=Serving(isolated=True, deadline="2s", memory_mb=1_500))
ENDS = {"hangs", "exits", "crashes", "takes 5 s"}
ANSWERED = {"forks", "prints 10 MB", "takes 1 MB each", "takes 20 MB each", "takes 10 ms"}
ON_LOOP = {"takes 5 s": 1, "takes 10 ms": 27, "takes 1 MB each": 600, "takes 20 MB each": 80}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("bad") / "home")
    publish(settings)
    return settings


@pytest.fixture
def home(published: Settings) -> Iterator[Settings]:
    """The same home for all tests: each begins as a service does that starts."""
    forget_isolated(published)
    yield published
    forget_isolated(published)


def ask(client: httpx.Client, act: str = "", pipeline: str = "first") -> httpx.Response:
    features = {"act": ACTS.get(act, 0.0), "a": 1.0}
    return client.post("/predict", json={"pipeline": pipeline, "features": features})


def status(client: httpx.Client, pipeline: str = "first") -> dict[str, Any]:
    found: dict[str, Any] = {one["pipeline"]: one for one in client.get("/pipelines").json()}
    of_pipeline: dict[str, Any] = found[pipeline]
    return of_pipeline


def models_of(pid: int) -> list[psutil.Process]:
    """Return the processes of models that a process has started."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # it may just have ended
            if "headwater.serving.isolation.model_process" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("act", HARM)
def test_what_an_isolated_model_does_costs_its_own_request(
    act: str, home: Settings, open_service: Opener
) -> None:
    client = open_service(APART, third, home=home)
    assert status(client)["isolated"] == {"1": "it is declared so"}
    answer = ask(client, act)
    expected = 503 if act in ENDS else 200 if act in ANSWERED else 422
    assert answer.status_code == expected, answer.text
    assert ask(client, pipeline="third").status_code == 200
    if act in ENDS:
        assert answer.json()["code"] == "ModelError"
        assert "version 1 of 'first'" in answer.json()["detail"]
        (alarm,) = await_(lambda: status(client)["alarms"])
        assert (alarm["kind"], "version 1 of 'first'" in alarm["what"]) == ("model", True)
    else:
        assert status(client)["alarms"] == []
    assert await_(lambda: ask(client).status_code == 200)


def test_a_fork_of_an_isolated_model_answers_nothing(home: Settings, open_service: Opener) -> None:
    client = open_service(APART, home=home)
    answers = [ask(client, act).json()["output"] for act in ["forks", "", "forks", "", ""]]
    assert len(set(answers)) == 1


def test_a_process_without_memory_ends_and_starts_again(home: Settings, open_service: Opener) -> None:
    client = open_service(APART, third, home=home)
    refused = await_(
        lambda: next((r for r in [ask(client, "takes 20 MB each")] if r.status_code != 200), None)
    )
    assert (refused.status_code, refused.json()["code"]) == (503, "ModelError")
    assert "out of memory" in refused.json()["detail"]
    assert await_(lambda: ask(client).status_code == 200)


def test_a_process_that_ended_is_an_alarm_and_not_ready_until_it_answers_again(
    home: Settings, open_service: Opener
) -> None:
    client = open_service(APART, third, home=home)
    assert client.get("/v2/models/first/ready").status_code == 200
    ask(client, "exits")
    seen = client.get("/v2/models/first/ready")
    if seen.status_code != 200:  # it starts again by itself, and may have done so
        assert "ended with status 3" in seen.json()["error"]
    assert client.get("/v2/models/third/ready").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    assert await_(lambda: client.get("/v2/models/first/ready").status_code == 200)
    assert status(client)["alarms"]  # for a minute, or nobody sees it


@pytest.mark.parametrize("act", ON_LOOP)
def test_a_version_that_is_slow_or_takes_memory_leaves_the_loop(
    act: str, home: Settings, open_service: Opener
) -> None:
    client = open_service(second, third, home=home)
    assert status(client, "second")["isolated"] == {}
    for _ in range(ON_LOOP[act]):
        assert ask(client, act, "second").status_code == 200
        if status(client, "second")["isolated"]:
            break
    (reason,) = status(client, "second")["isolated"].values()
    assert ("MB of memory" if act == "takes 1 MB each" else "took") in reason
    assert ask(client, pipeline="second").status_code == 200
    assert status(client, "third")["isolated"] == {}
    other = open_service(second, third, home=home)
    assert status(other, "second")["isolated"] == {"1": reason}


def test_of_many_requests_the_first_stall_moves_the_others(home: Settings, open_service: Opener) -> None:
    client = open_service(replace(second, serving=Serving(deadline="2s")), third, home=home)
    rows = [{"features": {"act": ACTS["takes 5 s"], "a": 1.0}}] * 50
    answer = client.post("/predict", json={"pipeline": "second", "predictions": rows})
    assert (answer.status_code, answer.json()["code"]) == (503, "ModelError")  # not after 250 s
    assert ask(client, pipeline="third").status_code == 200


def test_what_a_model_raises_on_the_loop_is_refused(home: Settings, open_service: Opener) -> None:
    client, pid = open_service(second, third, home=home), os.getpid()
    for act in ("raises SystemExit", "raises"):
        answer = ask(client, act, "second")
        assert answer.status_code == 422
        assert "cannot answer them" in answer.json()["detail"]
    assert ask(client, "forks", "second").status_code == 200
    assert os.getpid() == pid
    assert ask(client, pipeline="third").status_code == 200


def test_an_isolated_version_answers_as_it_does_on_the_loop(
    home: Settings, open_service: Opener
) -> None:
    rows = [{"features": {"act": 0.0, "a": a / 10}} for a in range(200)]
    body = {"pipeline": "first", "predictions": rows}
    outputs = []
    for pipeline in (first, APART):
        answer = open_service(pipeline, home=home).post("/predict", json=body).json()
        outputs.append([one["output"] for one in answer["predictions"]])
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0])) == 200


def test_one_of_many_that_fails_is_named_by_its_place(home: Settings, open_service: Opener) -> None:
    client = open_service(APART, home=home)
    rows = [{"features": {"act": act, "a": 1.0}} for act in (0.0, ACTS["raises"])]
    answer = client.post("/predict", json={"predictions": rows})
    assert answer.status_code == 422
    assert "predictions[1].features: version 1 cannot answer them (ZeroDivisionError)" in answer.text


def test_the_process_ends_with_the_service(home: Settings) -> None:
    before = {one.pid for one in models_of(os.getpid())}
    with running(create_app((APART,), home)) as client:
        ask(client)
        (process,) = [one for one in models_of(os.getpid()) if one.pid not in before]
    assert await_(lambda: not process.is_running())


def test_a_request_of_a_version_that_serves_no_more_is_answered(home: Settings) -> None:
    """A swap forgets the versions before it, but not the requests that chose one of them."""
    live = PublishedModels(APART, home)
    serving = live.read()
    assert serving is not None
    row: Row = {"act": 0.0, "a": 1.0}

    patient = replace(APART, serving=Serving(isolated=True, deadline="1m"))  # it must not fail here

    async def asked_before_a_swap() -> list[object]:
        models = IsolatedModels(patient, home, live)
        asked = []
        for _ in range(2):  # what comes while the process begins waits for it
            asked.append(asyncio.create_task(models.predict(serving.states[0], [row])))
            await asyncio.sleep(0)
        models.keep(set())
        answers = await asyncio.gather(*asked)
        await models.close()
        return answers

    first_answer, waiting = asyncio.run(asked_before_a_swap())
    assert waiting == first_answer


@pytest.mark.parametrize("act", ["hangs", "exits", "crashes"])
def test_a_version_that_does_so_for_its_probes_never_serves(act: str, published: Settings) -> None:
    """The newest predictions are the probes: here one at which the model does harm."""
    with Bound(first, published) as bound:
        files = bound.registry.store.verified_files(bound.registry.store.get("1"))
    content = (files.state, files.recipe, files.proof)
    with pytest.raises(ModelError, match=r"version 1 (did not answer|failed)"):
        try_state("1", content, [{"act": ACTS[act], "a": 1.0}], APART.serving, published)
    trial = try_state("1", content, [{"act": 0.0, "a": 1.0}], APART.serving, published)
    assert (len(trial.probes), trial.isolated) == (1, "")


def test_slow_probes_isolate_a_version_before_it_serves(
    published: Settings, open_service: Opener
) -> None:
    with Bound(second, published) as bound:
        files = bound.registry.store.verified_files(bound.registry.store.get("1"))
    content = (files.state, files.recipe, files.proof)
    rows: list[Row] = [{"act": ACTS["takes 10 ms"], "a": 1.0}] * 3
    trial = try_state("1", content, rows, second.serving, published)
    assert "each of its probes took 1" in trial.isolated
    live = PublishedModels(second, published)
    serving = live.read()
    assert serving is not None
    slow = replace(serving.states[0], probes=trial.probes, isolated=trial.isolated)
    live.publish(replace(serving, states=(slow,)))
    client = open_service(second, home=published)
    assert status(client, "second")["isolated"] == {"1": trial.isolated}
    live.publish(serving)
    assert await_(lambda: status(client, "second")["isolated"] == {})


def test_an_isolated_state_that_fails_its_probes_never_serves(
    published: Settings, open_service: Opener
) -> None:
    """Not at the second try, either, when the process has it already."""
    live = PublishedModels(APART, published)
    serving = live.read()
    assert serving is not None
    wrong = replace(serving.states[0], probes=(Probe({"act": 0.0, "a": 1.0}, 0.123),))
    live.publish(replace(serving, states=(wrong,)))
    try:
        client = open_service(APART, home=published)
        for tries in (1, 2):
            await_(lambda tries=tries: totals(client)["headwater_swap_failures_total first"] == tries)
            assert "for a probe" in status(client)["swap_failure"]
            assert ask(client).json()["code"] == "NotReadyError"
            live.publish(replace(serving, states=(wrong,)))
    finally:
        live.publish(serving)
    assert await_(lambda: ask(client).status_code == 200)


def test_an_isolated_state_of_other_features_answers_by_those(
    published: Settings, open_service: Opener
) -> None:
    other = replace(APART, features=(*APART.features, Feature("b", float)))
    client = open_service(other, home=published)
    body = {"features": {"act": 0.0, "a": 1.0, "b": 1.0}}
    assert "unknown field `b`" in client.post("/predict", json=body).text
    assert ask(client).status_code == 200
    assert status(client)["swap_failure"] is None


def test_a_disk_that_refuses_keeps_no_version_on_the_loop(
    home: Settings, open_service: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_service(second, third, home=home)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("headwater.serving.isolation.isolated_versions.replacing", refuse)
    assert ask(client, "takes 5 s", "second").status_code == 200
    began_s = time.monotonic()
    assert ask(client, pipeline="third").status_code == 200
    assert ask(client, "takes 5 s", "second").status_code == 200
    assert time.monotonic() - began_s >= 5  # the second is answered, by its process
    assert len(models_of(os.getpid())) >= 1


def test_a_trial_that_earlier_ones_left_no_memory_is_made_again(published: Settings) -> None:
    with Bound(first, published) as bound:
        files = bound.registry.store.verified_files(bound.registry.store.get("1"))
    content = (files.state, files.recipe, files.proof)
    rows: list[Row] = [{"act": 0.0, "a": 1.0}]
    hungry: list[Row] = [{"act": ACTS["takes 20 MB each"], "a": 1.0}] * 20
    for _ in range(6):  # 400 MB each, of 1,500
        assert try_state("1", content, hungry, APART.serving, published).probes
    assert try_state("1", content, rows, APART.serving, published).probes
