"""Without keys, no route answers a request for another host, or from a page of another site."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from msgspec.structs import replace
from tests.loop.conftest import PIPELINE
from tests.serving.access.test_keys import ONE, ROUTES, bearing
from tests.serving.conftest import Opener
from tests.serving.http.test_batch_routes import SCORED, five_keys, scored, watch
from tests.serving.http.test_fast_protocol import Raw
from tests.serving.metrics.test_metrics import totals
from tests.serving.running import running

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.serving.access.authentication import Access
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.client.client import Client
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.serving.process.app import create_app
from headwater.spec.errors import ForeignRequestError
from headwater.spec.serving.queue import People

__all__ = ["five_keys", "scored", "watch"]

Eventually = Callable[[Callable[[], bool]], None]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FOLLOWS = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FOREIGN = [
    {"host": "rebound.example:8000"},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
]


@pytest.fixture
def full(watch: BatchPublisher, home: Settings, open_service: Opener) -> Iterator[httpx.Client]:
    """Open a service with a batch, a label queue, and a keeper that operators reach."""
    everything = replace(SCORED, people=People(twice=1.0, random=0.5))
    with OperatorSocket([everything], home):
        yield open_service(everything)


def paths(client: httpx.Client) -> list[str]:
    """Return every path of the service, documented or not."""
    documented = client.get("/openapi.json").json()["paths"]
    found = [
        path.replace("{pipeline}", "line")
        .replace("{model}", "line")
        .replace("{version}", "1")
        .replace("{key}", "customer-17")
        .replace("{prediction_id}", "one")
        for path in documented
    ]
    sheet = "/docs/files/swagger-ui.css"
    return [*found, sheet, "/nothing"]


def test_no_route_answers_or_executes_a_foreign_request(full: httpx.Client, bound: Bound) -> None:
    status, before = full.get("/pipelines").json(), totals(full)
    audit, refusals = audited(bound.database, 9), 0
    for foreign in FOREIGN:
        for path in paths(full):
            assert "{" not in path
            for method in METHODS:
                assert full.request(method, path, headers=foreign).status_code == 403, (method, path)
                refusals += 1
        for method, path, body, _ in ROUTES:
            for way in ("", "?x=1"):  # past the framework, and through it
                answer = full.request(method, path + way, json=body, headers=foreign)
                assert answer.status_code == 403, (method, path)
                refusals += 1
    now = totals(full)
    assert now.pop("headwater_problems_total 403") == refusals
    aged = "headwater_batch_age_seconds line"
    changed = {name for name, value in now.items() if value != before.get(name, 0.0)}
    assert changed <= {aged}
    assert full.get("/pipelines").json() == status
    assert audited(bound.database, 9) == audit
    assert full.get("/predictions/one").status_code == 404
    for method, path, body, _ in ROUTES:  # each is let in, and does what it says
        assert full.request(method, path, json=body).status_code != 403, (method, path)
    assert audited(bound.database, 9) != audit
    assert totals(full)["headwater_batch_predictions_read line"] == 0  # until it is really asked for
    assert full.get("/batch/line/customer-17").status_code == 200
    assert totals(full)["headwater_batch_predictions_read line"] == 1


def test_other_programs_and_own_pages_are_answered(client: httpx.Client) -> None:
    own = str(client.base_url).rstrip("/")
    port = client.base_url.port
    for lines in (
        {},
        {"host": f"localhost:{port}", "user-agent": "curl/8.0", "content-type": ""},
        {"host": "LOCALHOST", "content-type": "application/x-www-form-urlencoded"},
        {"host": f"[::1]:{port}", "user-agent": "Prometheus/3.0"},
        {"origin": own, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "none", **FOLLOWS},
    ):
        assert client.post("/predict", json=ONE, headers=lines).status_code == 200, lines
        for path in ("/docs", "/pipelines", "/metrics", "/v2/health/ready"):
            assert client.get(path, headers=lines).status_code == 200, (path, lines)


def test_a_link_leads_to_the_documentation_and_to_nothing_else(full: httpx.Client) -> None:
    link = {"sec-fetch-site": "cross-site", **FOLLOWS}
    assert full.get("/docs", headers=link).status_code == 200
    assert full.get("/docs", headers={**link, "sec-fetch-dest": "iframe"}).status_code == 403
    assert full.get("/docs", headers={**link, "host": "rebound.example"}).status_code == 403
    assert full.post("/docs", headers=link).status_code == 403
    for path in (path for path in paths(full) if path != "/docs"):
        assert full.get(path, headers=link).status_code == 403, path


def test_a_refusal_names_the_next_step(client: httpx.Client) -> None:
    ours = client.post("/predict", json=ONE, headers={"host": "rebound.example"})
    assert ours.headers["content-type"] == "application/problem+json"
    assert (ours.json()["status"], ours.json()["code"]) == (403, "ForeignRequestError")
    assert "HEADWATER_HOSTS=rebound.example" in ours.json()["hint"]
    theirs = client.get("/v2/models/line", headers={"origin": "null"})
    assert list(theirs.json()) == ["error"]
    assert "access-control-allow-origin" not in theirs.headers


def test_a_long_body_is_refused_at_once(client: httpx.Client) -> None:
    for path in ("/predict", "/queue/line/claim"):
        answer = client.post(path, content=b"x" * 3_000_000, headers={"origin": "null"})
        assert answer.status_code == 403
    assert client.get("/v2/health/live").status_code == 200


RAW: list[tuple[bytes, list[bytes], int]] = [
    (b"POST /predict HTTP/1.0", [], 200),
    (b"POST /predict HTTP/1.0", [b"origin: null"], 403),
    (b"POST /predict HTTP/1.1", [b"host:"], 403),
    (b"POST /predict HTTP/1.1", [b"host: localhost", b"Host: localhost"], 400),
    (b"POST /predict HTTP/1.1", [b"host: localhost", b"ORIGIN: null"], 403),
    (b"POST http://evil.example/predict HTTP/1.1", [b"host: localhost"], 403),
    (b"POST http://localhost/predict HTTP/1.1", [b"host: evil.example"], 200),
    (b"POST /predict HTTP/1.1", [b"host: localhost", b"origin: null", b"expect: 100-continue"], 403),
    (
        b"GET /metrics HTTP/1.1",
        [
            b"host: localhost",
            b"origin: http://evil.example",
            b"connection: upgrade",
            b"upgrade: websocket",
            b"sec-websocket-version: 13",
            b"sec-websocket-key: eA==",
        ],
        403,
    ),
]


def test_each_form_of_naming_the_host_is_checked(client: httpx.Client) -> None:
    body = b'{"features": {"a": 1.0, "b": 2.0}}'
    for line, headers, status in RAW:
        raw = Raw(client)
        raw.send(b"\r\n".join([line, *headers, b"content-length: %d" % len(body), b"", body]))
        assert raw.answer().status == status, (line, headers)
        raw.close()


def test_listed_hosts_are_let_in(keeper: Keeper, home: Settings, clock: SimulatedClock) -> None:
    lists = Settings(home=home.root, hosts="shop.example")
    with running(create_app([PIPELINE], lists, clock)) as client:
        for lines in (
            {"host": "shop.example"},
            {"host": "shop.example", "origin": "https://shop.example", "sec-fetch-site": "same-origin"},
            {"origin": "https://shop.example", "sec-fetch-site": "cross-site"},
        ):
            assert client.post("/predict", json=ONE, headers=lines).status_code == 200
        assert client.post("/predict", json=ONE, headers=FOREIGN[0]).status_code == 403


def test_with_keys_the_host_does_not_matter(
    keeper: Keeper,
    bound: Bound,
    home: Settings,
    clock: SimulatedClock,
    open_service: Opener,
    eventually: Eventually,
) -> None:
    client = open_service()
    foreign = {"host": "shop.example", "origin": "https://shop.example", "sec-fetch-site": "cross-site"}
    assert client.post("/predict", json=ONE, headers=foreign).status_code == 403
    with KeyWatch(home) as keys:
        key = KeyStore(bound.database, clock).add("shop", ["predict"], by="test")
        keys.step()
        eventually(lambda: client.post("/predict", json=ONE, headers=foreign).status_code == 401)
        assert client.post("/predict", json=ONE, headers=foreign | bearing(key)).status_code == 200
        assert client.get("/v2/health/live", headers={"host": "10.0.0.7:8000"}).status_code == 200
    outside = create_app([PIPELINE], home, clock, Access(needs_key=True))
    with running(outside) as client:
        assert client.get("/v2/health/ready", headers={"host": "10.0.0.7:8000"}).status_code == 200
        assert client.post("/predict", json=ONE, headers=foreign).status_code == 401


def test_the_client_raises_the_error_of_the_service(client: httpx.Client) -> None:
    address = f"http://0.0.0.0:{client.base_url.port}"
    with Client(address) as foreign, pytest.raises(ForeignRequestError, match=r"0\.0\.0\.0"):
        foreign.predict({"a": 1.0, "b": 2.0})
