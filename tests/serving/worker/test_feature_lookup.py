"""In any order of materialising, publishing and following, a look-up returns the followed table."""

import asyncio
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from msgspec.structs import replace
from tests.serving.shop import NOW, ROWS, SHOP, later, publish

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.batch.materialise import materialise, table_of
from headwater.loop.binding import Bound
from headwater.serving.metrics.counters import Counters
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.worker.feature_lookup import FeatureLookup
from headwater.spec.errors import HeadwaterError

CUSTOMERS = ("ada", "bob", "eve", 'π,"\\')
MAX_AGE = timedelta(hours=2)
Content = dict[str, float | None]

spent = strategies.floats(0, 1e38)
contents = strategies.dictionaries(strategies.sampled_from(CUSTOMERS), spent, min_size=1)
steps = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("materialise"), contents),
        strategies.tuples(strategies.just("publish"), strategies.none()),
        strategies.tuples(strategies.just("follow"), strategies.none()),
        strategies.tuples(strategies.just("wait"), strategies.integers(1, 90)),
        strategies.tuples(strategies.just("ask"), strategies.sampled_from(CUSTOMERS)),
    ),
    min_size=4,
    max_size=20,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bound]:
    home = Settings(home=tmp_path_factory.mktemp("looking") / "home")
    with Bound(SHOP, home, SimulatedClock(NOW)) as bound:
        yield bound


class Model:
    """The expected result of a look-up: three places through which a materialisation passes."""

    def __init__(self, shop: Bound, looking: FeatureLookup) -> None:
        self.shop, self.looking = shop, looking
        self.newest: tuple[Content, Any] | None = None
        self.published: tuple[Content, Any] | None = None
        self.followed: tuple[Content, Any] | None = None

    def materialise(self, content: Content) -> None:
        ROWS[:] = [{"customer": name, "spent": value} for name, value in content.items()]
        found = materialise(self.shop, table_of(self.shop, "spending"))
        self.newest = dict(content), found.read_at

    def publish(self, _: None) -> None:
        publish(self.shop)
        self.published = self.newest

    def follow(self, _: None) -> None:
        asyncio.run(self.looking.follow(self.shop.clock.now()))
        self.followed = self.published

    def wait(self, minutes: int) -> None:
        later(self.shop, minutes=minutes)

    def ask(self, customer: str, *, nullable: bool) -> None:
        now = self.shop.clock.now()

        def found() -> object:
            try:
                return self.looking.look_up({"customer": customer}, now, "")
            except HeadwaterError as error:
                return type(error).__name__

        if self.followed is None:
            assert found() == "NotReadyError"
            return
        content, read_at = self.followed
        age = now - read_at
        if customer not in content:
            assert found() == (({"spent": None}, {}) if nullable else "SchemaError")
        elif age > MAX_AGE:
            aged = ({"spent": None}, {"spending": age.total_seconds()})
            assert found() == (aged if nullable else "StaleError")
        else:
            assert found() == ({"spent": content[customer]}, {"spending": age.total_seconds()})


@pytest.mark.parametrize("nullable", [False, True])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_a_look_up_returns_the_followed_materialisation(
    shop: Bound, nullable: bool, order: list[tuple[str, Any]]
) -> None:
    shutil.rmtree(shop.settings.root / "live" / "shop", ignore_errors=True)
    features = (SHOP.features[0], replace(SHOP.features[1], nullable=nullable))
    pipeline = replace(SHOP, features=features)
    counters = Counters(shop.settings)
    looking = FeatureLookup(pipeline, shop.settings, PipelineMetrics(counters, "shop"))
    model = Model(shop, looking)
    model.materialise({"ada": 1.0})  # what an example before left is not the newest
    try:
        for step, value in order:
            if step == "ask":
                model.ask(value, nullable=nullable)
            else:
                getattr(model, step)(value)
        for customer in CUSTOMERS:
            model.ask(customer, nullable=nullable)
    finally:
        looking.close()
        counters.close()


def test_a_table_of_an_earlier_declaration_leaves_the_one_before(shop: Bound) -> None:
    shutil.rmtree(shop.settings.root / "live" / "shop", ignore_errors=True)
    counters = Counters(shop.settings)
    ROWS[:] = [{"customer": "ada", "spent": 1.0}]
    materialise(shop, table_of(shop, "spending"))
    publish(shop)
    more = replace(SHOP, features=(*SHOP.features, SHOP.tables[0].feature("city", str)))
    looking = FeatureLookup(more, shop.settings, PipelineMetrics(counters, "shop"))
    asyncio.run(looking.follow(shop.clock.now()))
    (found,) = looking.status(shop.clock.now())
    assert found.failure is not None
    assert "without city" in found.failure
    assert looking.missing_table() == "spending"
    looking.close()
    counters.close()


def test_a_file_that_was_changed_is_not_published(shop: Bound, tmp_path: Path) -> None:
    shutil.rmtree(shop.settings.root / "live" / "shop", ignore_errors=True)
    ROWS[:] = [{"customer": "ada", "spent": 7.5}]
    made = materialise(shop, table_of(shop, "spending"))
    (stored,) = Path(shop.settings.storage_uri).rglob(f"{made.sha256}.sqlite")
    stored.write_bytes(stored.read_bytes().replace(b"7.5", b"9.5"))
    publish(shop)
    assert not (shop.settings.root / "live" / "shop" / "tables.json").exists()
    assert not list((shop.settings.root / "live").rglob("*.new"))


def test_only_the_newest_files_are_kept(shop: Bound) -> None:
    for spent in range(9):
        ROWS[:] = [{"customer": "ada", "spent": float(spent)}]
        materialise(shop, table_of(shop, "spending"))
        publish(shop)
    for folder in (Path(shop.settings.storage_uri) / "features", shop.settings.root / "live"):
        assert len(list(folder.rglob("*.sqlite"))) == 3
