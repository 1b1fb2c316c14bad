"""Both clients: the same methods, every operation, ids of any text."""

import asyncio
import inspect
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_type_hints

import httpx
import msgspec
import pytest
from tests.patience import PATIENCE_S
from tests.serving.http.test_batch_routes import SCORED, five_keys, scored, watch
from tests.serving.http.test_label_queue_routes import ASKING, IDS, service

from headwater.serving.api.operations import OPERATIONS
from headwater.serving.api.problems import Problem, error_of
from headwater.serving.client.client import AsyncClient, Client
from headwater.serving.client.operator_client import AsyncOperatorClient, OperatorClient
from headwater.serving.client.queue_client import AsyncQueueClient, QueueClient
from headwater.serving.keeper.keeper import Keeper
from headwater.spec import errors
from headwater.spec.errors import ConflictError, HeadwaterError, SchemaError
from headwater.spec.serving.routing import ChampionOnly

__all__ = ["five_keys", "scored", "service", "watch"]

PAIRS = [(Client, AsyncClient), (OperatorClient, AsyncOperatorClient), (QueueClient, AsyncQueueClient)]
ODD = ["a/b", "a?b=c", "a#b", "..", ".", "a%2Fb", "a/../b", "//", "ü 1&2;3", "a+b", "\\", "[1]"]
ELSEWHERE = {"pipelines", "pipeline", "metrics", "openapi", "docs"}  # for people and scrapers


