"""Which key a client's requests bear, and where it is never sent."""

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from tests.loop.conftest import PIPELINE
from tests.serving.access.test_keys import bearing, store
from tests.serving.conftest import Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.operator_key import write_operator_key
from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings
from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.access.local_operator import LOCAL_OPERATOR, keep_operator_key
from headwater.serving.api.operations import LEARN, LEARNING, OPERATIONS, PREDICT
from headwater.serving.client.client import AsyncClient, Client
from headwater.serving.client.credentials import Credentials
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.spec.errors import SchemaError, UnauthorizedError
from headwater.spec.recipe import OffsetRange

__all__ = ["store"]

KEY = "hw_7_ours"


@pytest.fixture
def at_home(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Let clients of this process read the settings of `home`."""
    monkeypatch.setenv("HEADWATER_HOME", str(home.root))
    monkeypatch.delenv("HEADWATER_API_KEY", raising=False)
    read_settings.cache_clear()
    yield home
    read_settings.cache_clear()


def test_what_operates_this_machine_bears_the_key_of_the_home(at_home: Settings) -> None:
    here = Credentials("http://127.0.0.1:8000", None)
    assert here.headers(LEARN) == {}
    write_operator_key(at_home, KEY)
    for address in (
        "http://127.0.0.1:8000",
        "http://localhost",
        "http://[::1]:8000",
        "http://127.1.2.3",
    ):
        local = Credentials(address, None)
        sent = {row.name for row in OPERATIONS if local.headers(row)}
        assert sent == {row.name for row in OPERATIONS if "operate" in row.scopes}, address
    assert here.headers(LEARN) == here.headers(LEARNING) == bearing(KEY)  # made since
    for address in (
        "http://10.0.0.7:8000",
        "http://shop.example",
        "http://127.0.0.1.shop.example",
        "http://a.localhost:8000",
        "http://0.0.0.0:8000",
        "http://localhost.shop.example",
        "http://127.0.0.1:80@shop.example",
    ):
        assert Credentials(address, None).headers(LEARN) == {}, address


def test_a_given_key_comes_first_then_the_environments(
    at_home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_operator_key(at_home, KEY)
    monkeypatch.setenv("HEADWATER_API_KEY", "hw_8_theirs")
    read_settings.cache_clear()
    for address in ("http://127.0.0.1:8000", "http://shop.example"):
        for operation in (LEARN, PREDICT):
            assert Credentials(address, None).headers(operation) == bearing("hw_8_theirs")
            assert Credentials(address, "hw_9_given").headers(operation) == bearing("hw_9_given")
    with pytest.raises(SchemaError, match="not a key"):
        Credentials("http://127.0.0.1:8000", "two\nlines")


def test_no_proxy_sees_the_key(at_home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None: ...

    write_operator_key(at_home, KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever).start()
    try:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with Client("http://127.0.0.1:1", retries=0) as local:
            assert not local.is_ready()
        assert seen == []
        with Client("http://shop.invalid", retries=0) as away:  # what the environment says still holds
            assert not away.is_ready()
        assert seen == ["http://shop.invalid/v2/health/ready"]
    finally:
        server.shutdown()
        server.server_close()


def test_both_clients_operate_a_service_that_is_closed_for_it(
    at_home: Settings,
    keeper: Keeper,
    bound: Bound,
    store: KeyStore,
    clock: SimulatedClock,
    open_service: Opener,
) -> None:
    keep_operator_key(at_home, clock, by="headwater up")
    with KeyWatch(at_home), OperatorSocket([PIPELINE], at_home, clock):
        address = str(open_service().base_url)
        with Client(address, retries=0) as client:
            client.operate.quarantine("line", [OffsetRange(0, 1)])
            client.predict({"a": 1.0, "b": 2.0})
        assert audited(bound.database, 1)[0].by == LOCAL_OPERATOR

        async def quarantine() -> None:
            async with AsyncClient(address, retries=0) as client:
                await client.operate.quarantine("line", [OffsetRange(1, 2)])

        asyncio.run(quarantine())
        with Client(address, key="hw_1_other", retries=0) as other, pytest.raises(UnauthorizedError):
            other.operate.quarantine("line", [OffsetRange(2, 3)])
