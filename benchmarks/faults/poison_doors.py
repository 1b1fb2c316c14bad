"""The doors that rows come in by; each says what it refused, by the texts that a client sees."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl

from benchmarks.faults.poisons import Row
from headwater.loop.binding import Bound
from headwater.loop.replay.import_history import import_history
from headwater.spec.data.records import Label, Output, Prediction
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Task

__all__ = ["Doors"]

_OUTPUTS: dict[Task, Output] = {"binary": 0.5, "regression": 20.0, "multiclass": {}}
_DATATYPES = {"float": "FP64", "int": "INT64", "str": "BYTES"}
_REFUSED = {400, 404, 409, 413, 422}


class Doors:
    """The doors of one pipeline.

    Each takes rows, and returns the text of its refusal, or None where all of them were recorded.

    Parameters
    ----------
    bound, client, folder
        The pipeline with its stores, a client of its service, and where tables are written.
    """

    def __init__(self, bound: Bound, client: httpx.Client, folder: Path) -> None:
        self.bound, self._client, self._folder = bound, client, folder
        self.by_name: dict[str, Callable[[Sequence[Row]], str | None]] = {
            "python": self._python,
            "http": self._http,
            "v2": self._v2,
            "csv": self._csv,
            "parquet": self._parquet,
        }

    def _python(self, rows: Sequence[Row]) -> str | None:
        log, now = self.bound.log, datetime.now(UTC)
        try:
            with log.one_sync():
                log.record([self._prediction(row, now) for row in rows])
                log.label([_label(row, now) for row in rows])
        except HeadwaterError as error:
            return str(error)
        return None

    def _prediction(self, row: Row, now: datetime) -> Prediction:
        return Prediction(
            id=row.id,  # type: ignore[arg-type] # poison may be anything
            features=row.features,  # type: ignore[arg-type] # as above
            output=_OUTPUTS[self.bound.pipeline.task],
            served_at=row.served_at or now,  # type: ignore[arg-type] # as above
        )

    def _http(self, rows: Sequence[Row]) -> str | None:
        items = [{"id": row.id, "features": row.features} for row in rows]
        body = {"pipeline": self.bound.pipeline.name, "predictions": items}
        return self._asked("/predict", body) or self._labels(rows)

    def _v2(self, rows: Sequence[Row]) -> str | None:
        for row in rows:
            inputs = [
                {
                    "name": feature.name,
                    "shape": [1],
                    "datatype": _DATATYPES[feature.dtype],
                    "data": [row.features[feature.name]],
                }
                for feature in self.bound.pipeline.features
            ]
            path = f"/v2/models/{self.bound.pipeline.name}/infer"
            if refused := self._asked(path, {"id": row.id, "inputs": inputs}):
                return refused
        return self._labels(rows)

    def _labels(self, rows: Sequence[Row]) -> str | None:
        items = [
            {"prediction_id": row.id, "value": row.label}
            | ({} if row.known_at is None else {"known_at": row.known_at})
            for row in rows
        ]
        return self._asked("/labels", {"pipeline": self.bound.pipeline.name, "labels": items})

    def _asked(self, path: str, body: object) -> str | None:
        """Post a body, and return what was refused of it.

        Raises
        ------
        RuntimeError
            If the service fails, or hides what it refuses.
        """
        answer = self._client.post(
            path,
            content=json.dumps(body, default=_written),
            headers={"content-type": "application/json"},
        )
        if answer.status_code in _REFUSED:
            return answer.text
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        if path != "/labels":
            return None
        refused = [one for one in answer.json()["labels"] if one["status"] in {"refused", "conflict"}]
        return json.dumps(refused) if refused else None

    def _csv(self, rows: Sequence[Row]) -> str | None:
        path = self._folder / "rows.csv"
        text = io.StringIO()
        cells = [{name: _cell(value) for name, value in one.items()} for one in self._told(rows)]
        writer = csv.DictWriter(text, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)
        path.write_bytes(text.getvalue().encode(errors="surrogatepass"))
        return self._imported(path)

    def _parquet(self, rows: Sequence[Row]) -> str | None:
        path = self._folder / "rows.parquet"
        told = self._told(rows)
        columns = {name: [one[name] for one in told] for name in told[0]}
        try:
            made = pl.DataFrame([_column(name, values) for name, values in columns.items()])
        except UnicodeEncodeError as error:
            return f"no Parquet file holds it: {error}: {columns!r}"
        made.write_parquet(path)
        return self._imported(path)

    def _told(self, rows: Sequence[Row]) -> list[dict[str, object]]:
        """Return rows as a table has them: a moment ago, since imports are of the past."""
        past = datetime.now(UTC) - timedelta(seconds=2)
        return [
            {
                "id": row.id,
                "served_at": row.served_at or past,
                "label": row.label,
                "known_at": row.known_at or past + timedelta(seconds=1),
                **row.features,
            }
            for row in rows
        ]

    def _imported(self, path: Path) -> str | None:
        try:
            import_history(self.bound.log, path)
        except HeadwaterError as error:
            return str(error)
        return None


def _label(row: Row, now: datetime) -> Label:
    return Label(
        prediction_id=row.id,  # type: ignore[arg-type] # poison may be anything
        value=row.label,  # type: ignore[arg-type] # as above
        known_at=row.known_at or now,  # type: ignore[arg-type] # as above
    )


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else value


def _column(name: str, values: list[object]) -> pl.Series:
    """Make a column of one type, as Parquet has it; text if the values are of several."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        numbers = [None if value is None else float(value) for value in values]  # type: ignore[arg-type] # they are numbers
        return pl.Series(name, numbers)
    zones = {value.tzinfo for value in values if isinstance(value, datetime)}
    if len(kinds) > 1 or len(zones) > 1:
        values = [
            value if value is None or isinstance(value, str) else str(_cell(value)) for value in values
        ]
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if value is None else str(_cell(value)) for value in values])
