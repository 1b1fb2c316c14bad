"""The operator's key of a home: made once, and again when it is no longer good."""

from collections.abc import Iterator

import pytest
from tests.serving.access.test_keys import store

from headwater.infra.clock import SimulatedClock
from headwater.infra.operator_key import operator_key_file, read_operator_key, write_operator_key
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.infra.store.database import Database
from headwater.serving.access.key_store import Key, KeyStore
from headwater.serving.access.local_operator import LOCAL_OPERATOR, keep_operator_key
from headwater.spec.errors import ConflictError

__all__ = ["store"]

UP = "headwater up"


@pytest.fixture
def database(home: Settings) -> Iterator[Database]:
    database = Database(home.operational_url)
    yield database
    database.close()


def valid(store: KeyStore) -> list[Key]:
    made = store.keys()
    return [key for key in made if key.revoked_at is None]


def test_it_is_made_once_and_closes_operate_alone(
    store: KeyStore, home: Settings, clock: SimulatedClock
) -> None:
    key = keep_operator_key(home, clock, by=UP)
    assert read_operator_key(home) == key
    assert store.hashes().closed == frozenset({"operate"})
    assert keep_operator_key(home, clock, by=UP) == key
    (made,) = store.keys()
    assert (made.name, made.scopes, made.closes) == (LOCAL_OPERATOR, ("operate",), ("operate",))


def test_it_is_made_again_when_it_is_no_longer_good(
    store: KeyStore, home: Settings, clock: SimulatedClock, database: Database
) -> None:
    def lose() -> None:
        operator_key_file(home).unlink()

    def damage() -> None:
        write_operator_key(home, "hw_1_wrong")

    def show() -> None:
        operator_key_file(home).chmod(0o644)

    def revoke() -> None:
        store.revoke(LOCAL_OPERATOR, by="ada")

    def replace() -> None:
        write_operator_key(home, store.add("other", ["operate", "read"], by="ada", closes=["operate"]))

    keys = [keep_operator_key(home, clock, by=UP)]
    for spoil in (lose, damage, show, revoke, replace):
        spoil()
        keys.append(keep_operator_key(home, clock, by=UP))
        assert read_operator_key(home) == keys[-1], spoil
        named = [key for key in valid(store) if key.name == LOCAL_OPERATOR]
        assert len(named) == 1, spoil
    assert len(set(keys)) == len(keys)
    assert {row.by for row in audited(database, 100) if row.action == "add key"} == {UP, "ada"}


def test_a_key_that_somebody_made_is_not_taken_away(
    store: KeyStore, home: Settings, clock: SimulatedClock
) -> None:
    store.add(LOCAL_OPERATOR, ["predict"], by="ada")
    with pytest.raises(ConflictError, match=f"keys revoke {LOCAL_OPERATOR}"):
        keep_operator_key(home, clock, by=UP)
    assert [key.made_by for key in valid(store)] == ["ada"]
    assert read_operator_key(home) is None
