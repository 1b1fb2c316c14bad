"""Logs of the service's processes: text for people, or one JSON line a record for machines.

The fields of a record beside its text are given as ``extra={"json_fields": {...}}``: ids, versions,
statuses. A record never bears a key or features, and so, as JSON, no text of an unexpected error, which
may quote them: its type and the lines that it came through say where to look.
"""

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

from headwater.infra.settings import Settings

__all__ = ["JsonLines", "log_as"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MOST_FRAMES = 20


class JsonLines(logging.Formatter):
    """The formatter that writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "json_fields", {}),
        }
        if record.exc_info is not None and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
            line["error"] = type(error).__qualname__
            line["through"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return msgspec.json.encode(line, enc_hook=str).decode()


def log_as(settings: Settings, level: int) -> None:
    """Send the log and the warnings of this process to standard error, in place of earlier handlers.

    Parameters
    ----------
    settings
        Text, or JSON with every record from INFO on.
    level
        The least that is written as text.
    """
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log == "json"
    handler.setFormatter(JsonLines() if as_json else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO if as_json else level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in ("alembic", "httpx", "mlflow", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
