"""Name the classes of labels that were not declared, over HTTP and by both clients."""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest
from msgspec.structs import replace
from tests.conftest import later
from tests.loop.conftest import PIPELINE
from tests.patience import PATIENCE_S
from tests.serving.access.test_keys import bearing
from tests.serving.conftest import Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.client.client import AsyncClient, Client
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction

SHADES = replace(
    PIPELINE,
    name="shades",
    task="multiclass",
    label=LabelRule(wait="60m", classes=("red", "blue"), hold=True),
)


@pytest.fixture
def shades(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    """Labels of three classes that were not declared are held back."""
    told = {"a": "gren", "b": "teal", "c": "navy"}
    with Bound(SHADES, home, clock) as bound, OperatorSocket([SHADES], home, clock):
        at = bound.clock.now()
        features = {"a": 1.0, "b": 2.0}
        bound.log.record(
            [Prediction(id=id_, features=features, output={"red": 1.0}, served_at=at) for id_ in told]
        )
        bound.log.label([Label(prediction_id=i, value=v, known_at=at) for i, v in told.items()])
        drain(bound)
        yield bound


@pytest.fixture
def client(shades: Bound, open_service: Opener) -> httpx.Client:
    return open_service(SHADES)


def drain(bound: Bound) -> int:
    with bound.log.sequencer() as sequencer:
        return sequencer.drain()


def test_a_class_is_named_over_http_and_by_both_clients(
    client: httpx.Client, shades: Bound, clock: SimulatedClock
) -> None:
    path = "/pipelines/shades/classes"
    assert [(one["name"], one["held"]) for one in client.get(path).json()] == [
        ("gren", 1),
        ("teal", 1),
        ("navy", 1),
    ]
    named = client.post(path, json={"name": "gren", "becomes": "red", "reason": "a slip"})
    assert [one["becomes"] for one in named.json()] == ["red", None, None]
    with Client(str(client.base_url), timeout_s=PATIENCE_S) as mine:
        assert mine.operate.name_class("shades", "teal")[1].becomes == "teal"
        assert mine.operate.name_class("shades", "teal") == mine.operate.new_classes("shades")

    async def name_the_last() -> None:
        async with AsyncClient(str(client.base_url), timeout_s=PATIENCE_S) as other:
            named = await other.operate.name_class("shades", "navy", "blue", reason="it is")
            assert named == await other.operate.new_classes("shades")

    asyncio.run(name_the_last())
    later(clock, hours=2)
    drain(shades)
    rows = shades.log.examples(columns=("prediction_id", "label")).rows()
    assert sorted(rows) == [("a", "red"), ("b", "teal"), ("c", "blue")]
    notes = [(note.action, (note.detail or {}).get("reason")) for note in audited(shades.database, 10)]
    reasons = ["a slip", "through the client", "it is"]
    assert [reason for action, reason in notes if action == "name class"] == reasons


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "mauve"}, 404, "'mauve'"),
        ({"name": "gren", "becomes": "rd"}, 422, "near it: 'red'"),
        ({"name": ""}, 422, "name"),
        ({"name": "g" * 10_001}, 422, "name"),
        ({"becomes": "red"}, 422, "`name`"),
        ({"name": "gren", "as": "red"}, 422, "`as`"),
        ({"name": "gren\x00", "becomes": "red"}, 404, "gren"),
        ({"name": "gren", "becomes": "red", "reason": "x" * 501}, 422, "reason"),
        ({"name": "gren", "becomes": "red", "reason": "why\n"}, 422, "reason"),
    ],
)
def test_what_names_no_class_is_refused_and_changes_nothing(
    body: dict[str, str], status: int, words: str, client: httpx.Client, shades: Bound
) -> None:
    before = shades.log.new_classes.all()
    answer = client.post("/pipelines/shades/classes", json=body)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert shades.log.new_classes.all() == before


def test_naming_a_class_takes_a_key_of_operators(
    client: httpx.Client, shades: Bound, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    store = KeyStore(shades.database, shades.clock)
    reader, operator = (store.add(scope, [scope], by="test") for scope in ("read", "operate"))
    with KeyWatch(shades.settings):
        path = "/pipelines/shades/classes"
        body = {"name": "teal"}
        eventually(lambda: client.get(path).status_code == 401)
        assert client.get(path, headers=bearing(reader)).status_code == 200
        assert client.post(path, json=body, headers=bearing(reader)).status_code == 403
        assert client.post(path, json=body, headers=bearing(operator)).status_code == 200
