import httpx

from headwater.loop.binding import Bound

ONE = {"id": "one", "features": {"a": 1.0, "b": 2.0}}


def test_a_label_makes_an_example(client: httpx.Client, bound: Bound) -> None:
    client.post("/predict", json=ONE)
    answer = client.post("/labels", json={"prediction_id": "one", "value": True, "key": "k"})
    assert answer.json() == {"prediction_id": "one", "status": "recorded"}
    before = bound.log.stop()
    with bound.log.sequencer() as sequencer:
        sequencer.drain()
    (example,) = bound.log.examples(before).to_dicts()
    assert (example["prediction_id"], example["label"], example["source"]) == ("one", True, "natural")


def test_the_same_label_again_is_known_and_another_value_a_conflict(client: httpx.Client) -> None:
    label = {"prediction_id": "one", "value": True, "key": "k"}
    assert client.post("/labels", json=label).json()["status"] == "recorded"
    assert client.post("/labels", json=label).json()["status"] == "known"
    other = client.post("/labels", json={**label, "value": False})
    assert (other.status_code, other.json()["code"]) == (409, "ConflictError")
    assert len(client.get("/predictions/one").json()["labels"]) == 1


def test_each_of_many_has_its_own_result(client: httpx.Client) -> None:
    client.post("/labels", json={"prediction_id": "a", "value": True, "key": "k"})
    sent = [
        {"prediction_id": "a", "value": True, "key": "k"},
        {"prediction_id": "a", "value": False, "key": "k"},
        {"prediction_id": "b", "value": "yes"},
        {"value": True},
        7,
        {"prediction_id": "c", "value": False},
        {"prediction_id": "d", "value": True, "known_at": "2024-01-01T00:00:00"},
        {"prediction_id": "e", "value": True, "source": "rumour"},
    ]
    answer = client.post("/labels", json={"labels": sent})
    assert answer.status_code == 200
    found = answer.json()["labels"]
    statuses = ["known", "conflict", "refused", "refused", "refused", "recorded", "refused", "refused"]
    assert [one["status"] for one in found] == statuses
    assert [one["prediction_id"] for one in found] == ["a", "a", "b", "", "", "c", "d", "e"]
    assert all(one["detail"] for one in found if one["status"] in ("conflict", "refused"))


def test_a_revision_has_its_own_key(client: httpx.Client, bound: Bound) -> None:
    client.post("/predict", json=ONE)
    for key, value in (("first", True), ("second", False)):
        answer = client.post("/labels", json={"prediction_id": "one", "value": value, "key": key})
        assert answer.json()["status"] == "recorded"
    before = bound.log.stop()
    with bound.log.sequencer() as sequencer:
        sequencer.drain()
    found = bound.log.examples(before).to_dicts()
    assert [(e["label"], e["revision"]) for e in found] == [(True, 0), (False, 1)]
    assert found[1]["supersedes"] == found[0]["offset"]


def test_a_label_that_cannot_be_read_is_refused(client: httpx.Client) -> None:
    for body in ({}, {"prediction_id": "a"}, {"value": True}, {"labels": []}, {"labels": 3}):
        answer = client.post("/labels", json=body)
        assert answer.status_code == 422
        assert answer.json()["hint"]