def methods(kind: type) -> dict[str, Any]:
    return {name: one for name, one in vars(kind).items() if not name.startswith("_") and callable(one)}


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_clients_have_the_same_methods(one: type, other: type) -> None:
    assert methods(one).keys() == methods(other).keys()
    assert "close" in methods(Client)
    for name, method in methods(one).items():
        its = methods(other)[name]
        assert inspect.signature(method).parameters == inspect.signature(its).parameters, name
        assert get_type_hints(method)["return"] == get_type_hints(its)["return"], name
        assert inspect.iscoroutinefunction(its)


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str]]]:
    """Refuse each request as a conflict, which is not sent again; give the address, and the requests."""
    requests: list[str] = []
    conflict = msgspec.json.encode(Problem(status=409, title="enough", code="ConflictError"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            requests.append(f"{self.command} {self.path.partition('?')[0]}")
            self.send_response(409)
            self.send_header("content-length", str(len(conflict)))
            self.end_headers()
            self.wfile.write(conflict)

        do_POST = do_PUT = do_GET  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()


def operations_of(requests: list[str]) -> set[str]:
    """Return the names of the operations, found by method and path."""
    at = {row.name: re.compile(re.sub(r"\{[\w:]+\}", "[^/]+", row.at)) for row in OPERATIONS}
    return {next(name for name, one in at.items() if one.fullmatch(each)) for each in set(requests)}


def every_call(client: Client | AsyncClient) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Return every method that sends an operation, with its arguments; with and without features."""
    values = {
        "routing": ChampionOnly(),
        "features": {},
        "items": [{}],
        "spans": [],
        "to": "1",
        "last": 1,
    }
    for part in (client, client.operate, client.queue):
        for name in sorted(methods(type(part)).keys() - {"close", "is_ready"}):
            needed = inspect.signature(getattr(part, name)).parameters
            given = {
                each: values.get(each, "x")
                for each, one in needed.items()
                if one.default is one.empty or each in values
            }
            yield getattr(part, name), given
            if "features" in needed:
                yield getattr(part, name), {**given, "features": None}


EVERY = {row.name for row in OPERATIONS if not row.path.startswith("/v2")} - ELSEWHERE


def test_a_client_requests_every_operation(refusing: tuple[str, list[str]]) -> None:
    address, requests = refusing
    with Client(address, timeout_s=PATIENCE_S) as client:
        for call, given in every_call(client):
            with pytest.raises(ConflictError, match="enough"):
                call(**given)
    assert operations_of(requests) == EVERY


def test_an_async_client_requests_every_operation(refusing: tuple[str, list[str]]) -> None:
    address, requests = refusing

    async def request() -> None:
        async with AsyncClient(address, timeout_s=PATIENCE_S) as client:
            for call, given in every_call(client):
                with pytest.raises(ConflictError, match="enough"):
                    await call(**given)

    asyncio.run(request())
    assert operations_of(requests) == EVERY


@pytest.mark.parametrize("id_", ODD)
def test_an_id_of_any_text_is_looked_up(keeper: Keeper, open_service: Any, id_: str) -> None:
    http = open_service(ASKING)
    address = str(http.base_url)

    async def look() -> Any:
        async with AsyncClient(address, timeout_s=PATIENCE_S) as client:
            return await client.prediction(id_, pipeline="line")

    with Client(address, timeout_s=PATIENCE_S) as client:
        client.predict({"a": 1.0, "b": 0.0}, id=id_)
        found = client.prediction(id_, pipeline="line")
        assert found.prediction is not None
        assert found.prediction.id == id_
        assert asyncio.run(look()) == found
        with pytest.raises(errors.NotFoundError):
            client.batch(id_, pipeline="line")


def test_a_key_of_any_text_is_looked_up(watch: Any, open_service: Any) -> None:
    http = open_service(SCORED)
    with Client(str(http.base_url), timeout_s=PATIENCE_S) as client:
        for key in ODD:
            answer = client.batch(key, pipeline="line", features={"a": 1.0, "b": 0.0})
            assert (answer.key, answer.found) == (key, "online")


def test_people_label_through_the_client(service: httpx.Client) -> None:
    async def by_bob(id_: str) -> None:
        async with AsyncClient(str(service.base_url), timeout_s=PATIENCE_S) as client:
            assert {one.prediction_id for one in await client.queue.claim("line", "bob", many=9)} >= {
                id_
            }
            assert (await client.queue.answer("line", "bob", id_, False)).status == "recorded"
            assert (await client.queue.state("line")).answers == 2
            assert [one.text for one in await client.queue.classes("line")] == ["false", "true"]
            assert (await client.queue.skip("line", "bob", IDS[1])).status == "skipped"

    with Client(str(service.base_url), timeout_s=PATIENCE_S) as client:
        assert [one.value for one in client.queue.classes("line")] == [False, True]
        questions = client.queue.claim("line", "ada", many=9, lease_s=60)
        assert sorted(one.prediction_id for one in questions) == IDS
        assert client.queue.answer("line", "ada", IDS[0], True).status == "recorded"
        asyncio.run(by_bob(IDS[0]))
        assert client.queue.skip("line", "ada", IDS[1]).prediction_id == IDS[1]
        state = client.queue.state("line")
        assert (state.answers, state.skips, state.agreement.raw) == (2, 2, 0.0)
        with pytest.raises(ConflictError):
            client.queue.answer("line", "cleo", IDS[2], True)


def test_an_empty_id_is_refused_and_not_replaced(keeper: Keeper, open_service: Any) -> None:
    address = str(open_service(ASKING).base_url)
    with Client(address, timeout_s=PATIENCE_S) as client, pytest.raises(SchemaError, match="id"):
        client.predict({"a": 1.0, "b": 0.0}, id="")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_a_problem_becomes_the_error_of_its_code(name: str) -> None:
    made = error_of(Problem(status=500, title="t", detail="what", hint="do", code=name))
    assert (type(made).__name__, made.what, made.hint) == (name, "what", "do")


@pytest.mark.parametrize("code", ["", "few", "HeadwaterWarning", "annotations", "Exception", "x"])
def test_a_code_that_is_none_becomes_our_base_error(code: str) -> None:
    assert type(error_of(Problem(status=500, title="t", code=code))) is HeadwaterError


def test_a_label_with_a_key_may_be_told_again(keeper: Keeper, open_service: Any) -> None:
    with Client(str(open_service(ASKING).base_url), timeout_s=PATIENCE_S) as client:
        client.predict({"a": 1.0, "b": 0.0}, id="p")
        told = [client.label("p", True, key="k").status for _ in range(2)]
        assert told == ["recorded", "known"]
        with pytest.raises(ConflictError):
            client.label("p", False, key="k")


def test_text_that_cannot_be_sent_is_refused() -> None:
    with Client("http://127.0.0.1:9", retries=0) as client:
        for send in (
            lambda: client.operate.pause("line", reason="\ud800"),
            lambda: client.operate.routing("\ud800"),
            lambda: client.queue.state("\ud800"),
        ):
            with pytest.raises(SchemaError):
                send()
    for key in ("k\n", "schl\u00fcssel", " k"):
        with pytest.raises(SchemaError, match="key"):
            Client("http://127.0.0.1:9", key=key)


def test_a_call_makes_its_labels_key_once_however_often_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        if len(sent) % 2:
            return httpx.Response(503, headers={"retry-after": "0"})
        if b"labels" in request.content:
            return httpx.Response(200, json={"labels": []})
        return httpx.Response(200, json={"prediction_id": "p", "status": "recorded"})

    client = Client("http://127.0.0.1:9")
    client._http = httpx.Client(  # in the place of a network
        base_url="http://127.0.0.1:9", transport=httpx.MockTransport(answer)
    )
    for _ in range(2):
        client.label("p", True)
    item = {"prediction_id": "p", "value": True}
    client.send_labels([item, {**item, "key": "k"}, {**item, "known_at": "2024-01-01T00:00:00Z"}])
    client.close()
    assert sent[0::2] == sent[1::2]
    keys = [msgspec.json.decode(body).get("key") for body in sent[1:4:2]]
    assert len({None, *keys}) == 3
    first, second, third = msgspec.json.decode(sent[-1])["labels"]
    assert (first["key"] not in (None, *keys), second["key"], "key" in third) == (True, "k", False)
