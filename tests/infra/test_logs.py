"""Logs for machines: a JSON line a record, without the text of an unexpected error."""

import json
import logging
from collections.abc import Iterator

import pytest

from headwater.infra.logs import log_as
from headwater.infra.settings import Settings


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_a_record_is_a_line_of_json(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    log_as(settings.model_copy(update={"log": "json"}), logging.WARNING)
    logger = logging.getLogger("headwater.some")
    logger.info("version %s\nserves", 3, extra={"json_fields": {"version": "3", "prediction_id": "p-1"}})
    try:
        float("amount=77123")
    except ValueError:
        logger.exception("a request failed")
    first, second = capsys.readouterr().err.splitlines()
    line = json.loads(first)
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "headwater.some",
        "message": "version 3\nserves",
        "version": "3",
        "prediction_id": "p-1",
    }
    failed = json.loads(second)
    assert (failed["level"], failed["error"]) == ("error", "ValueError")
    assert "test_a_record_is_a_line_of_json" in failed["through"][-1]
    assert "77123" not in second


def test_for_people_it_is_text_from_a_level_on(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    log_as(settings, logging.WARNING)
    logging.getLogger("headwater.some").info("quiet")
    logging.getLogger("headwater.some").warning("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING headwater.some: loud")
