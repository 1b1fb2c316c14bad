"""Keys that close some scopes: what they close needs a key, and the rest stays open."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import text
from tests.loop.conftest import PIPELINE
from tests.serving.access.test_keys import ONE, ROUTES, bearing, store
from tests.serving.conftest import Opener
from tests.serving.running import running

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.serving.access.authentication import Access
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.api.operation import SCOPES
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app
from headwater.spec.errors import DeclarationError

__all__ = ["store"]

Eventually = Callable[[Callable[[], bool]], None]
FOREIGN = [
    {"host": "rebound.example:8000"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("closed", [("operate",), ("operate", "label"), ("read", "predict")], ids=str)
def test_what_is_closed_needs_a_key_and_nothing_else_does(
    keeper: Keeper, store: KeyStore, home: Settings, open_service: Opener, closed: tuple[str, ...]
) -> None:
    key = store.add("one", ["operate"], by="test", closes=closed)
    with KeyWatch(home):
        client = open_service()
    for method, path, body, allowed in ROUTES:
        needs = allowed <= set(closed)  # one that is open lets it in
        without = client.request(method, path, json=body)
        assert (without.status_code == 401) == needs, (method, path, without.text)
        for lines in FOREIGN:
            answer = client.request(method, path, json=body, headers=lines)
            assert answer.status_code == (401 if needs else 403), (method, path, lines)
        answer = client.request(method, path, json=body, headers=bearing(key))
        refused = needs and "operate" not in allowed
        assert (answer.status_code in {401, 403}) == refused, (method, path, answer.text)
        wrong = client.request(method, path, json=body, headers=bearing(key + "x"))
        assert wrong.status_code == 401, (method, path)
    for lines, status in (({}, 200), (FOREIGN[0], 403), (bearing("hw_9_x"), 200)):
        assert client.get("/v2/health/live", headers=lines).status_code == status


def test_a_key_has_its_name_where_none_is_needed_and_no_other_text_is_passed_over(
    keeper: Keeper, store: KeyStore, home: Settings, open_service: Opener
) -> None:
    key = store.add("operator", ["operate"], by="test", closes=["operate"])
    with KeyWatch(home):
        client = open_service()
    label = {"prediction_id": "one", "value": True}
    assert client.post("/labels", json=label).status_code == 200
    again = {**label, "value": False}
    assert client.post("/labels", json=again, headers=bearing(key)).status_code == 200
    labels = client.get("/predictions/one").json()["labels"]
    assert [one["label"]["by"] for one in labels] == ["", "operator"]
    for sent in (
        [("authorization", key)],
        [("authorization", "Basic eDp5")],
        [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")],
    ):
        answer = client.post("/labels", json=label, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (401, "UnauthorizedError"), sent


def test_a_key_is_refused_before_the_first_is_made(client: httpx.Client, keeper: Keeper) -> None:
    assert client.post("/predict", json=ONE, headers=bearing("hw_1_other")).status_code == 401
    assert client.post("/predict", json=ONE).status_code == 200


def test_revoking_opens_nothing_and_a_later_key_closes_more(
    keeper: Keeper, store: KeyStore, client: httpx.Client, home: Settings, eventually: Eventually
) -> None:
    def status(path: str, body: dict[str, object]) -> int:
        return client.request("POST", path, json=body).status_code

    pause: dict[str, object] = {"version": "1"}
    with KeyWatch(home) as watch:
        store.add("operator", ["operate"], by="test", closes=["operate"])
        watch.step()
        eventually(lambda: status("/pipelines/line/shadows/add", pause) == 401)
        assert status("/predict", dict(ONE)) == 200
        store.revoke("operator", by="test")
        store.add("labeller", ["label"], by="test", closes=["label"])
        watch.step()
        eventually(lambda: status("/labels", {"prediction_id": "one", "value": True}) == 401)
        assert status("/pipelines/line/shadows/add", pause) == 401
        assert status("/predict", dict(ONE)) == 200
        store.add("shop", ["predict"], by="test")  # closes everything, as ever
        watch.step()
        eventually(lambda: status("/predict", dict(ONE)) == 401)


def test_other_hosts_need_a_key_whatever_is_closed(
    keeper: Keeper, store: KeyStore, home: Settings, clock: SimulatedClock
) -> None:
    key = store.add("shop", ["predict"], by="test", closes=["operate"])
    app = create_app([PIPELINE], home, clock, Access(needs_key=True))
    with KeyWatch(home), running(app) as client:
        assert client.post("/predict", json=ONE).status_code == 401
        assert client.get("/pipelines", headers=bearing(key)).status_code == 403


def test_keys_from_before_close_everything(home: Settings, clock: SimulatedClock) -> None:
    database = Database(home.operational_url)
    KeyStore(database, clock).add("old", ["read"], by="test", closes=["read"])
    with database.transaction() as connection:  # as a home of an earlier commit has it
        connection.execute(text("ALTER TABLE api_key DROP COLUMN closes"))
        for table in ("prediction", "label", "example"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN checksum"))
        for column in ("recorded_by", "due_us"):
            connection.execute(text(f"ALTER TABLE prediction DROP COLUMN {column}"))
        connection.execute(text("ALTER TABLE sequencer ADD COLUMN next_deadline BIGINT DEFAULT 0"))
        newer = ("lost_entry", "archive_file", "declaration", "declared", "recorded_by", "deadline")
        for table in newer:
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0015'"))
    database.close()
    migrated = Database(home.operational_url)
    store = KeyStore(migrated, clock)
    assert store.hashes().closed == frozenset(SCOPES)
    assert store.keys()[0].closes == SCOPES
    migrated.close()


def test_what_a_key_closes_is_checked(store: KeyStore) -> None:
    for closes, words in ((["everything"], "'everything'"), ([], "closes nothing")):
        with pytest.raises(DeclarationError, match=words):
            store.add("a", ["read"], by="test", closes=closes)
    assert store.hashes().closed == frozenset()
    store.add("a", ["read"], by="test", closes=["read", "operate", "read"])
    assert store.keys()[0].closes == ("operate", "read")
