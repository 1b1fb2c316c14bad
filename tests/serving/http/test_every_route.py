"""Every route is tested: a route that takes a body is a door, and every path is requested with any text.

Routes are those of the table of operations.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from urllib.parse import quote

import httpx
import pytest
from tests.serving.http.test_doors import BAD_NAMES, GOOD_NAMES, JSON, Doors, cases, doors

from headwater.serving.api.operations import OPERATIONS
from headwater.spec.errors import SchemaError

__all__ = ["doors"]

READS = {"GET", "HEAD"}
NAME_CLASS = ("POST", "/pipelines/{}/classes")
SKIP = ("POST", "/queue/{}/skip")
PARAMETER = re.compile(r"{[^}]+}")


@pytest.fixture(scope="module")
def routes() -> set[tuple[str, str]]:
    """Every method with the path that it is for, parameters as {}."""
    return {(row.method, PARAMETER.sub("{}", row.path)) for row in OPERATIONS}


@contextmanager
def listening(doors: Doors) -> Iterator[set[tuple[str, str]]]:
    """Collect the requests that are sent within the block."""
    requests: set[tuple[str, str]] = set()

    def hear(request: httpx.Request) -> None:
        requests.add((request.method, request.url.path))

    doors.http.event_hooks["request"].append(hear)
    yield requests
    doors.http.event_hooks["request"].remove(hear)


def test_every_route_that_takes_a_body_is_a_door(doors: Doors, routes: set[tuple[str, str]]) -> None:
    with listening(doors) as requests:
        for door in cases(good=True):
            (send, values), name = door.values, str(door.id).partition(" by ")[2]
            if name.startswith("/"):
                value = values[0]
                send(doors, f"{value}{doors.new()}" if isinstance(value, str) else value)
    missed = {
        (method, path)
        for method, path in routes
        if method not in READS
        and not any(
            method == its and re.fullmatch(path.replace("{}", "[^/]+"), where) for its, where in requests
        )
    }
    # They take names only of what was claimed, below, or what came: test_new_classes.
    assert missed == {SKIP, NAME_CLASS}


@pytest.mark.parametrize("field", ["person", "prediction_id"])
def test_a_skip_takes_names_only(doors: Doors, field: str) -> None:
    body = {"person": "ada", "prediction_id": doors.question_id}
    for name in BAD_NAMES:
        with pytest.raises(SchemaError):
            doors.post("/queue/doors/skip", body | {field: name})
    assert doors.bound.log.queue().counts().skips == 0


def test_any_path_is_answered_and_records_nothing(doors: Doors, routes: set[tuple[str, str]]) -> None:
    count, named = (
        doors.record_count,
        [name for name in (*BAD_NAMES, *GOOD_NAMES) if name.isascii() or "a" in name],
    )
    texts = [quote(name.encode("utf-8", "surrogatepass"), safe="") for name in named]
    ways = [(method, path) for method, path in sorted(routes) if "{}" in path]
    assert len(ways) > 20
    for (method, path), text in product(ways, texts):
        for place in range(path.count("{}")):
            parts = iter([text if n == place else "doors" for n in range(path.count("{}"))])
            where = PARAMETER.sub(lambda _, parts=parts: next(parts), path)
            answer = doors.http.request(method, where, content=b"{}" if method not in READS else b"")
            assert answer.status_code in {404, 405, 422}, (method, where, answer.text)
    assert doors.record_count == count


@pytest.mark.parametrize("path", ["champion", "shadows/add"])
def test_only_a_number_names_a_version(doors: Doors, path: str) -> None:
    before = doors.bound.registry.routings.number(), doors.bound.registry.championship.history()
    for number in ("1\n", "\n1", "1\0", "\u0661", "\uff11", "01", "", "1e0", *BAD_NAMES):
        body = json.dumps({"version": number})
        answer = doors.http.post(f"/pipelines/doors/{path}", content=body, headers=JSON)
        assert answer.status_code in {404, 422}, (number, answer.text)
    assert before == (
        doors.bound.registry.routings.number(),
        doors.bound.registry.championship.history(),
    )
