"""The published folder of another log: no worker serves it, and no keeper takes it over."""

import shutil
from pathlib import Path

import pytest
from tests.conftest import START
from tests.loop.conftest import PIPELINE, day
from tests.serving import shop
from tests.serving.conftest import Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.doctor import check_logs
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.published_tables import PublishedTables
from headwater.spec.errors import IdentityError

ONE = {"pipeline": "line", "features": {"a": 1.0, "b": 1.0}}


@pytest.fixture
def other(keeper: Keeper, home: Settings, tmp_path: Path) -> Settings:
    """Return a home of its own log, into which the published folder of another log is copied."""
    del keeper  # it has published
    settings = Settings(home=tmp_path / "other")
    shutil.copy(home.root / "mlflow.sqlite", settings.root / "mlflow.sqlite")
    shutil.copy(home.root / "signing.key", settings.root / "signing.key")
    with Bound(PIPELINE, settings, SimulatedClock(START)) as bound:
        day(bound, 5, collected=False)
    shutil.copytree(home.root / "live" / "line", settings.root / "live" / "line")
    return settings


def contents(settings: Settings) -> dict[Path, bytes]:
    live = settings.root / "live" / "line"
    return {path: path.read_bytes() for path in live.rglob("*") if path.is_file()}


def test_a_worker_does_not_serve_states_of_another_log(
    other: Settings, bound: Bound, open_service: Opener
) -> None:
    client = open_service(home=other)
    answer = client.post("/predict", json=ONE)
    assert answer.status_code == 503
    assert bound.log.identity.log in answer.json()["hint"]
    assert client.post(
        "/labels", json={"pipeline": "line", "prediction_id": "1", "value": True}
    ).is_success


def test_a_keeper_refuses_the_folder_of_another_log(other: Settings, bound: Bound) -> None:
    before = contents(other)
    with Bound(PIPELINE, other, SimulatedClock(START)) as stranger:
        with pytest.raises(IdentityError, match="the live folder of 'line'") as refused:
            Keeper(stranger)
        assert (refused.value.whose, refused.value.log) == (
            bound.log.identity.log,
            stranger.log.identity.log,
        )
    assert contents(other) == before
    assert any("the live folder of 'line'" in one.found for one in check_logs(other) if not one.good)


def test_tables_published_by_another_log_s_keeper_stay(tmp_path: Path) -> None:
    with Bound(shop.SHOP, Settings(home=tmp_path / "first"), SimulatedClock(START)) as first:
        shop.put(first, ann=1.0)
        folder = first.settings.root / "live" / "shop"
    with Bound(shop.SHOP, Settings(home=tmp_path / "second"), SimulatedClock(START)) as second:
        there = second.settings.root / "live" / "shop"
        shutil.copytree(folder, there)
        before = (there / "tables.json").read_bytes()
        live = PublishedTables(shop.SHOP, second.settings)
        with pytest.raises(IdentityError):
            live.read()
        shop.put(second, bob=2.0)
        assert (there / "tables.json").read_bytes() == before
