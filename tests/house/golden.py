"""Outputs that a move or a rename must not change, as one JSON document.

Write it before and after, and compare::

    python -m tests.house.golden before.json
    python -m tests.house.golden after.json && diff before.json after.json

What two runs on one machine do not share (times, ids of MLflow's runs, CPU seconds) is ``"varies"``.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from tests.cli import toys
from tests.cli.conftest import TOY, TOYS, history
from tests.features.sequence.test_orders import play
from tests.learners.estimators import STATEFUL
from tests.learners.test_contract import digest_of

from headwater.cli import main
from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings
from headwater.serving.api.problems import problem_of
from headwater.serving.process.app import create_app
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["golden"]

_NOW = "2024-03-01T00:00:00+00:00"
_WORDS = ("title", "summary", "description")
_SCRIPTS = 80


def golden() -> dict[str, Any]:
    """Return every output, by kind."""
    return {
        "digests": {
            f"{make.__name__}-{task}": digest_of(task, make.__name__) for task, make in STATEFUL
        },
        "offsets": [list(map(str, rows)) for rows in _offsets()],
        "commands": _same(dict(_commands()), dict(_commands())),
        "openapi": _openapi(),
        "errors": dict(_errors(HeadwaterError)),
    }


def _offsets() -> Iterator[list[object]]:
    generator = random.Random(0)
    pipeline = Pipeline(
        name="toy",
        task="binary",
        features=(Feature("x", float), Feature("city", str, nullable=True)),
        label=LabelRule(wait="2h"),
        model=toys.sgd,
        update=Stateful(),
    )
    for _ in range(_SCRIPTS):
        script = [
            (
                generator.choice([0, 0, 1, 20, 59, 60, 61]),
                generator.choice("abc"),
                generator.choice([None, True, False]),
            )
            for _ in range(generator.randint(0, 14))
        ]
        rule = LabelRule(
            wait="60m",
            maturity=generator.choice(["arrival", "window"]),
            timeout=generator.choice([None, False]),
        )
        yield play(pipeline, rule, script, batch=generator.randint(1, 5), drain_at=set())


def _commands() -> Iterator[tuple[str, Any]]:
    """Run a journey in a home of its own, and give what each command prints as JSON."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["HEADWATER_HOME"] = f"{folder}/home"
        os.environ["HEADWATER_NOW"] = _NOW
        first, more = history(Path("a.parquet")), history(Path("b.parquet"), 200, 300)
        asking, each, watched = (f"{TOYS}:{name}" for name in ("asking", "each", "watched"))
        lines = (
            f"import {TOY} {first}",
            f"collect {TOY}",
            f"train {TOY}",
            f"import {TOY} {more}",
            f"train {TOY}",
            f"train {TOY}",
            "versions toy",
            "lineage toy",
            "rebuild toy 2 --from-root",
            f"status {TOY}",
            f"performance {TOY}",
            f"examples {TOY} --start 5 --stop 8",
            f"routing {TOY}",
            f"routing {TOY} --set canary:0.1:1",
            f"shadow add {TOY} 1",
            f"shadow drop {TOY} 1",
            "quarantine toy 3:5 7:9",
            "rollback toy",
            "promote toy 2",
            f"monitor {watched}",
            f"import {watched} {first}",
            f"train {watched}",
            f"import {watched} {more}",
            f"monitor {watched}",
            f"update {watched}",
            "decisions watched",
            f"import {each} {first}",
            f"train {each}",
            f"pause {each}",
            f"resume {each}",
            f"import {asking} {first}",
            f"queue {asking}",
            "keys add someone --scope read",
            "keys list",
            "keys revoke someone",
            "audit",
            "doctor",
            f"features show {TOYS}:looking",
            f"batch status {TOYS}:scored",
            "promote toy 7",
            "versions nobody",
        )
        for number, line in enumerate(lines, 1):
            yield f"{number:02} {line.replace(TOYS, 'toys.py')}", _run([*line.split(), "--json"])
        del os.environ["HEADWATER_HOME"], os.environ["HEADWATER_NOW"]


def _run(arguments: list[str]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["headwater", *arguments]
    read_settings.cache_clear()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    read_settings.cache_clear()
    try:
        said = [json.loads(line) for line in out.getvalue().splitlines()]
    except ValueError:
        try:
            said = json.loads(out.getvalue())
        except ValueError:
            said = out.getvalue().splitlines()
    return {"status": status, "out": said, "err": err.getvalue().splitlines()}


def _same(first: Any, second: Any) -> Any:
    """Return what two runs share, and ``"varies"`` for what they do not."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return {key: _same(value, second[key]) for key, value in first.items()}
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [_same(*both) for both in zip(first, second, strict=True)]
    return first if first == second else "varies"


def _openapi() -> Any:
    """Return the OpenAPI document, references resolved, without words."""
    pipelines = [toys.toy, toys.asking, toys.each]
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(pipelines, Settings(home=Path(folder)))

        async def ask() -> Any:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return (await client.get("/openapi.json")).raise_for_status().json()

        document = asyncio.run(ask())
    schemas = document["components"]["schemas"]

    def plain(part: Any, within: tuple[str, ...] = ()) -> Any:
        if isinstance(part, list):
            return [plain(one, within) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            name = part["$ref"].rsplit("/", 1)[1]
            return "recursive" if name in within else plain(schemas[name], (*within, name))
        return {
            key: plain(value, within)
            for key, value in part.items()
            if not (key in _WORDS and isinstance(value, str))
            and key not in ("operationId", "components")
        }

    return plain(document)


def _errors(kind: type[HeadwaterError]) -> Iterator[tuple[str, list[object]]]:
    problem = problem_of(kind("what", "hint"))
    yield (
        kind.__name__,
        [problem.status, problem.title, problem.code, *(b.__name__ for b in kind.__bases__)],
    )
    for below in kind.__subclasses__():
        yield from _errors(below)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(golden(), indent=1, sort_keys=True, default=str) + "\n")
