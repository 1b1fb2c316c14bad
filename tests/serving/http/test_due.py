"""A time at which a label is due, sent with a request."""

import httpx
import pytest

FEATURES = {"a": 1.0, "b": 2.0}
DUE = "2024-01-09T12:00:00+01:00"
TENSORS = [{"name": n, "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]} for n in ("a", "b")]


def due_of(client: httpx.Client, id_: str) -> str | None:
    prediction: dict[str, str | None] = client.get(f"/predictions/{id_}").json()["prediction"]
    return prediction.get("due_at")


def test_each_way_of_asking_takes_the_due_time(client: httpx.Client) -> None:
    client.post("/predict", json={"id": "one", "features": FEATURES, "due_at": DUE})
    items = [{"id": "two", "features": FEATURES, "due_at": DUE}, {"id": "not", "features": FEATURES}]
    client.post("/predict", json={"predictions": items})
    client.post("/predict", json={"id": "null", "features": FEATURES, "due_at": None})
    body = {"id": "v2", "inputs": TENSORS, "parameters": {"due_at": DUE}}
    assert client.post("/v2/models/line/infer", json=body).status_code == 200
    sent = {id_: due_of(client, id_) for id_ in ("one", "two", "not", "null", "v2-0", "v2-1")}
    due = "2024-01-09T11:00:00Z"
    assert sent == {"one": due, "two": due, "not": None, "null": None, "v2-0": due, "v2-1": due}


@pytest.mark.parametrize("wrong", ["soon", "2024-01-09T12:00:00", 17, True])
def test_what_is_no_time_with_a_zone_is_refused_by_name(client: httpx.Client, wrong: object) -> None:
    answer = client.post("/predict", json={"features": FEATURES, "due_at": wrong})
    assert answer.status_code in (400, 422)
    assert "due_at" in answer.json()["detail"]
    body = {"inputs": TENSORS, "parameters": {"due_at": wrong}}
    answer = client.post("/v2/models/line/infer", json=body)
    assert answer.status_code in (400, 422)
    assert "due_at" in answer.json()["error"]


def test_the_same_id_with_another_due_time_is_a_conflict(client: httpx.Client) -> None:
    request = {"id": "one", "features": FEATURES, "due_at": DUE}
    first = client.post("/predict", json=request).json()
    assert client.post("/predict", json=request).json() == first
    other = client.post("/predict", json=request | {"due_at": "2024-01-10T00:00:00Z"})
    assert (other.status_code, "due_at" in other.json()["detail"]) == (409, True)
