import re
from datetime import timedelta

import httpx
import pytest
from msgspec.structs import replace
from tests.conftest import START
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import Opener
from tests.serving.running import running

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app
from headwater.spec.data.feature import Feature
from headwater.spec.serving.serving import Serving

ONE = {"id": "one", "features": {"a": 1.0, "b": 2.0}}


def test_the_answer_is_the_champions_and_is_logged(client: httpx.Client, bound: Bound) -> None:
    answer = client.post("/predict", json={"pipeline": "line", **ONE}).json()
    champion = bound.registry.champion()
    assert champion is not None
    learner = bound.registry.store.learner(champion)
    expected = learner.predict_one({"a": 1.0, "b": 2.0})
    assert answer == {
        "id": "one",
        "output": expected,
        "version": "1",
        "role": "champion",
        "probabilities": {"false": 1 - expected, "true": expected},
    }
    with bound.log.sequencer() as sequencer:
        sequencer.drain()
    (logged,) = bound.log.predictions().filter(prediction_id="one").to_dicts()
    assert logged["features"] == {"a": 1.0, "b": 2.0}
    assert (logged["output"], logged["version"], logged["role"]) == (expected, "1", "champion")
    assert logged["served_at"] == START + timedelta(days=2)


def test_many_are_answered_in_their_order(client: httpx.Client) -> None:
    items = [{"id": f"p{n}", "features": {"a": float(n), "b": 0.0}} for n in range(5)]
    answers = client.post("/predict", json={"predictions": items}).json()["predictions"]
    assert [answer["id"] for answer in answers] == [item["id"] for item in items]
    alone = [client.post("/predict", json={"features": i["features"]}).json() for i in items]
    assert [a["output"] for a in answers] == [a["output"] for a in alone]


