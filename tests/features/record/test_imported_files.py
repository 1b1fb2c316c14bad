"""Imported files: an inbox with some reads, counts and refuses as one without; nothing half is left."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from headwater.features.record import import_draft
from headwater.features.record.entries import LABEL, PREDICTION, Entry
from headwater.features.record.import_draft import ImportCounts, drafting
from headwater.features.record.imported_files import folder_of
from headwater.features.record.inbox import Inbox
from headwater.spec.errors import BusyError, ConflictError, IntegrityError, StorageError


@pytest.fixture(autouse=True)
def every_import_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_draft, "_FEW", 1)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    with closing(Inbox(tmp_path / "inbox" / "toy.sqlite")) as opened:
        yield opened


def silent() -> None:
    pass


def entry(number: int, at_us: int = 0, kind: int = PREDICTION, payload: bytes | None = None) -> Entry:
    key = "" if kind == PREDICTION else "natural/k"
    return Entry(kind, f"p{number}", key, at_us, b"%d" % number if payload is None else payload)


def import_(inbox: Inbox, entries: list[Entry], told: Callable[[], None] = silent) -> ImportCounts:
    with drafting(inbox, told) as draft:
        for start in range(0, len(entries), 3):
            draft.add(entries[start : start + 3])
        counts = draft.settle()
        draft.publish()
        return counts


def rows(inbox: Inbox) -> list[tuple[int, str, int, bytes]]:
    return [row[1:] for row in inbox.read(0, 10**6)]


def files(inbox: Inbox) -> set[str]:
    folder = folder_of(inbox.path)
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize("seed", range(6))
def test_records_are_read_and_counted_as_if_they_lay_in_one_file(inbox: Inbox, seed: int) -> None:
    drawn, numbers = random.Random(seed), count()
    wanted: list[Entry] = []
    with closing(Inbox(inbox.path)) as other:  # another process, which has it open all the while
        for _ in range(7):
            more = [entry(next(numbers), drawn.randrange(5)) for _ in range(drawn.randrange(1, 9))]
            if drawn.random() < 0.5 and len(more) > 1:
                import_(inbox, more)
                more.sort(key=lambda one: one.received_at_us)
            else:
                inbox.append(more, "record")
            wanted += more
        for reader in (inbox, other):
            found = reader.read(0, 10**6)
            assert [row[0] for row in found] == list(range(1, len(wanted) + 1))
            assert [row[2] for row in found] == [one.id for one in wanted]
            assert reader.end() == len(wanted)
            for after in range(len(wanted) + 1):
                assert reader.count_after(after) == len(wanted) - after
                for limit in (1, 2, 5):
                    assert reader.read(after, limit) == found[after : after + limit]
            for one in wanted:
                assert reader.entries_of(one.id) == [(PREDICTION, one.received_at_us, one.payload, None)]


def test_an_import_is_sorted_by_time_and_kind_and_then_as_it_came(inbox: Inbox) -> None:
    mixed = [entry(1, 5, LABEL), entry(2, 5), entry(3, 1), entry(4, 5), entry(1, 5)]
    import_(inbox, mixed)
    found = [(kind, id_) for kind, id_, *_ in rows(inbox)]
    assert found == [(0, "p3"), (0, "p2"), (0, "p4"), (0, "p1"), (1, "p1")]


def test_what_is_recorded_during_an_import_comes_before_it_and_does_not_wait(inbox: Inbox) -> None:
    with closing(Inbox(inbox.path)) as service, drafting(inbox, silent) as draft:
        draft.add([entry(1), entry(2)])
        service.append([entry(10)], "record")
        draft.settle()
        assert service.append_each([[entry(11)]]) == [1]
        assert [id_ for _, id_, *_ in rows(service)] == ["p10", "p11"]
        draft.publish()
        assert service.append_each([[entry(12)]]) == [1]
        assert [id_ for _, id_, *_ in rows(service)] == ["p10", "p11", "p1", "p2", "p12"]


@pytest.mark.parametrize("size", [3, 100])
def test_a_record_that_was_imported_is_not_recorded_again(inbox: Inbox, size: int) -> None:
    numbers = range(size)
    import_(inbox, [entry(n) for n in numbers])
    with closing(Inbox(inbox.path)) as service:
        assert service.append([entry(n) for n in numbers], "record") == 0
        changed = [entry(n, payload=b"other") for n in numbers]
        with pytest.raises(ConflictError, match="with another payload: p0"):
            service.append(changed, "record")
        new = [entry(n + 1000) for n in numbers]
        added, twice, conflict = service.append_each([new, [entry(0)], [entry(5000), changed[-1]]])
        assert (added, twice) == (size, 0)
        assert isinstance(conflict, ConflictError)
        assert service.append([entry(0, kind=LABEL)], "label") == 1
        assert service.end() == 2 * size + 1


def test_a_repeated_import_adds_nothing_and_one_with_more_adds_that(inbox: Inbox) -> None:
    first = [entry(n) for n in range(4)]
    inbox.append([entry(9)], "record")
    import_(inbox, first)
    kept = files(inbox)
    assert import_(inbox, [*first, entry(9)]) == ImportCounts(
        predictions=0, labels=0, predictions_known=5, labels_known=0
    )
    assert files(inbox) == kept
    more = [*first, entry(4), entry(5), entry(4), entry(4, kind=LABEL), entry(0, kind=LABEL)]
    assert import_(inbox, more) == ImportCounts(
        predictions=2, labels=2, predictions_known=5, labels_known=0
    )
    assert inbox.end() == 9


@pytest.mark.parametrize("before", [True, False])
def test_another_payload_is_a_conflict_that_leaves_nothing(inbox: Inbox, before: bool) -> None:
    twice = [entry(1), entry(2), entry(3), entry(4), entry(2, payload=b"other")]
    if before:
        import_(inbox, twice[:3])
        twice = twice[3:]
    kept, end = files(inbox), inbox.end()
    with pytest.raises(ConflictError, match="1 predictions came before with another payload: p2"):
        import_(inbox, twice)
    assert inbox.end() == end
    assert files(inbox) == kept | {"lock"}


def test_a_record_that_comes_by_another_way_meanwhile_is_a_conflict(inbox: Inbox) -> None:
    for number in (1, 3):  # in the file, and its last one
        with drafting(inbox, silent) as draft:
            draft.add([entry(1), entry(2), entry(3)])
            draft.settle()
            inbox.append([entry(number)], "record")
            with pytest.raises(ConflictError, match=f"recorded meanwhile: p{number}"):
                draft.publish()
        assert files(inbox) == {"lock"}
        import_(inbox, [entry(4)])  # the next one passes


def test_an_import_that_is_stopped_leaves_nothing(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_draft, "_TICKS", 100)
    told = count()

    def stop() -> None:
        if next(told) > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_(inbox, [entry(n) for n in range(5_000)], stop)
    assert next(told) > 50
    assert files(inbox) == {"lock"}
    assert inbox.end() == 0


def test_what_a_killed_import_left_is_removed_and_no_other_one_runs_meanwhile(inbox: Inbox) -> None:
    import_(inbox, [entry(1), entry(2)])
    (folder_of(inbox.path) / "left.sqlite").write_bytes(b"torn")
    with (
        drafting(inbox, silent),
        pytest.raises(BusyError, match="another process imports history of 'toy'"),
        drafting(inbox, silent),
    ):
        pass
    assert len(files(inbox)) == 2
    assert [id_ for _, id_, *_ in rows(inbox)] == ["p1", "p2"]


def test_a_full_disk_is_named(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_draft, "_SORTED", "SELECT * FROM no_such_table")
    with pytest.raises(StorageError, match=r"an import into .* cannot be written: no such table"):
        import_(inbox, [entry(1), entry(2)])
    assert files(inbox) == {"lock"}


def test_a_file_that_is_missing_is_named(inbox: Inbox) -> None:
    import_(inbox, [entry(1), entry(2)])
    (name,) = files(inbox) - {"lock"}
    (folder_of(inbox.path) / name).unlink()
    with closing(Inbox(inbox.path)) as other:
        for use in (
            lambda: other.read(0, 9),
            lambda: other.append([entry(7)], "record"),
            lambda: other.append_each([[entry(7)]]),
            lambda: other.entries_of("p1"),
        ):
            with pytest.raises(IntegrityError, match=f"{name} are missing"):
                use()


def test_an_inbox_from_before_imported_files_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    with closing(Inbox(path)) as old:
        old.append([entry(1)], "record")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE imported")
    with closing(Inbox(path)) as inbox:
        import_(inbox, [entry(2), entry(3)])
        assert inbox.end() == 3
