from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from headwater.features.record.inbox import Inbox
from headwater.loop.binding import Bound
from headwater.spec.data.records import Label

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


def times_of(schema: object) -> set[str]:
    """Return the names of a schema's fields that are times."""
    if isinstance(schema, list):
        return set().union(*map(times_of, schema))
    if not isinstance(schema, dict):
        return set()
    found = set().union(*map(times_of, schema.values()))
    timed = {n for n, s in schema.items() if isinstance(s, dict) and s.get("format") == "date-time"}
    return found | timed


@pytest.mark.parametrize(
    "sent",
    [
        "2024-01-01T00:00:00",
        "2024-01-01",
        "2024-02-30T00:00:00Z",
        "soon",
        1704067200,
        {},
    ],
)
def test_what_is_no_instant_is_refused_in_the_words_of_each_door_that_takes_times(
    client: httpx.Client, sent: object
) -> None:
    operations = client.get("/openapi.json").json()["paths"]
    doors = [
        (path, method, times_of([operation.get("requestBody"), operation.get("parameters")]))
        for path, methods in operations.items()
        for method, operation in methods.items()
        if isinstance(operation, dict)
    ]
    timed = {(path, method): names for path, method, names in doors if names}
    assert timed == {("/labels", "post"): {"known_at"}, ("/predict", "post"): {"due_at"}}
    label = {"prediction_id": "one", "value": True, "known_at": sent}
    answer = client.post("/labels", json=label)
    assert answer.status_code == 422
    (one,) = client.post("/labels", json={"labels": [label]}).json()["labels"]
    for found in (answer.json(), one):
        assert found["hint"] == "send an ISO time with a zone, such as 2026-01-01T00:00:00Z"
        assert "known_at" in found["detail"]
        assert "datetime" not in found["detail"]
    asked = {"features": {"a": 1.0, "b": 2.0}, "due_at": sent}
    for request in (asked, {"predictions": [asked]}):
        answer = client.post("/predict", json=request)
        assert answer.status_code == 422
        found = answer.json()
        assert found["hint"] == "send an ISO time with a zone, such as 2026-01-01T00:00:00Z"
        assert "due_at" in found["detail"]
        assert "datetime" not in found["detail"]


def test_a_time_before_or_after_all_years_is_refused_in_words(client: httpx.Client) -> None:
    label = {"prediction_id": "one", "value": True, "known_at": "9999-12-31T23:59:59-01:00"}
    found = client.post("/labels", json=label).json()
    assert found["detail"] == "known_at=9999-12-31T23:59:59-01:00 is no time in UTC"
    assert found["hint"] == "send a time between the years 1 and 9999"


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


def sent(client: httpx.Client, *values: bool, **more: str) -> list[str]:
    bodies = [{"prediction_id": "one", "value": value, **more} for value in values]
    return [client.post("/labels", json=body).json()["status"] for body in bodies]


def test_a_label_like_the_last_one_is_a_repetition_and_any_other_a_revision(
    client: httpx.Client, bound: Bound
) -> None:
    client.post("/predict", json=ONE)
    assert sent(client, True, True, False, False, True) == [
        "recorded",
        "known",
        "recorded",
        "known",
        "recorded",
    ]
    before = bound.log.stop()
    with bound.log.sequencer() as sequencer:
        sequencer.drain()
    found = bound.log.examples(before).to_dicts()
    assert [(e["label"], e["revision"]) for e in found] == [(True, 0), (False, 1), (True, 2)]


def test_a_repetition_is_one_of_its_own_source(client: httpx.Client) -> None:
    assert sent(client, True) == ["recorded"]
    assert sent(client, True, source="human") == ["recorded"]
    assert sent(client, True, key="k") == ["recorded"]
    assert sent(client, True) == ["known"]
    assert sent(client, False, known_at="2024-01-01T00:00:00Z") == ["recorded"]
    assert sent(client, True, True) == ["recorded", "known"]


def test_many_workers_record_one_repetition_once(client: httpx.Client, bound: Bound) -> None:
    """Two inboxes of one file stand for two workers; what came last is read under its lock."""
    inboxes = [Inbox(bound.log.inbox.path) for _ in range(2)]
    label = Label(prediction_id="one", value=True, known_at=bound.clock.now())
    entry = bound.log.recorder.label(label, on_receipt=True)

    def append(inbox: Inbox) -> int:
        return sum(added for added in inbox.append_each([[entry]] * 50) if isinstance(added, int))

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(append, inboxes)) == 1
    assert inboxes[0].append([entry, entry], "label") == 0
    for inbox in inboxes:
        inbox.close()


def test_the_header_is_the_key_of_labels_that_have_none(client: httpx.Client) -> None:
    body = {"prediction_id": "one", "value": True}
    for header, status in (("k", "recorded"), ("k", "known"), ("l", "recorded")):
        answer = client.post("/labels", json=body, headers={"Idempotency-Key": header})
        assert answer.json()["status"] == status
    other = client.post("/labels", json={**body, "value": False}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, "'k' came before" in other.json()["detail"]) == (409, True)
    many = {"labels": [body, {**body, "key": "own"}, body]}
    for statuses in (["recorded"] * 3, ["known"] * 3):
        answer = client.post("/labels", json=many, headers={"Idempotency-Key": "m"})
        assert [one["status"] for one in answer.json()["labels"]] == statuses
    keys = [one["label"].get("key") for one in client.get("/predictions/one").json()["labels"]]
    assert keys == ["k", "l", "m/0", "own", "m/2"]


@pytest.mark.parametrize("header", ["", "k" * 191, "caf\u00e9", "a\tb"])
def test_a_header_that_is_no_key_is_refused(client: httpx.Client, header: str) -> None:
    headers = {"Idempotency-Key": header.encode("latin-1")}
    answer = client.post("/labels", json={"prediction_id": "one", "value": True}, headers=headers)
    assert (answer.status_code, "Idempotency-Key" in answer.json()["detail"]) == (422, True)


def test_two_headers_are_refused(client: httpx.Client) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = client.post("/labels", json={"prediction_id": "one", "value": True}, headers=headers)
    assert (answer.status_code, "comes 2 times" in answer.json()["detail"]) == (422, True)


def test_a_timeout_is_nobodys_to_tell(client: httpx.Client) -> None:
    body = {"prediction_id": "one", "value": True, "source": "timeout"}
    answer = client.post("/labels", json=body)
    assert (answer.status_code, "headwater's own" in answer.json()["detail"]) == (422, True)
