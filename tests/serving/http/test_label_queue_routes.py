"""The label queue over HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
import pytest
from msgspec.structs import replace
from tests.loop.conftest import PIPELINE
from tests.patience import await_
from tests.serving.conftest import NOW, Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.queue_filler import QueueFiller
from headwater.spec.serving.queue import People

ASKING = replace(PIPELINE, people=People(twice=1.0, random=0.5))
IDS = [f"p{n}" for n in range(6)]


@pytest.fixture
def service(keeper: Keeper, bound: Bound, open_service: Opener) -> httpx.Client:
    """Open a service that has made and sequenced six predictions."""
    client = open_service(ASKING)
    items = [{"id": id_, "features": {"a": n - 3.0, "b": 0.5}} for n, id_ in enumerate(IDS)]
    assert client.post("/predict", json={"predictions": items}).status_code == 200
    sequence(bound)
    fill(bound)
    return client


def sequence(bound: Bound) -> None:
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


def fill(bound: Bound) -> None:
    """Fill the queue of the pipeline that asks, as the keeper of its service does."""
    with Bound(ASKING, bound.settings, bound.clock) as asking:
        QueueFiller([asking]).step()


def claim(client: httpx.Client, person: str, many: int = 1) -> list[str]:
    answer = client.post("/queue/line/claim", json={"person": person, "many": many})
    assert answer.status_code == 200, answer.text
    return [question["prediction_id"] for question in answer.json()["questions"]]


def test_claim_answer_skip_and_count(service: httpx.Client, bound: Bound) -> None:
    claimed = service.post("/queue/line/claim", json={"person": "ada", "many": 10, "lease_s": 60}).json()
    questions = claimed["questions"]
    assert sorted(question["prediction_id"] for question in questions) == IDS
    first = questions[0]
    assert set(first) == {
        "prediction_id", "why", "until", "features", "entity", "served_at", "version", "predictions",
    }  # fmt: skip
    assert datetime.fromisoformat(first["until"]) == NOW + timedelta(seconds=60)
    assert (first["features"]["b"], first["version"]) == (0.5, "1")
    for person in ("ada", "bob"):
        for id_ in IDS[:4]:
            claim(service, person, 10)
            request = {
                "person": person,
                "prediction_id": id_,
                "value": id_ in IDS[:2] or person == "bob",
            }
            answer = service.post("/queue/line/answer", json=request)
            assert answer.json() == {"prediction_id": id_, "status": "recorded"}
            assert service.post("/queue/line/answer", json=request).json()["status"] == "known"
    skipped = service.post("/queue/line/skip", json={"person": "bob", "prediction_id": IDS[5]})
    assert skipped.json() == {"prediction_id": IDS[5], "status": "skipped"}
    state = service.get("/queue/line").json()
    assert state["open_random"] + state["open_uncertain"] == 4
    assert {name: state[name] for name in ("answered", "answers", "skips", "people", "behind")} == {
        "answered": 2, "answers": 8, "skips": 1, "people": 2, "behind": 0,
    }  # fmt: skip
    assert state["agreement"] == {"pairs": 4, "raw": 0.5, "kappa": 0.0, "mean_difference": None}
    before = bound.log.stop()
    sequence(bound)
    newest = dict(bound.log.examples(before).select("prediction_id", "label").rows())
    assert newest == dict.fromkeys(IDS[:4], True)
    labels = service.get(f"/predictions/{IDS[0]}").json()["labels"]
    assert [(one["label"]["source"], one["label"]["by"]) for one in labels] == [
        ("human", "ada"), ("human", "bob"),
    ]  # fmt: skip


def test_a_claim_before_the_queue_is_filled_says_so(
    service: httpx.Client, bound: Bound, home: Settings, clock: SimulatedClock
) -> None:
    assert len(claim(service, "ada", 10)) == 6
    assert service.get("/queue/line/classes").json() == [
        {"value": False, "text": "false"}, {"value": True, "text": "true"},
    ]  # fmt: skip
    assert service.post("/predict", json={"features": {"a": 9.0, "b": 9.0}}).status_code == 200
    assert len(claim(service, "bob", 10)) == 6
    sequence(bound)
    answer = service.post("/queue/line/claim", json={"person": "cleo"})
    assert (answer.status_code, answer.json()["code"]) == (503, "NotReadyError")
    assert "1 sequenced records wait" in answer.json()["detail"]
    with Bound(ASKING, home, clock) as asking, QueueFiller([asking]):
        await_(lambda: service.get("/queue/line").json()["behind"] == 0)
    assert len(claim(service, "cleo", 10)) == 1


def test_the_filler_asks_about_what_was_served_without_a_collect(
    keeper: Keeper, bound: Bound, open_service: Opener
) -> None:
    client = open_service(ASKING)
    client.post("/predict", json={"id": "new", "features": {"a": 9.0, "b": 9.0}})
    assert bound.log.unsequenced() == 1
    fill(bound)
    assert bound.log.unsequenced() == 0
    assert claim(client, "ada", 10) == ["new"]


def test_a_natural_label_closes_the_question(service: httpx.Client) -> None:
    (id_,) = claim(service, "ada")
    service.post("/labels", json={"prediction_id": id_, "value": True})
    answer = service.post(
        "/queue/line/answer", json={"person": "ada", "prediction_id": id_, "value": False}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "ConflictError")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "came from elsewhere" in answer.json()["detail"]


def test_a_question_whose_lease_ended_goes_to_another_person(
    service: httpx.Client, clock: SimulatedClock
) -> None:
    for person in ("ada", "bob"):
        assert sorted(claim(service, person, 10)) == IDS
    assert claim(service, "cleo", 10) == []
    clock.advance_to(clock.now() + timedelta(minutes=16))
    assert sorted(claim(service, "cleo", 10)) == IDS


JSON = {"content-type": "application/json"}
ONE = {"person": "ada", "prediction_id": "p0"}
BAD = [
    ("claim", {}, 422, "person"),
    ("claim", {"person": "ada", "many": 0}, 422, "many"),
    ("claim", {"person": "ada", "many": 101}, 422, "many"),
    ("claim", {"person": "ada", "many": "5"}, 422, "many"),
    ("claim", {"person": "ada", "many": True}, 422, "many"),
    ("claim", {"person": "ada", "lease_s": 86_401}, 422, "lease_s"),
    ("claim", {"person": "a#b"}, 422, "person"),
    ("claim", {"person": "\ud800"}, 422, ""),
    ("claim", {"person": "x" * 101}, 422, "person"),
    ("claim", {"person": "ada", "more": 1}, 422, "more"),
    ("claim", {"person": "ada", "\ud800": 1}, 422, ""),
    ("claim", [], 422, ""),
    ("answer", ONE, 422, "value"),
    ("answer", {**ONE, "value": None}, 422, "value"),
    ("answer", {**ONE, "value": [1]}, 422, "value"),
    ("answer", {**ONE, "value": 7}, 422, "label"),
    ("answer", {**ONE, "value": "yes"}, 422, "label"),
    ("answer", {**ONE, "value": True, "person": ""}, 422, "person"),
    ("answer", {**ONE, "value": True, "prediction_id": "a\0b"}, 422, "prediction_id"),
    ("answer", {**ONE, "value": True, "prediction_id": "\udc00"}, 422, ""),
    ("answer", {**ONE, "value": True, "prediction_id": "none"}, 404, "none"),
    ("answer", {**ONE, "value": True}, 409, "has not claimed"),
    ("skip", {**ONE, "prediction_id": "none"}, 404, "none"),
    ("skip", ONE, 409, "has not claimed"),
    ("skip", {"person": "ada"}, 422, "prediction_id"),
]


@pytest.fixture
def filled(service: httpx.Client) -> httpx.Client:
    claim(service, "zoe")
    return service


def test_an_invalid_request_is_a_problem(filled: httpx.Client) -> None:
    for act, body, status, words in BAD:
        sent = json.dumps(body).encode()  # which writes a lone surrogate, as others do
        answer = filled.post(f"/queue/line/{act}", content=sent, headers=JSON)
        assert answer.status_code == status, (act, body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]
        assert answer.json()["hint"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b"[" * 15_000, 422),
        (b'{"person": "ada", "many": ' + b"9" * 5_000 + b"}", 422),
        (b'{"person": "ada", "many": NaN}', 422),
        (b'{"person": "ada", "many": 1e999}', 422),
        (b'{"person": "' + b"x" * 30_000 + b'"}', 413),
    ],
    ids=range(8),
)
def test_an_unreadable_body_is_a_problem(filled: httpx.Client, body: bytes, status: int) -> None:
    answer = filled.post("/queue/line/claim", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_pipeline_without_people_has_no_queue(client: httpx.Client) -> None:
    for name, words in (("line", "has no label queue"), ("other", "'other'")):
        answer = client.get(f"/queue/{name}")
        assert (answer.status_code, words in answer.json()["detail"]) == (404, True)


def test_the_openapi_document_describes_the_queue(service: httpx.Client) -> None:
    document = service.get("/openapi.json").json()
    operation = document["paths"]["/queue/{pipeline}/claim"]["post"]
    assert set(operation["responses"]) >= {"200", "404", "409", "413", "422", "503"}
    assert operation["responses"]["422"]["content"].keys() == {"application/problem+json"}
    assert "Problem" in document["components"]["schemas"]


def test_two_services_over_one_home_share_the_queue(
    service: httpx.Client, open_service: Callable[..., httpx.Client]
) -> None:
    other = open_service(ASKING)
    first, second, third = claim(service, "ada", 6), claim(other, "bob", 6), claim(other, "cleo", 6)
    assert sorted(first) == sorted(second) == IDS
    assert third == []


def test_a_worker_opens_no_database_to_predict() -> None:
    code = (
        "import sys, headwater.serving.process.app\n"
        "print([n for n in ('sqlalchemy', 'alembic', 'sklearn') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
