"""Processes that go on while backups are taken: one records and labels, one collects and trains."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.imported import context
from benchmarks.models import scaled_sgd
from headwater.features.record.entries import InboxRow
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["GROWING", "acknowledged", "growing", "record"]

GROWING = Pipeline(
    name="growing",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="9999d"),
    model=scaled_sgd,
    update=Stateful(),
    gate=None,
)
_START = datetime(2024, 1, 1, tzinfo=UTC)
_ROWS = 25
_PAUSE_S, _BETWEEN_VERSIONS_S = 0.02, 0.6
_PATIENCE_S = 600.0


@contextmanager
def growing(settings: Settings, notes: Path) -> Iterator[None]:
    """Let both processes work on a home for the length of a block.

    Parameters
    ----------
    settings, notes
        The home, and a folder of its own for what was acknowledged.
    """
    address, stop = settings.database_url, notes / "stop"
    arguments = (str(settings.root), address, str(notes))
    processes = [context().Process(target=work, args=arguments) for work in (_record_on, _learn_on)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        stop.touch()
        for process in processes:
            process.join(_PATIENCE_S)
    if codes := [process.exitcode for process in processes if process.exitcode != 0]:
        raise RuntimeError(f"a process that should go on ended with {codes}")


def acknowledged(notes: Path) -> dict[int, datetime]:
    """Return when each batch was acknowledged: its records are there from then on."""
    lines = (notes / "acknowledged").read_text().splitlines()
    return {
        int(batch): datetime.fromisoformat(moment) for batch, moment in (line.split() for line in lines)
    }


def ids_of(rows: list[InboxRow]) -> set[tuple[int, str]]:
    """Return kind and id of the records of an inbox."""
    return {(kind, id_) for _, kind, id_, _, _ in rows}


def record(bound: Bound, batch: int) -> None:
    """Record a batch of predictions, and its labels."""
    ids = [f"{batch:06}-{i}" for i in range(_ROWS)]
    moment = _START + timedelta(seconds=batch)
    bound.log.record(
        [
            Prediction(id=id_, features={"x": batch % 7.0, "y": 1.0}, output=0.5, served_at=moment)
            for id_ in ids
        ]
    )
    bound.log.label(
        [Label(prediction_id=id_, value=int(id_[-1]) % 2 == 0, known_at=moment) for id_ in ids]
    )


def _record_on(home: str, address: str | None, notes: str) -> None:
    with (
        Bound(GROWING, _settings(home, address)) as bound,
        (Path(notes) / "acknowledged").open("a") as file,
    ):
        batch = 0
        while not (Path(notes) / "stop").exists():
            record(bound, batch)
            file.write(f"{batch} {datetime.now(UTC).isoformat()}\n")
            file.flush()
            batch += 1
            time.sleep(_PAUSE_S)


def _learn_on(home: str, address: str | None, notes: str) -> None:
    with Bound(GROWING, _settings(home, address)) as bound:
        while not (Path(notes) / "stop").exists():
            until_s = time.monotonic() + _BETWEEN_VERSIONS_S
            while time.monotonic() < until_s:
                collect(bound.log)
            if bound.log.stop():
                version = train(bound, by="benchmark").version
                if version is not None:
                    bound.registry.promote(version.number, by="benchmark", reason="growing")


def _settings(home: str, address: str | None) -> Settings:
    return Settings(home=Path(home), database_url=address)
