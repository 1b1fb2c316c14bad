"""Requests of hot routes, byte by byte: each is answered once and in order, however it is cut."""

import re
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from importlib.metadata import requires
from itertools import pairwise
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import uvicorn
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import Opener
from tests.serving.running import running

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.serving.http.fast_protocol import DRAINS, FastProtocol, http_protocol
from headwater.serving.http.fast_routes import BodyLimits
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app

_SIZE = re.compile(rb"content-length: (\d+)")
_ALIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Answer(NamedTuple):
    """A status, the lines before a body, and the body read from JSON."""

    status: int
    head: bytes
    body: Any


class Raw:
    """A connection that sends bytes in the given parts."""

    def __init__(self, client: httpx.Client) -> None:
        self._socket = socket.create_connection((client.base_url.host, client.base_url.port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = self._socket.makefile("rb")

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def answer(self) -> Answer:
        lines = [self._read.readline()]
        while lines[-1] not in {b"\r\n", b""}:
            lines.append(self._read.readline())
        head = b"".join(lines).lower()
        found = _SIZE.search(head)
        body = self._read.read(int(found[1])) if found else b""
        read = msgspec.json.decode(body) if b"json" in head else body
        return Answer(int(head[9:12]), head, read)

    def ended(self) -> bool:
        return self._read.read(1) == b""

    def reset(self) -> None:
        """Reset the connection."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        self._read.close()
        self._socket.close()


@pytest.fixture
def connect(client: httpx.Client) -> Iterator[Callable[[], Raw]]:
    made: list[Raw] = []

    def opener() -> Raw:
        made.append(Raw(client))
        return made[-1]

    yield opener
    for one in made:
        one.close()


@pytest.fixture
def raw(connect: Callable[[], Raw]) -> Raw:
    return connect()


def predict(id_: str, version: bytes = b"1.1", extra: bytes = b"") -> bytes:
    return post(b"/predict", {"id": id_, "features": {"a": 1.0, "b": 2.0}}, version, extra)


def post(path: bytes, body: object, version: bytes = b"1.1", extra: bytes = b"") -> bytes:
    content = msgspec.json.encode(body)
    return b"POST %b HTTP/%b\r\nhost: localhost\r\n%bcontent-length: %d\r\n\r\n%b" % (
        path,
        version,
        extra,
        len(content),
        content,
    )


def test_an_answer_says_its_type_its_length_and_the_date(raw: Raw) -> None:
    raw.send(predict("one"))
    answer = raw.answer()
    assert (answer.status, answer.body["id"]) == (200, "one")
    assert b"\r\ncontent-type: application/json\r\n" in answer.head
    assert answer.head.count(b"\r\ndate: ") == 1
    assert b"connection: close" not in answer.head


def test_headers_of_one_request_do_not_reach_the_next(raw: Raw) -> None:
    for id_ in ("one", "two"):
        raw.send(predict(id_, extra=b"x-some: header\r\n"))
        assert raw.answer().body["id"] == id_
        raw.send(_ALIVE)
        assert raw.answer().status == 200


KINDS: dict[str, Callable[[int], bytes]] = {
    "hot": lambda n: predict(f"p{n}"),
    "refused": lambda n: post(b"/predict", {"id": f"p{n}", "features": {"a": "x", "b": n}}),
    "long": lambda n: post(
        b"/predict",
        {"predictions": [{"id": f"p{n}-{k:0180}", "features": {"a": k, "b": n}} for k in range(320)]},
    ),
    "other": lambda _: _ALIVE,
    "query": lambda n: post(b"/predict?x=1", {"id": f"p{n}", "features": {"a": 1.0, "b": 2.0}}),
    "chunked": lambda n: (
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        b'11\r\n{"features":{"a":\r\n10\r\n1,"b":2},"id":"p\r\n%x\r\n%d"}\r\n0\r\n\r\n'
        % (len(str(n)) + 2, n)
    ),
    "get": lambda _: b"GET /labels HTTP/1.1\r\nhost: localhost\r\n\r\n",
}
STATUSES = {"refused": 422, "get": 405}


@given(
    kinds=st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=6),
    cuts=st.lists(st.floats(0, 1), max_size=6),
)
@limits(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_requests_cut_anywhere_are_answered_in_order(
    connect: Callable[[], Raw], kinds: list[str], cuts: list[float]
) -> None:
    raw = connect()
    whole = b"".join(KINDS[kind](place) for place, kind in enumerate(kinds))
    places = [0, *sorted(int(cut * len(whole)) for cut in cuts), len(whole)]
    sending = threading.Thread(target=raw.send, args=[whole[a:b] for a, b in pairwise(places)])
    sending.start()  # beside the reading, or both sides could wait for the other
    for place, kind in enumerate(kinds):
        answer = raw.answer()
        assert answer.status == STATUSES.get(kind, 200), kind
        if kind in {"hot", "query", "chunked"}:
            assert answer.body["id"] == f"p{place}"
        if kind == "long":
            assert answer.body["predictions"][-1]["id"] == f"p{place}-{319:0180}"
    sending.join()


def test_a_slow_body_is_answered_once_it_is_complete(keeper: Keeper, open_service: Opener) -> None:
    client = open_service(patience_s=0.0)
    slow, other = Raw(client), Raw(client)
    request = predict("slow")
    slow.send(request[:-5])
    for _ in range(3):  # meanwhile the service goes on
        other.send(_ALIVE)
        assert other.answer().status == 200
    slow.send(request[-5:])
    assert slow.answer().body["id"] == "slow"
    slow.close()
    other.close()


def test_a_body_that_never_completes_is_refused(keeper: Keeper, open_service: Opener) -> None:
    raw = Raw(open_service(patience_s=0.0, limits=BodyLimits(within_s=0.05)))
    raw.send(predict("slow")[:-5])
    answer = raw.answer()
    raw.close()
    assert (answer.status, answer.body["code"]) == (408, "SlowError")


def test_a_caller_that_expects_100_continue_gets_it(raw: Raw) -> None:
    request = predict("one", extra=b"expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    raw.send(head + b"\r\n\r\n")
    assert raw.answer().status == 100
    raw.send(body)
    assert raw.answer().body["id"] == "one"


@pytest.mark.parametrize(
    "request_", [predict("one", b"1.0"), predict("one", extra=b"connection: close\r\n")]
)
def test_a_connection_closes_if_the_caller_asks_for_it(raw: Raw, request_: bytes) -> None:
    raw.send(request_)
    answer = raw.answer()
    assert answer.body["id"] == "one"
    assert b"\r\nconnection: close\r\n" in answer.head
    assert raw.ended()


def test_a_caller_that_goes_away_harms_no_other(connect: Callable[[], Raw]) -> None:
    for part in (predict("gone")[:-5], predict("gone-after")):
        gone = connect()
        gone.send(part)
        gone.reset()
    stays = connect()
    stays.send(predict("stays"))
    assert stays.answer().body["id"] == "stays"


def test_bytes_that_are_not_http_are_refused(raw: Raw) -> None:
    raw.send(b"POST /predict\r\nnothing of the kind\r\n\r\n")
    assert raw.answer().status == 400
    assert raw.ended()


def test_while_a_worker_drains_each_answer_ends_its_connection(
    keeper: Keeper, home: Settings, clock: SimulatedClock
) -> None:
    states: list[MutableMapping[str, Any]] = []
    app = create_app([PIPELINE], home, clock)
    with running(_telling(app, states)) as client:
        raw = Raw(client)
        raw.send(predict("before"))
        assert b"connection: close" not in raw.answer().head
        states[0][DRAINS] = True
        raw.send(predict("last"))
        assert b"\r\nconnection: close\r\n" in raw.answer().head
        assert raw.ended()
        raw.close()


def test_a_partly_received_request_is_answered_before_the_end(
    keeper: Keeper, home: Settings, clock: SimulatedClock
) -> None:
    request = predict("begun")
    with running(create_app([PIPELINE], home, clock)) as client:
        begun, idle = Raw(client), Raw(client)
        idle.send(_ALIVE)
        idle.answer()
        begun.send(request[:-5])
        idle.send(_ALIVE)
        idle.answer()  # what came before on the other connection was read by now
        threading.Thread(target=_finish, args=(begun, idle, request[-5:])).start()
    answer = begun.answer()
    assert (answer.status, answer.body["id"]) == (200, "begun")
    assert b"\r\nconnection: close\r\n" in answer.head
    begun.close()


def _finish(begun: Raw, idle: Raw, rest: bytes) -> None:
    assert idle.ended()  # so the service is about to end
    begun.send(rest)
    idle.close()


def _telling(app: ASGIApp, states: list[MutableMapping[str, Any]]) -> ASGIApp:
    """Return an application that also collects the state of its lifespan."""

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            states.append(scope["state"])
        await app(scope, receive, send)

    return telling


def test_on_another_release_of_uvicorn_requests_go_its_own_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert http_protocol() is FastProtocol
    monkeypatch.setattr("uvicorn.__version__", "0.99.1")
    assert http_protocol() == "httptools"
    assert "0.99.1" in caplog.text


def test_the_release_that_pyproject_binds_is_the_one_that_was_tried() -> None:
    (bound,) = [line for line in requires("headwater") or () if line.startswith("uvicorn")]
    assert SpecifierSet(bound.removeprefix("uvicorn").partition(";")[0]).contains(uvicorn.__version__)
    assert not SpecifierSet(bound.removeprefix("uvicorn").partition(";")[0]).contains("0.55")
