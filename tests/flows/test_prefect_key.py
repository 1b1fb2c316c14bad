"""The operator's key goes to the Prefect of the home's own stack, and to no other."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from headwater.flows.automations import failures_now
from headwater.flows.stack.record import Addresses, prefect_key, remove_record, write_record
from headwater.infra.operator_key import write_operator_key
from headwater.infra.settings import Settings
from headwater.spec.errors import ServerError

KEY = "hw_1_ours"


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str | None]]]:
    """Refuse every key; give the address, and what was sent."""
    sent: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            sent.append(self.headers["authorization"])
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api", sent
    server.shutdown()
    thread.join()
    server.server_close()


def record(settings: Settings, api: str) -> None:
    write_record(settings.root, Addresses(prefect_api=api, prefect_ui=api, mlflow_ui=api), [])


def test_the_key_is_for_the_stacks_own_prefect(tmp_path: Path) -> None:
    settings, ours = Settings(home=tmp_path / "home"), "http://127.0.0.1:4200/api"
    write_operator_key(settings, KEY)
    assert prefect_key(ours, settings) is None  # no stack runs
    record(settings, ours)
    assert prefect_key(ours, settings) == KEY
    with temporary_settings({PREFECT_API_AUTH_STRING: "me:word"}):
        assert prefect_key(ours, settings) == KEY
        for other in ("https://prefect.example/api", "http://127.0.0.1:4201/api"):
            assert prefect_key(other, settings) == "me:word"
    remove_record(settings.root)
    assert prefect_key(ours, settings) is None


def test_a_refused_key_is_an_error_that_names_the_file(
    tmp_path: Path, refusing: tuple[str, list[str | None]]
) -> None:
    settings, (api, sent) = Settings(home=tmp_path / "home"), refusing
    record(settings, api)
    with pytest.raises(ServerError, match="401") as raised:
        failures_now(settings)
    assert "operator.key" in (raised.value.hint or "")
    assert set(sent) == {None}  # another user's file cannot be read
