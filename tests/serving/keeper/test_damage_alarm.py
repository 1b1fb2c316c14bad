"""While a service runs, damage and a wrong clock are alarms, and go when their cause goes."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.loop.conftest import PIPELINE, day
from tests.serving.conftest import Opener

from headwater.infra.clock import SimulatedClock, SystemClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.published_models import PublishedModels

ONE = {"features": {"a": 1.0, "b": 2.0}}
Eventually = Callable[[Callable[[], bool]], None]


def alarms(client: httpx.Client) -> dict[str, str]:
    held = client.get("/pipelines").json()[0]["alarms"]
    return {alarm["kind"]: alarm["what"] for alarm in held}


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def test_a_damaged_file_of_the_archive_is_an_alarm_until_it_is_whole(
    bound: Bound, keeper: Keeper, client: httpx.Client
) -> None:
    (file,) = Path(bound.log.archive["examples"].address).glob("*.parquet")
    content, clock = file.read_bytes(), bound.clock
    assert isinstance(clock, SimulatedClock)
    keeper.scrub()
    assert "damage" not in alarms(client)
    file.write_bytes(content[:-1])
    for _ in range(3):  # a file of one table after the other
        keeper.scrub()
    assert file.name in alarms(client)["damage"]
    with Keeper(bound) as another:  # as after a kill: it knows nothing yet
        another.scrub()
    assert file.name in alarms(client)["damage"]
    assert client.post("/predict", json=ONE).status_code == 200
    file.write_bytes(content)
    for _ in range(9):  # a round over the three tables, and the next
        clock.advance_to(clock.now() + timedelta(seconds=5))
        keeper.scrub()
    assert "damage" not in alarms(client)


def test_a_damaged_row_is_mended_without_a_word_from_anyone(bound: Bound, keeper: Keeper) -> None:
    before = bound.log.repository.rows.predictions(0, 10)
    assert before
    position = before[0][0]
    database = Path(str(bound.database.engine.url.database))
    change(database, "UPDATE prediction SET payload = x'7b7d' WHERE position = ?", position)
    keeper.scrub()
    assert bound.log.repository.rows.predictions(0, 10) == before


def test_a_champion_whose_state_is_put_back_serves_without_another_promotion(
    home: Settings, bound: Bound, keeper: Keeper, client: httpx.Client, eventually: Eventually
) -> None:
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    day(bound, 40)
    second = train(bound).version
    assert second is not None
    folder = bound.registry.mlflow.client.get_logged_model(second.model_id).artifact_location
    state = Path(str(folder).removeprefix("file://")) / "artifacts" / "state.bin"
    content = state.read_bytes()
    state.write_bytes(content[:-1])
    keeper.step()
    assert "not those that were registered" in alarms(client)["swap"]
    eventually(lambda: client.post("/predict", json=ONE).json().get("version") == "1")
    state.write_bytes(content)
    clock.advance_to(clock.now() + timedelta(seconds=11))
    keeper.step()
    eventually(lambda: client.post("/predict", json=ONE).json()["version"] == "2")
    assert "swap" not in alarms(client)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[:0],
        lambda text: text.replace(b'"name":"', b'"name":"../'),
        lambda text: text.replace(b'"version":"1"', b'"version":"7"'),
    ],
    ids=["cut", "empty", "another file", "another version"],
)
def test_an_edited_serving_file_is_refused_and_published_anew(
    home: Settings,
    keeper: Keeper,
    client: httpx.Client,
    eventually: Eventually,
    edit: Callable[[bytes], bytes],
) -> None:
    live = PublishedModels(PIPELINE, home)
    content = live.path.read_bytes()
    assert edit(content) != content
    live.path.write_bytes(edit(content))
    eventually(lambda: client.get("/pipelines").json()[0]["swap_failure"] is not None)
    assert client.post("/predict", json=ONE).json()["version"] == "1"  # what served before
    keeper.step()
    eventually(lambda: client.get("/pipelines").json()[0]["swap_failure"] is None)
    assert live.read() is not None
    assert client.post("/predict", json=ONE).json()["version"] == "1"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """Return by how much the machine's clock is wrong, which the test changes."""
    wrong = [timedelta(0)]
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + wrong[0])
    return wrong


def test_a_clock_a_year_ahead_is_a_503_and_an_alarm_until_it_is_right(
    keeper: Keeper,
    bound: Bound,
    open_service: Opener,
    machine: list[timedelta],
    eventually: Eventually,
) -> None:
    del keeper  # it has published
    client = open_service(clock=SystemClock())
    label = {"prediction_id": "x", "value": True}
    assert client.post("/predict", json=ONE).status_code == 200
    end = bound.log.inbox.end()
    machine[0] = timedelta(days=365)
    for path, body in (("/predict", ONE), ("/labels", label)):
        refused = client.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "ClockError")
    eventually(lambda: "further on than the time that has passed" in alarms(client).get("clock", ""))
    assert bound.log.inbox.end() == end
    machine[0] = timedelta(0)
    assert client.post("/predict", json=ONE).status_code == 200
    eventually(lambda: "clock" not in alarms(client))