def test_an_id_is_made_if_none_is_sent(client: httpx.Client) -> None:
    ids = [client.post("/predict", json={"features": {"a": 1, "b": 1}}).json()["id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i)
        for i in ids
    )


def test_the_same_request_again_gets_the_same_answer(
    client: httpx.Client, bound: Bound, keeper: Keeper
) -> None:
    first = client.post("/predict", json=ONE)
    assert client.post("/predict", json=ONE).json() == first.json()
    found = client.get("/predictions/one").json()
    assert found["prediction"]["output"] == first.json()["output"]
    assert found["labels"] == []


def test_the_same_id_with_other_features_is_a_conflict(client: httpx.Client) -> None:
    client.post("/predict", json=ONE)
    answer = client.post("/predict", json={"id": "one", "features": {"a": 1.0, "b": 3.0}})
    assert (answer.status_code, answer.json()["code"]) == (409, "ConflictError")
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/predictions/one").json()["prediction"]["features"]["b"] == 2.0


def test_the_same_id_twice_in_one_request_is_one_prediction(client: httpx.Client) -> None:
    answers = client.post("/predict", json={"predictions": [ONE, ONE]}).json()["predictions"]
    assert answers[0] == answers[1]


BAD = [
    (b"", 422, "JSON"),
    (b"{", 422, "JSON"),
    (b"[1]", 422, "array"),
    (b'{"features": {"a": 1.0}}', 422, "b"),
    (b'{"features": {"a": 1.0, "b": "x"}}', 422, "features.b"),
    (b'{"features": {"a": 1.0, "b": null}}', 422, "features.b"),
    (b'{"features": {"a": 1.0, "b": 2.0, "c": 3.0}}', 422, "c"),
    (b'{"features": {"a": 1.0, "b": NaN}}', 422, '"b": NaN'),
    (rb'{"features": {"a": "x\ud83d", "b": 1.0}}', 422, "u" + "d83d"),
    (b'{"features": {"a": 1.0, "b": 1e999}}', 422, "b"),
    (b'{"features": {"a": 1.0, "b": ' + b"9" * 400 + b"}}", 422, "b"),
    (b'{"features": [1]}', 422, "features"),
    (b'{"features": {"a": 1, "b": 1}, "id": ""}', 422, "id"),
    (b'{"features": {"a": 1, "b": 1}, "id": 5}', 422, "id"),
    (b'{"features": {"a": 1, "b": 1}, "more": 5}', 422, "more"),
    (b'{"features": {"a": 1, "b": 1}, "entity": {"k": 1}}', 422, "entity"),
    (b'{"features": {"a": 1, "b": 1}, "predictions": []}', 422, "predictions"),
    (b'{"id": "x"}', 422, "features"),
    (b'{"pipeline": "other", "features": {"a": 1, "b": 1}}', 404, "other"),
    (
        b'{"predictions": [{"features": {"a": 1, "b": 1}}, {"features": {"a": 1}}]}',
        422,
        "predictions[1]",
    ),
    (b"[" * 100_000, 422, ""),
    (b'{"features": ' + b'{"a":' * 50_000, 422, ""),
    (b"\xff\xfe", 422, "JSON"),
    (b'{"id": "' + b"x" * 2_100_000 + b'"}', 413, "bytes"),
]


@pytest.mark.parametrize(("body", "status", "named"), BAD, ids=range(len(BAD)))
def test_an_invalid_request_is_refused_and_never_logged(
    client: httpx.Client, bound: Bound, body: bytes, status: int, named: str
) -> None:
    before = bound.log.counts().unsequenced
    answer = client.post("/predict", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]
    assert bound.log.counts().unsequenced == before


def test_without_a_version_the_error_names_the_next_step(open_service: Opener) -> None:
    client = open_service()
    answer = client.post("/predict", json=ONE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "headwater train" in answer.json()["hint"]
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 503


def test_batch_durability_states_its_window(
    keeper: Keeper, home: Settings, open_service: Opener
) -> None:
    batch = replace(PIPELINE, serving=Serving(durability="batch", window_ms=5))
    with running(create_app([batch], home)) as client:
        assert client.post("/predict", json=ONE).json()["loss_window_ms"] == 5
    found = open_service().get("/predictions/one").json()
    assert found["prediction"]["id"] == "one"


RANGED = replace(
    PIPELINE,
    features=(Feature("a", float, low=0, high=10), Feature("b", float, nullable=True, high=2.5)),
)


def test_a_value_outside_its_range_is_refused_and_never_logged(
    keeper: Keeper, open_service: Opener, bound: Bound
) -> None:
    client, before = open_service(RANGED), bound.log.counts().unsequenced
    for features, words in (
        ({"a": -1.0, "b": 2.0}, "features.a: expected `float` >= 0"),
        ({"a": 11, "b": 2.0}, "features.a: expected `float` <= 10"),
        ({"a": 1.0, "b": 2.6}, "features.b: expected `float` <= 2.5"),
    ):
        answer = client.post("/predict", json={"features": features})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(words)
        assert "/docs" in answer.json()["hint"]
    many = [{"features": {"a": 1.0, "b": 2.0}}, {"features": {"a": -1.0, "b": 2.0}}]
    refused = client.post("/predict", json={"predictions": many}).json()["detail"]
    assert refused.startswith("predictions[1].features.a")
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
        for name, value in (("a", 10.5), ("b", 1.0))
    ]
    answer = client.post("/v2/models/line/infer", json={"inputs": tensors})
    assert (answer.status_code, "features.a" in answer.json()["error"]) == (422, True)
    assert bound.log.counts().unsequenced == before
    assert client.post("/predict", json=ONE).status_code == 200


def test_the_openapi_document_describes_each_feature(open_service: Opener) -> None:
    colour = Feature("colour", str, categories=("red", "green"))
    client = open_service(replace(RANGED, features=(*RANGED.features, colour)))
    document = client.get("/openapi.json").json()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    one = body["schema"]["oneOf"][0]["properties"]["features"]["properties"]
    assert (one["a"]["minimum"], one["a"]["maximum"]) == (0, 10)
    assert one["b"]["anyOf"][0]["maximum"] == 2.5
    assert one["colour"]["enum"] == ["red", "green"]
    example = body["examples"]["line"]["value"]["features"]
    assert example == {"a": 0, "b": 2.5, "colour": "red"}


@pytest.mark.parametrize(
    "features", [b'{"a":1.0,"\xff":0.0}', b'{"a":1.0,"b":"\xff"}'], ids=["a name", "a value"]
)
@pytest.mark.parametrize("many", [False, True])
def test_features_that_are_not_utf8_are_refused(
    client: httpx.Client, features: bytes, many: bool
) -> None:
    item = b'{"features":' + features + b"}"
    body = b'{"predictions":[' + item + b"]}" if many else item
    answer = client.post("/predict", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "SchemaError")


def test_one_label_that_is_not_utf8_is_refused_alone(client: httpx.Client) -> None:
    assert client.post("/predict", json={"id": "p", "features": {"a": 1, "b": 0}}).status_code == 200
    bad = b'{"prediction_id":"\xff","value":true}'
    body = b'{"labels":[{"prediction_id":"p","value":true},' + bad + b"]}"
    answer = client.post("/labels", content=body)
    assert [one["status"] for one in answer.json()["labels"]] == ["recorded", "refused"]


def test_the_idempotency_key_is_the_id_of_predictions_that_have_none(client: httpx.Client) -> None:
    features = {"a": 1.0, "b": 2.0}
    header = {"Idempotency-Key": "order 17"}
    first = client.post("/predict", json={"features": features}, headers=header).json()
    assert first["id"] == "order 17"
    assert client.post("/predict", json={"features": features}, headers=header).json() == first
    other = client.post("/predict", json={"features": {**features, "a": 3.0}}, headers=header)
    assert other.status_code == 409
    assert client.post("/predict", json=ONE, headers=header).json()["id"] == "one"
    many = {"predictions": [{"features": features}, {**ONE, "id": "own"}, {"features": features}]}
    answer = client.post("/predict", json=many, headers={"Idempotency-Key": "m"}).json()
    assert [one["id"] for one in answer["predictions"]] == ["m/0", "own", "m/2"]
    for bad in ({"Idempotency-Key": "k" * 191}, [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]):
        refused = client.post("/predict", json={"features": features}, headers=bad)
        assert (refused.status_code, "Idempotency-Key" in refused.json()["detail"]) == (422, True)
