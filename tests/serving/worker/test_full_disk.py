"""While the disk refuses records, the service says so: it is not ready, and an alarm holds."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

Eventually = Callable[[Callable[[], bool]], None]
ONE = {"features": {"a": 1.0, "b": 2.0}}
READY = ("/v2/health/ready", "/v2/models/line/ready", "/v2/models/line/versions/1/ready")


@contextmanager
def refusing() -> Iterator[None]:
    """Let this process write no file beyond its first byte, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def statuses(client: httpx.Client) -> set[int]:
    return {client.get(path).status_code for path in READY}


def alarms(client: httpx.Client) -> list[str]:
    return [alarm["kind"] for alarm in client.get("/pipelines").json()[0]["alarms"]]


def counted(client: httpx.Client) -> float:
    line = 'headwater_alarms{kind="disk",pipeline="line"} '
    (found,) = [one for one in client.get("/metrics").text.splitlines() if one.startswith(line)]
    return float(found.removeprefix(line))


def test_a_disk_that_refuses_is_no_ready_service(client: httpx.Client, eventually: Eventually) -> None:
    assert client.post("/predict", json=ONE).status_code == 200
    assert (statuses(client), alarms(client), counted(client)) == ({200}, [], 0.0)
    with refusing():
        refused = client.post("/predict", json=ONE)
        assert (refused.status_code, refused.json()["code"]) == (503, "StorageError")
        assert statuses(client) == {503}
        eventually(lambda: (alarms(client), counted(client)) == (["disk"], 1.0))
        assert statuses(client) == {503}  # it was tried meanwhile
        assert client.get("/v2/health/live").status_code == 200
    # It notices without being asked to predict.
    eventually(lambda: (statuses(client), alarms(client), counted(client)) == ({200}, [], 0.0))
    assert client.post("/predict", json=ONE).status_code == 200


def test_a_disk_that_has_room_again_is_noticed_by_a_prediction(client: httpx.Client) -> None:
    with refusing():
        assert client.post("/predict", json=ONE).status_code == 503
    assert client.post("/predict", json=ONE).status_code == 200
    assert statuses(client) == {200}
