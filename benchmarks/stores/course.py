"""One line of the claim: something happens to a home under load, and what comes of it is compared."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select

from benchmarks.claim import say
from benchmarks.stores.backends import KINDS, Backend
from benchmarks.stores.scene import Scene, await_true, grow, scene
from benchmarks.stores.small_disk import SmallDisk
from headwater.features.integrity.inbox_mending import lost_positions
from headwater.features.integrity.scrub import Scrub
from headwater.infra.store.schema import tables
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.published.alarms import AlarmKind
from headwater.spec.errors import HeadwaterError

__all__ = ["Course", "Line", "Row", "play"]

_ALARM_S = 10.0
_LATEST_S, _CALM_S = 60.0, 90.0


class Course:
    """The course of one line: what it does, and how long what it is followed by takes.

    Parameters
    ----------
    scene
        The home.
    small
        The disk of the home, if it has one of its own.

    Attributes
    ----------
    wrong
        What did not come out as stated.
    alarm_s
        Seconds from the harm to the alarm; None if no alarm is stated.
    without_restart
        Whether the service went on without one.
    """

    def __init__(self, scene: Scene, small: SmallDisk | None = None) -> None:
        self.scene = scene
        self._small = small
        self.wrong: list[str] = []
        self.alarm_s: float | None = None
        self.without_restart = True
        self._harmed_s = time.monotonic()

    @property
    def disk(self) -> SmallDisk:
        """The disk of the home."""
        if self._small is None:
            raise RuntimeError("the home has no disk of its own")
        return self._small

    def harmed(self) -> None:
        """Note that the harm is done: an alarm is due from now on."""
        self._harmed_s = time.monotonic()

    def expect(self, came: bool, what: str) -> None:
        """Note that something was to come, and did not."""
        if not came:
            self.wrong.append(what)

    def alarm(self, kind: AlarmKind, words: str = "") -> None:
        """Wait for an alarm, in which words are.

        It is due within ten seconds on a machine of its own, and later on one that others load, too.
        """

        def sounds() -> bool:
            return words in self.scene.alarms().get(kind, "none of the words")

        try:
            await_true(
                sounds, lambda: f"no alarm {kind} {words!r}, but {self.scene.alarms()}", _LATEST_S
            )
        except TimeoutError as error:
            self.wrong.append(str(error))
            return
        self.alarm_s = round(time.monotonic() - self._harmed_s, 1)
        load = max(1.0, *(one / (os.cpu_count() or 1) for one in os.getloadavg()))
        self.expect(
            self.alarm_s <= _ALARM_S * load,
            f"the alarm {kind} came after {self.alarm_s} s, under a load of {load:.1f}",
        )

    def refused(self, call: Callable[[], Any], error: type[HeadwaterError], words: str = "") -> None:
        """Call what is to be refused by name."""
        try:
            call()
        except error as refusal:
            self.expect(words in str(refusal), f"{words!r} is not in {refusal}")
        except Exception as other:  # noqa: BLE001 - it is reported
            self.wrong.append(f"{error.__name__} was to come, not {type(other).__name__}: {other}")
        else:
            self.wrong.append(f"{error.__name__} {words!r} was to come, and nothing did")

    def goes_on(self) -> None:
        """Wait until the service answers, and no alarm holds."""
        try:
            self.scene.answers_again()
            await_true(lambda: not self.scene.alarms(), lambda: f"holds: {self.scene.alarms()}", _CALM_S)
        except TimeoutError as error:
            self.wrong.append(str(error))

    def restarted(self, before: Callable[[], None] | None = None) -> None:
        """End the service, do something while it is down, and start it again."""
        self.without_restart = False
        self.scene.end()
        if before is not None:
            before()
        self.scene.start()

    def repaired(self) -> None:
        """Run ``headwater doctor --repair``, the service being down."""
        ended = self.scene.command("doctor", "--repair")
        self.expect("damage of lined" in ended.stdout, f"doctor: {ended.stdout[-500:]}{ended.stderr}")


class Line(NamedTuple):
    """A line of "What to do when".

    Parameters
    ----------
    name
        Of what happens.
    stated
        What the page says that comes of it.
    run
        Does it, and compares.
    kinds
        The stores for which it is another case.
    copy_left
        Whether one whole copy of each record is left, so that none may be lost.
    variables
        More variables of the processes, by the folder of the scene.
    on_disk
        Whether the home has a small disk of its own.
    """

    name: str
    stated: str
    run: Callable[[Course], None]
    kinds: tuple[str, ...] = ("SQLite",)
    copy_left: bool = True
    variables: Callable[[Path], Mapping[str, str]] = lambda _: {}
    on_disk: bool = False

    def on(self, kind: str) -> bool:
        """Return whether it is a case of its own on a kind of stores."""
        return kind in self.kinds and kind in KINDS


class Row(NamedTuple):
    """What a line came to on one kind of stores."""

    line: str
    stores: str
    stated: bool
    acknowledged: int
    lost: int
    named: int
    alarm_s: float | None
    without_restart: bool
    wrong: list[str]


def play(line: Line, backend: Backend) -> Row:
    """Play one line on a home of its own."""
    with ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="headwater-line-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        small = _disk(folder / "disk", stack) if line.on_disk else None
        settings = backend.settings(folder / ("disk/home" if line.on_disk else "home"))
        found = stack.enter_context(scene(settings, line.variables(folder)))
        course = Course(found, small)
        try:
            line.run(course)
            course.goes_on()
        except Exception as error:  # noqa: BLE001 - the line failed, and the others are played
            course.wrong.append(f"{type(error).__name__}: {error}")
        found.end()
        lost, named = _lost(course)
        acknowledged = len(found.predicted) + len(found.labelled)
        if course.wrong:
            say((settings.root.parent / "service.log").read_text()[-3_000:])
    if lost > (0 if line.copy_left else named):
        course.wrong.append(f"{lost} acknowledged records are lost, {named} named")
    return Row(
        line.name,
        backend.kind,
        not course.wrong,
        acknowledged,
        lost,
        named,
        course.alarm_s,
        course.without_restart,
        course.wrong,
    )


def _disk(folder: Path, stack: ExitStack) -> SmallDisk:
    folder.mkdir()
    disk = SmallDisk(folder)
    stack.callback(disk.end)
    return disk


def _lost(course: Course) -> tuple[int, int]:
    """Return how many acknowledged records are in no store, and how many are named as lost."""
    found = course.scene
    try:
        with found.bound() as bound:
            with bound.log.sequencer() as sequencer:
                sequencer.drain()
            predicted, labelled = _records(bound)
            course.expect(max(predicted.values()) == 1, "a prediction is there twice")
            missing = sum(id_ not in predicted for id_ in found.predicted)
            missing += sum(id_ not in labelled for id_ in found.labelled)
            named = len(lost_positions(bound.database, bound.log.pipeline_id, bound.log.inbox))
            damage = Scrub(bound.log).whole()
            course.expect(damage is None, f"still {damage}")
            grow(bound, "afterwards", 20)
            collect(bound.log)
            course.expect(train(bound).version is not None, "nothing more is trained")
            return missing, named
    except Exception as error:  # noqa: BLE001 - it is reported
        course.wrong.append(f"afterwards {type(error).__name__}: {error}")
        return 0, 0


def _records(bound: Bound) -> tuple[Counter[str], Counter[str]]:
    """Count predictions and labels in the database, by the prediction's id."""
    row, label = tables.prediction.c, tables.label.c
    of = (label.pipeline_id == row.pipeline_id) & (label.prediction_position == row.position)
    with bound.database.reading() as connection:
        predicted = connection.execute(select(row.id)).scalars().all()
        joined = select(row.id).join_from(tables.prediction, tables.label, of)
        labelled = connection.execute(joined).scalars().all()
    return Counter(predicted), Counter(labelled)
