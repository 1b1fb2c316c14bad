"""The log of problems and swaps: it holds ids, and neither keys nor features."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.serving.conftest import Opener

from headwater.infra.logs import JsonLines
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.keeper.keeper import Keeper

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    caplog.set_level(logging.INFO, logger="headwater")

    def read() -> list[dict[str, Any]]:
        return [
            json.loads(JsonLines().format(record))
            for record in caplog.records
            if record.name.startswith("headwater")
        ]

    return read


def test_logged_problems_name_the_prediction_and_swaps_the_version(
    keeper: Keeper, bound: Bound, home: Settings, open_service: Opener, lines: Lines
) -> None:
    key = KeyStore(bound.database, bound.clock).add("all", ["predict", "label"], by="test")
    with KeyWatch(home):
        client = open_service()
    client.headers["authorization"] = f"Bearer {key}"
    for body in ({"a": 1.0, "b": 7.5e9}, {"a": 1.0, "b": 7.25e9}):
        client.post("/predict", json={"id": "order-17", "features": body})
    client.post("/predict", json={"pipeline": "line", "id": "order-18", "features": {"b": "7.5e9"}})
    client.post("/labels", json={"prediction_id": "order-17", "value": "maybe"})
    found = lines()
    swap = next(line for line in found if line["message"] == "another version serves")
    assert (swap["pipeline"], swap["version"], swap["replaced"]) == ("line", "1", None)
    problems = [
        (line["prediction_id"], line["status"], line["code"])
        for line in found
        if line["logger"] == "headwater.problems"
    ]
    assert problems == [
        ("order-17", 409, "ConflictError"),
        ("order-18", 422, "SchemaError"),
        ("order-17", 422, "SchemaError"),
    ]
    written = json.dumps(found)
    for secret in (key, key.split("_", 2)[2], "7.5", "75000", "7250000000", "maybe"):
        assert secret not in written
