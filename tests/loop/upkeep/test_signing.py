"""Another signing key: states are signed anew, or folded anew where the old key is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.loop.upkeep.conftest import elsewhere, grow

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.rebuild import rebuild_here
from headwater.loop.upkeep import signing
from headwater.loop.upkeep.backup import back_up
from headwater.loop.upkeep.restore import restore_backup
from headwater.loop.upkeep.signing import renew_states, rotate_key
from headwater.registry.mlflow_store.versions import VersionStore
from headwater.registry.proof import read_proof
from headwater.spec.errors import BusyError, DigestError, NotFoundError

OpenBound = Callable[..., Bound]


@pytest.fixture
def clock_of(stores: Settings, open_bound: OpenBound) -> SimulatedClock:
    """A home with two versions, of which the second learned on from the first, and nobody at work."""
    bound = open_bound(stores)
    grow(bound)
    grow(bound)
    bound.close()
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    return clock


def test_all_states_hold_under_the_new_key_alone(
    stores: Settings, clock_of: SimulatedClock, open_bound: OpenBound
) -> None:
    old = stores.key()
    live = stores.root / "live" / "line" / "0f.proof"
    live.parent.mkdir(parents=True)
    live.write_bytes(_proof(stores, open_bound, clock_of))
    result = rotate_key(stores)
    assert (result.signed, result.already, result.refused) == (2, 0, ())
    assert stores.key() != old
    assert not (stores.root / "signing.key.new").exists()
    bound = open_bound(stores, clock_of)
    for version in bound.registry.store.versions():
        bound.registry.store.verified_files(version)
        assert rebuild_here("line", version.number, stores).equal
        (entry,) = bound.registry.mlflow.client.search_model_versions(
            f"name = 'line' and version_number = {version.number}"
        )
        proof = read_proof(bound.registry.store.unverified(version, "proof"))
        assert entry.tags["headwater.signature"] == proof.signature
    assert live.read_bytes() in {
        bound.registry.store.unverified(version, "proof") for version in bound.registry.store.versions()
    }
    grow(bound)
    before = stores.model_copy(update={"signing_key": Settings(signing_key=old.decode()).signing_key})
    with pytest.raises(DigestError, match="its signature does not hold under this signing key"):
        rebuild_here("line", "2", before)


def _proof(settings: Settings, open_bound: OpenBound, clock: SimulatedClock) -> bytes:
    bound = open_bound(settings, clock)
    text = bound.registry.store.unverified(bound.registry.store.get("1"), "proof")
    bound.close()
    return text


def test_an_interrupted_rotation_goes_on(
    home: Settings, open_bound: OpenBound, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = open_bound(home)
    for _ in range(3):
        grow(bound)
    bound.close()
    old = home.key()

    def told(_step: str, done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotate_key(home, told)
    assert home.key() == old  # of which two of three states no longer are
    drawn = (home.root / "signing.key.new").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(signing, "_set_tags", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            rotate_key(home)
    result = rotate_key(home)
    assert (result.signed, result.already, result.refused) == (0, 3, ())
    assert home.key() == drawn
    for number in "123":
        assert rebuild_here("line", number, home).equal


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_state_that_is_not_what_was_signed_stays_refused(
    home: Settings, open_bound: OpenBound
) -> None:
    bound = open_bound(home)
    grow(bound)
    grow(bound)
    bound.close()
    state, other = sorted((home.root / "storage" / "mlflow").rglob("state.bin"))
    state.write_bytes(b"malicious")
    proof = other.with_name("proof.json")
    proof.write_bytes(proof.read_bytes().replace(b"line", b"mine"))
    result = rotate_key(home)
    assert (result.signed, len(result.refused)) == (1, 1)
    again = open_bound(home)
    for version in again.registry.store.versions():
        with pytest.raises(DigestError):
            again.registry.store.verified_files(version)


def test_a_key_of_the_settings_is_left_to_whoever_sets_it(
    home: Settings, open_bound: OpenBound, tmp_path: Path
) -> None:
    mine = elsewhere(home, tmp_path / "mine")
    bound = open_bound(mine)
    grow(bound)
    bound.close()
    result = rotate_key(mine)
    assert (result.signed, result.by_settings) == (1, True)
    new = Path(result.key_file).read_text()
    assert Path(result.key_file).stat().st_mode & 0o777 == 0o600
    with pytest.raises(DigestError):
        rebuild_here("line", "1", mine)
    with_new = Settings(home=mine.home, signing_key=new)  # type: ignore[arg-type]
    assert rebuild_here("line", "1", with_new).equal
    Path(result.key_file).unlink()


def test_nobody_may_be_at_work(home: Settings, open_bound: OpenBound) -> None:
    bound = open_bound(home)
    grow(bound)
    key = home.key()
    with pytest.raises(BusyError, match=r"line.sqlite is in use by process \d+"):
        rotate_key(home)
    assert home.key() == key
    bound.close()
    assert rotate_key(home).signed == 1


def test_without_a_key_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no signing key yet"):
        rotate_key(Settings(home=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_lost_key_is_met_by_name_and_the_states_are_folded_again(
    stores: Settings, clock_of: SimulatedClock, open_bound: OpenBound
) -> None:
    (stores.root / "signing.key").unlink()
    bound = open_bound(stores, clock_of)
    store: VersionStore = bound.registry.store
    with pytest.raises(DigestError, match="headwater signing-key renew is for a key that is lost"):
        store.verified_files(store.get("2"))
    states = [store.unverified(version, "state") for version in store.versions()]
    result = renew_states("line", stores)
    assert (result.folded, result.held, result.left) == (("1", "2"), (), {})
    for version, before in zip(store.versions(), states, strict=True):
        files = store.verified_files(version)
        assert store.learner(version).digest() == version.digest
        assert isinstance(files.state, bytes)
        assert len(before) > 0
    assert renew_states("line", stores).held == ("1", "2")
    grow(bound)


def test_a_recipe_that_is_not_the_registered_one_is_not_run(
    home: Settings, open_bound: OpenBound
) -> None:
    bound = open_bound(home)
    grow(bound)
    (recipe,) = (home.root / "storage" / "mlflow").rglob("recipe.json")
    text = recipe.read_text()
    recipe.write_text(text.replace("def sgd", "raise SystemExit\\ndef sgd"))
    assert recipe.read_text() != text
    (home.root / "signing.key").unlink()
    result = renew_states("line", home)
    assert list(result.left) == ["1"]
    assert "is not the one that was registered" in result.left["1"]


def test_a_backup_can_be_restored_without_its_lost_key(
    home: Settings, open_bound: OpenBound, tmp_path: Path
) -> None:
    bound = open_bound(home)
    grow(bound)
    back_up(home, tmp_path / "backup")
    there = Settings(home=tmp_path / "there")
    restore_backup(there, tmp_path / "backup", lost_key=True)
    with pytest.raises(DigestError):
        rebuild_here("line", "1", there)
    assert renew_states("line", there).folded == ("1",)
    assert rebuild_here("line", "1", there, from_root=True).equal
