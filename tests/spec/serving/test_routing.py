"""Routings deal requests by honest propensities."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.spec.data.label import LabelRule
from headwater.spec.errors import DeclarationError
from headwater.spec.serving.bandit import Arm, BanditState
from headwater.spec.serving.plan import Aliases, Choice, RoutingPlan, plan, route, uniform
from headwater.spec.serving.routing import (
    ABTest,
    Bandit,
    Canary,
    ChampionOnly,
    Routing,
    Shadow,
    check_routing,
)
from headwater.spec.serving.serve_best import Progress, ServeBest, best

NOW = Aliases("3", "4")
UNITS = [f"u-{i}" for i in range(20_000)]
LEARNED = BanditState(
    {
        "3": Arm(pulls=900, labels=800, gained_ppm=40_000_000),
        "4": Arm(pulls=500, labels=500, gained_ppm=32_000_000),
        "5": Arm(pulls=90, labels=80, gained_ppm=3_000_000),
    }
)
ROUTINGS: list[Routing] = [
    ChampionOnly(),
    Shadow(versions=("challenger", "2"), serve_best=ServeBest(margin=0.01)),
    Canary(share=0.05),
    ABTest(shares={"champion": 0.5, "challenger": 0.3, "5": 0.2}),
    Bandit(versions=("champion", "challenger", "5")),
    Bandit(versions=("champion", "challenger", "5"), policy="ucb", explore=0.1),
]


def counted(its: RoutingPlan) -> dict[str, int]:
    found: dict[str, int] = {}
    for unit in UNITS:
        version = route(its, unit).version
        found[version] = found.get(version, 0) + 1
    return found


@pytest.mark.parametrize("routing", ROUTINGS, ids=repr)
def test_propensities_are_honest(routing: Routing) -> None:
    its = plan(routing, NOW, LEARNED, pipeline="flights")
    assert sum(its.shares.values()) == pytest.approx(1, abs=1e-12)
    found = counted(its)
    for version, share in its.shares.items():
        assert 0 < share <= 1
        error = math.sqrt(share * (1 - share) / len(UNITS))
        assert found.get(version, 0) / len(UNITS) == pytest.approx(share, abs=4.5 * error)


@pytest.mark.parametrize("routing", ROUTINGS, ids=repr)
def test_propensity_is_the_share_of_the_plan(routing: Routing) -> None:
    its = plan(routing, NOW, LEARNED)
    for unit in UNITS[:200]:
        choice = route(its, unit)
        assert choice.propensity == its.shares[choice.version]
        assert choice.role == ("champion" if choice.version == "3" else "challenger")


@pytest.mark.parametrize("routing", ROUTINGS, ids=repr)
def test_routing_survives_json(routing: Routing) -> None:
    text = msgspec.json.encode(routing)
    assert msgspec.json.decode(text, type=Routing) == routing


def test_shadows_never_answer() -> None:
    its = plan(Shadow(versions=("challenger", "2")), NOW)
    assert its.shadows == ("4", "2")
    assert its.shares == {"3": 1.0}


def test_shadow_that_became_champion_answers_and_is_no_shadow() -> None:
    assert plan(Shadow(versions=("4", "5")), Aliases("4")).shadows == ("5",)


def test_shadow_named_by_number_and_by_word_predicts_once() -> None:
    assert plan(Shadow(versions=("4", "challenger")), NOW).shadows == ("4",)


def test_shadow_that_is_not_loaded_does_not_predict() -> None:
    assert plan(Shadow(versions=("4", "5")), NOW, loaded={"3", "5"}).shadows == ("5",)


@pytest.mark.parametrize("routing", [Canary(share=0.3), ABTest(shares={"3": 0.5, "4": 0.5})], ids=repr)
def test_unit_meets_one_version(routing: Routing) -> None:
    its = plan(routing, NOW)
    for unit in UNITS[:100]:
        assert len({route(its, f"p-{i}", unit).version for i in range(10)}) == 1


def test_without_a_unit_each_prediction_is_dealt() -> None:
    its = plan(Canary(share=0.5), NOW)
    assert {route(its, f"p-{i}").version for i in range(50)} == {"3", "4"}


def test_bandit_deals_each_prediction_anew() -> None:
    its = plan(Bandit(versions=("3", "4")), NOW)
    assert {route(its, f"p-{i}", "u-1").version for i in range(50)} == {"3", "4"}
    assert len({route(its, "p-1", f"u-{i}") for i in range(50)}) == 1


def test_growing_canary_keeps_its_units() -> None:
    small, large = plan(Canary(share=0.05), NOW), plan(Canary(share=0.25), NOW)
    met = [unit for unit in UNITS if route(small, "p", unit).version == "4"]
    assert len(met) > 800
    assert all(route(large, "p", unit).version == "4" for unit in met)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (plan(Canary(share=0.5), NOW, pipeline="a"), plan(Canary(share=0.5), NOW, pipeline="b")),
        (plan(Canary(share=0.5), NOW), plan(Canary(share=0.5, salt="autumn"), NOW)),
    ],
    ids=["pipeline", "salt"],
)
def test_salts_deal_independently(first: RoutingPlan, second: RoutingPlan) -> None:
    same = sum(route(first, unit) == route(second, unit) for unit in UNITS)
    assert same / len(UNITS) == pytest.approx(0.5, abs=0.02)


def test_same_answer_in_every_process() -> None:
    canary = plan(Canary(share=0.25), NOW, pipeline="flights")
    assert [route(canary, unit).version for unit in UNITS[:12]] == list("333334434333")


@pytest.mark.parametrize(
    ("routing", "aliases", "loaded", "shares"),
    [
        (Canary(share=0.25), Aliases("3"), None, {"3": 1.0}),
        (Canary(share=0.25), NOW, {"3"}, {"3": 1.0}),
        (Canary(share=0.25, version="4"), Aliases("4"), None, {"4": 1.0}),
        (ABTest(shares={"4": 0.25, "5": 0.75}), NOW, {"3", "5"}, {"3": 0.25, "5": 0.75}),
        (ABTest(shares={"3": 0.25, "champion": 0.75}), NOW, None, {"3": 1.0}),
        (Bandit(versions=("challenger", "5")), Aliases("3"), {"3"}, {"3": 1.0}),
        (Bandit(versions=("champion", "3")), NOW, None, {"3": 1.0}),
        (Bandit(versions=("4", "5")), NOW, {"3", "5"}, {"5": 1.0}),
        (Bandit(versions=("4", "5")), NOW, None, {"4": 0.5, "5": 0.5}),
    ],
)
def test_champion_answers_for_versions_that_are_not_loaded(
    routing: Routing, aliases: Aliases, loaded: set[str] | None, shares: dict[str, float]
) -> None:
    its = plan(routing, aliases, loaded=loaded)
    assert its.shares == pytest.approx(shares)
    assert all(choice.role == "champion" for choice in its.choices if choice.version == aliases.champion)


def test_missing_version_moves_no_other_units() -> None:
    test = ABTest(shares={"4": 0.3, "champion": 0.3, "5": 0.4})
    whole, without = plan(test, NOW), plan(test, NOW, loaded={"3", "5"})
    for unit in UNITS[:2_000]:
        met = route(whole, "p", unit).version
        assert route(without, "p", unit).version == ("3" if met == "4" else met)


def test_every_version_of_a_bandit_keeps_its_part() -> None:
    state = BanditState(
        {"3": Arm(labels=10**6, gained_ppm=10**12), "4": Arm(labels=10**6), "5": Arm(labels=10**6)}
    )
    for policy in ("thompson", "ucb"):
        routing = Bandit(versions=("3", "4", "5"), policy=policy, explore=0.06)  # type: ignore[arg-type]
        shares = plan(routing, NOW, state).shares
        assert shares == pytest.approx({"3": 0.96, "4": 0.02, "5": 0.02})


@given(st.text())
def test_any_text_hashes_into_the_unit_interval(text: str) -> None:
    assert 0 <= uniform(b"salt", text) < 1


def test_champion_only_needs_no_hash() -> None:
    its = plan(ChampionOnly(), NOW)
    assert route(its, "p-1") is its.choices[0]
    assert its.choices == (Choice("3", "champion", 1.0),)


@pytest.mark.parametrize(
    ("kind", "fields", "hint"),
    [
        (Shadow, {"versions": ()}, 'write ("champion", "challenger"), or'),
        (Shadow, {"versions": "challenger"}, 'write ("champion", "challenger"), or'),
        (Shadow, {"versions": ("champion",)}, 'write "challenger", or a number'),
        (Shadow, {"versions": (7,)}, 'write its number, as in "7"'),
        (Shadow, {"versions": ("best",)}, 'write its number, as in "7"'),
        (Shadow, {"versions": ("07",)}, 'write its number, as in "7"'),
        (Shadow, {"versions": ("7", "7")}, "name each one once"),
        (Shadow, {"versions": ("7",), "serve_best": True}, "write serve_best=ServeBest("),
        (Canary, {"share": 1.0}, "write share=0.05, say"),
        (Canary, {"share": 5}, "write share=0.05, say"),
        (Canary, {"share": math.nan}, "write share=0.05, say"),
        (Canary, {"share": 0.1, "version": "champion"}, 'write "challenger", or a number'),
        (Canary, {"share": 0.1, "salt": 3}, 'write salt="autumn", say'),
        (ABTest, {"shares": {"champion": 1.0}}, 'write ("champion", "challenger"), or'),
        (ABTest, {"shares": ("champion", "4")}, 'write shares={"champion": 0.5'),
        (ABTest, {"shares": {"champion": 0.5, "4": 0.4}}, "write shares that are together 1"),
        (ABTest, {"shares": {"champion": 1.5, "4": -0.5}}, "write share=0.05, say"),
        (Bandit, {"versions": ("champion",)}, 'write ("champion", "challenger"), or'),
        (Bandit, {"versions": ("3", "4"), "policy": "greedy"}, 'write policy="thompson" or "ucb"'),
        (Bandit, {"versions": ("3", "4"), "reward": "money"}, 'write reward="correct", "label" or'),
        (Bandit, {"versions": ("3", "4"), "scale": 2.0}, "leave scale out, or write"),
        *(
            (Bandit, {"versions": ("3", "4"), "reward": "error", "scale": scale}, 'write reward="error"')
            for scale in (None, 0.0, -1.0, math.nan, math.inf, True, "2")
        ),
        (Bandit, {"versions": ("3", "4"), "explore": 0.0}, "write explore=0.05, say"),
        (ServeBest, {"margin": -0.1}, "write margin=0.01, say"),
        (ServeBest, {"sure": math.inf}, "write sure=0.01, say"),
        (ServeBest, {"least": 0}, "write ServeBest(1_000), say"),
    ],
)
def test_wrong_routing_is_refused_with_a_hint(kind: Any, fields: dict[str, Any], hint: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        kind(**fields)
    assert refused.value.hint.startswith(hint)


def judged(version: str, value: float, labels: int = 2_000, **more: Any) -> Progress:
    return Progress(version=version, **{"metric": "roc_auc", "value": value, "labels": labels} | more)


@pytest.mark.parametrize(
    ("progress", "promoted"),
    [
        ([judged("3", 0.7), judged("5", 0.72), judged("6", 0.74)], "6"),
        ([judged("3", 0.7), judged("6", 0.74), judged("5", 0.72)], "6"),
        ([judged("3", 0.7), judged("5", 0.74), judged("6", 0.74)], "5"),
        ([judged("3", 0.7), judged("5", 0.709)], None),
        ([judged("3", 0.7), judged("5", 0.72, labels=999)], None),
        ([judged("3", 0.7, labels=999), judged("5", 0.72)], None),
        ([judged("5", 0.72)], None),
        ([judged("3", 0.7), judged("5", math.nan)], None),
        ([judged("3", 0.7), judged("5", 0.72, error=0.01)], None),
        ([judged("3", 0.7), judged("5", 0.74, error=0.01)], "5"),
        ([judged("3", 0.7, metric="mae"), judged("5", 0.6, metric="mae")], "5"),
        ([judged("3", 0.7, metric="mae"), judged("5", 0.8, metric="mae")], None),
        ([], None),
    ],
)
def test_best_returns_the_shadow_to_promote(progress: list[Progress], promoted: str | None) -> None:
    assert best(progress, "3", ServeBest(margin=0.01)) == promoted


def test_equal_shadow_is_not_promoted() -> None:
    assert best([judged("3", 0.7), judged("5", 0.7)], "3", ServeBest()) is None


@pytest.mark.parametrize(
    ("task", "reward", "hint"),
    [
        ("regression", "correct", 'write reward="error", scale=10.0'),
        ("binary", "error", 'write reward="correct"'),
        ("multiclass", "error", 'write reward="correct"'),
        ("multiclass", "label", 'write reward="correct"'),
    ],
)
def test_a_reward_that_does_not_fit_the_task_names_one_that_does(
    task: str, reward: Any, hint: str
) -> None:
    bandit = Bandit(versions=("3", "4"), reward=reward, scale=2.0 if reward == "error" else None)
    with pytest.raises(DeclarationError, match=f"of a {task} task") as refused:
        check_routing(bandit, task, ())
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("task", "reward"),
    [
        ("regression", "error"),
        ("regression", "label"),
        ("binary", "correct"),
        ("binary", "label"),
        ("multiclass", "correct"),
    ],
)
def test_a_reward_that_fits_the_task_is_taken(task: str, reward: Any) -> None:
    bandit = Bandit(versions=("3", "4"), reward=reward, scale=2 if reward == "error" else None)
    check_routing(bandit, task, ())


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (LabelRule(wait="1d", low=0.0, high=1.0), None),
        (LabelRule(wait="1d", low=0.25), None),
        (LabelRule(wait="1d"), None),
        (LabelRule(wait="1d", low=-1.0, high=1.0), "at least -1 and at most 1"),
        (LabelRule(wait="1d", high=100.0), "at most 100"),
    ],
)
def test_labels_are_rewards_if_their_declared_range_is_that_of_rewards(
    rule: LabelRule, words: str | None
) -> None:
    bandit = Bandit(versions=("3", "4"), reward="label")
    if words is None:
        check_routing(bandit, "regression", (), rule)
    else:
        with pytest.raises(DeclarationError, match=words) as refused:
            check_routing(bandit, "regression", (), rule)
        assert refused.value.hint.startswith('write reward="error"')
