import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.monitoring.attention.attention import Attention, attend, overruled
from headwater.monitoring.attention.measured_loss import weighed
from headwater.monitoring.attention.window_pair import WatchedChampion
from headwater.monitoring.measure.losses import Loss
from headwater.spec.data.feature import Feature
from headwater.spec.data.records import Output
from headwater.spec.pipeline import Metric, Task
from headwater.spec.updating.evidence import Finding, Verdict

_FEATURES = (
    Feature("load", float, nullable=True),
    Feature("heat", float, nullable=True),
    Feature("idle", float, nullable=True),
    Feature("site", str, nullable=True),
)
_SITES = {"north": -0.8, "south": 0.0, "west": 0.8}
_Frames = tuple[pl.DataFrame, pl.DataFrame]


def _rows(seed: int, rows: int = 4_000, hot: float = 0.0) -> pl.DataFrame:
    """Load goes with heat, site is a matter of its own, and idle tells nothing of the label."""
    rng = np.random.default_rng(seed)
    heat = rng.normal(hot, 1, rows)
    load = 0.8 * heat + 0.6 * rng.normal(size=rows)
    site = rng.choice(list(_SITES), rows)
    chance = _chance(load, heat, site)
    return pl.DataFrame(
        {
            "load": load,
            "heat": heat,
            "idle": rng.normal(size=rows),
            "site": site,
            "label": rng.random(rows) < chance,
            "output": chance,
        }
    )


def _chance(load: np.ndarray, heat: np.ndarray, site: np.ndarray) -> np.ndarray:
    shift = np.array([_SITES.get(str(name), 0.0) for name in site])
    return np.asarray(1 / (1 + np.exp(-(1.8 * load - 0.4 * heat + shift - 0.5))))


def _champion(frame: pl.DataFrame) -> list[float]:
    numbers = {
        name: frame[name].cast(pl.Float64).fill_nan(None).fill_null(0.0) for name in ("load", "heat")
    }
    numbers = {name: values.clip(-50, 50) for name, values in numbers.items()}
    site = frame["site"].cast(pl.String).fill_null("").to_numpy()
    return list(_chance(numbers["load"].to_numpy(), numbers["heat"].to_numpy(), site))


_WATCHED = WatchedChampion(_FEATURES, "binary", "roc_auc", _champion, least=200)


def _attend(
    current: pl.DataFrame,
    mature: pl.DataFrame | None = None,
    *,
    least: int = 200,
    reference: pl.DataFrame | None = None,
) -> Attention:
    return attend(
        _rows(1) if reference is None else reference,
        _served(current).drop("label"),
        _WATCHED._replace(least=least),
        mature=None if mature is None else _served(mature),
    )


def _served(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(output=pl.Series(_champion(frame), dtype=pl.Float64))


def _shuffled(name: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.with_columns(pl.col(name).shuffle(seed=3))


_HARMFUL: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]] = {
    "noisy": ("load", lambda f: f.with_columns(load=f["load"] + 2 * f["idle"])),
    "stuck": ("load", lambda f: f.with_columns(load=pl.lit(0.3))),
    "reversed": ("load", lambda f: f.with_columns(load=-pl.col("load"))),
    "silent": ("load", lambda f: f.with_columns(load=pl.lit(None, pl.Float64))),
    "swapped": ("load", lambda f: f.with_columns(load=pl.col("idle") * 3, idle=pl.col("load"))),
    "renamed": (
        "site",
        lambda f: f.with_columns(site=pl.col("site").replace({"north": "n", "west": "w"})),
    ),
}


@pytest.mark.parametrize("how", _HARMFUL)
def test_a_broken_column_that_the_champion_leans_on_needs_somebody(how: str) -> None:
    name, broken = _HARMFUL[how]
    attention = _attend(broken(_rows(2)))
    assert attention.verdict == "act"
    first = next(f for f in attention.findings if f.what == name)
    assert first.verdict == "act"
    assert first.metric_effect is not None
    assert first.metric_effect >= 0.008
    assert first.output_effect > 0
    assert name in first.sentence
    assert "ROC AUC" in first.sentence


def test_ranks_show_noise_that_a_long_tail_hides_from_the_distance() -> None:
    def tailed(frame: pl.DataFrame) -> pl.DataFrame:
        spike = np.where(np.random.default_rng(7).random(frame.height) < 0.003, 400.0, 0.0)
        return _served(frame.with_columns(load=pl.col("load") + spike))

    noisy = tailed(_rows(2)).with_columns(load=pl.col("load") + 1.5 * pl.col("idle"))
    attention = attend(
        tailed(_rows(1)),
        _served(noisy).drop("label"),
        _WATCHED,
    )
    assert not any(column.drifted for column in attention.columns)
    assert attention.verdict == "act"
    assert "load" in {f.what for f in attention.findings if f.verdict == "act"}


def _days(seed: int, days: int) -> pl.DataFrame:
    """Rows of a day have about the same heat, and about the same load for it."""
    rng = np.random.default_rng(seed)
    rows = 4_000 // days * days
    heat, more = np.repeat(rng.normal(size=(2, days)), rows // days, axis=1)
    heat, more = (0.8 * of + 0.6 * rng.normal(size=rows) for of in (heat, more))
    frame = _rows(seed, rows).with_columns(heat=pl.Series(heat), load=pl.Series(0.8 * heat + 0.6 * more))
    chance = _chance(frame["load"].to_numpy(), heat, frame["site"].to_numpy())
    return frame.with_columns(label=pl.Series(rng.random(rows) < chance), output=pl.Series(chance))


def test_a_week_is_not_like_another_and_needs_nobody_for_that() -> None:
    """Its rows are seven days, which luck makes hot or calm; what breaks in it is seen all the same."""
    acts = {"as ever": 0, "stuck": 0}
    for seed in range(20):
        week = _days(100 + seed, 7)
        for how, current in (("as ever", week), ("stuck", week.with_columns(load=pl.lit(0.3)))):
            acts[how] += _attend(current, reference=_days(seed, 20)).verdict == "act"
    assert acts["as ever"] <= 2
    assert acts["stuck"] >= 19


def test_served_outputs_are_not_predicted_again() -> None:
    predicted: list[int] = []

    def champion(frame: pl.DataFrame) -> list[float]:
        predicted.append(frame.height)
        return _champion(frame)

    rows, earlier = _served(_rows(2)), _rows(3).select("label", "output")
    attention = attend(
        _rows(1),
        rows,
        _WATCHED._replace(predict=champion),
        mature=rows.select("label", "output"),
        earlier=earlier,
    )
    assert attention.verdict == "benign"
    assert predicted == [4_000]


def test_a_shuffled_column_that_no_test_of_one_column_sees_is_caught_by_its_relations() -> None:
    attention = _attend(_shuffled("load")(_rows(2)))
    assert not any(column.drifted for column in attention.columns)
    assert attention.verdict == "act"
    act = {f.what: f for f in attention.findings if f.verdict == "act"}
    assert {"joint", "load"} <= set(act)
    assert act["joint"].sentence.startswith("load no longer goes with the other columns as before")


@pytest.mark.parametrize("how", ["nothing", "hotter", "idle stuck", "idle scaled", "more of one site"])
def test_a_change_that_costs_nothing_is_benign_or_watched(how: str) -> None:
    rows = _rows(2)
    benign = {
        "nothing": rows,
        "hotter": _rows(2, hot=0.7),
        "idle stuck": rows.with_columns(idle=pl.lit(0.3)),
        "idle scaled": rows.with_columns(pl.col("idle") * 40),
        "more of one site": _rows(2, 12_000).filter((pl.col("site") == "west") | (pl.col("idle") > 0.8)),
    }
    attention = _attend(benign[how])
    assert attention.verdict in ("benign", "watch")
    assert any(c.drifted for c in attention.columns) == (how != "nothing")


def test_findings_are_ranked_and_the_verdict_is_the_first_ones() -> None:
    rows = _rows(2).with_columns(idle=pl.col("idle") * 40, load=-pl.col("load"))
    attention = _attend(rows)
    order = ["act", "watch", "benign"]
    ranks = [order.index(f.verdict) for f in attention.findings]
    assert ranks == sorted(ranks)
    assert ranks[-1] > ranks[0]
    assert attention.verdict == attention.findings[0].verdict


def test_the_estimated_effect_is_what_the_labels_later_show() -> None:
    rows = _rows(2, 20_000)
    broken = rows.with_columns(
        load=rows["load"] + pl.Series(np.random.default_rng(0).normal(0, 1, 20_000))
    )
    attention = _attend(broken)
    estimate = next(f.metric_effect for f in attention.findings if f.what == "load")
    assert estimate == pytest.approx(_auc(rows) - _auc(broken), abs=0.015)


def _auc(rows: pl.DataFrame) -> float:
    outputs, labels = np.array(_champion(rows)), rows["label"].to_numpy()
    ranks = np.argsort(np.argsort(outputs)) + 1
    ups = labels.sum()
    return float((ranks[labels].sum() - ups * (ups + 1) / 2) / (ups * (len(labels) - ups)))


def test_a_changed_concept_is_seen_once_there_are_labels_and_only_then() -> None:
    rows = _rows(2)
    changed = rows.with_columns(label=pl.col("label") != (pl.col("idle") > 0.6))
    assert _attend(changed).verdict == "benign"
    attention = _attend(changed, changed)
    assert attention.verdict == "act"
    assert attention.findings[0].what == "concept"
    assert attention.findings[0].metric_effect == pytest.approx(_auc(rows) - _auc(changed), abs=0.03)


def test_a_changed_concept_is_told_apart_from_a_column_that_broke_at_the_same_time() -> None:
    rows = _rows(2).with_columns(load=_rows(2)["load"] * 1.2 + 0.4)
    both = rows.with_columns(label=pl.col("label") != (pl.col("idle") > 0.6))
    assert "concept" not in {f.what for f in _attend(rows, rows).findings}
    assert "concept" in {f.what for f in _attend(both, both).findings if f.verdict == "act"}


def test_a_champion_that_was_never_as_good_as_others_is_no_change_where_its_own_past_is_known() -> None:
    better = _rows(1).with_columns(
        output=0.8 * pl.col("output") + 0.2 * pl.col("label").cast(pl.Float64)
    )
    verdicts = [
        attend(
            better,
            _rows(2),
            _WATCHED,
            mature=_rows(3),
            earlier=earlier,
        ).verdict
        for earlier in (None, _rows(4))
    ]
    assert verdicts == ["act", "benign"]


def test_labels_as_before_make_no_finding() -> None:
    attention = _attend(_rows(2), _rows(3))
    assert (attention.verdict, attention.findings, attention.notes) == ("benign", (), ())


def test_a_moved_share_of_labels_is_a_benign_finding() -> None:
    rows = _rows(3, 8_000).filter(pl.col("label") | (pl.col("idle") > 0.5))
    attention = _attend(_rows(2), rows)
    assert [f.what for f in attention.findings] == ["label"]
    assert attention.verdict == "benign"


@pytest.mark.parametrize("rows", [0, 1, 199])
def test_too_few_rows_are_no_verdict(rows: int) -> None:
    attention = _attend(_rows(2)[:rows])
    assert attention.verdict is None
    assert attention.notes[0].startswith("insufficient_data")


def test_too_few_labels_are_a_note_and_the_rest_is_judged() -> None:
    attention = _attend(_rows(2), _rows(3).with_columns(label=pl.lit(None, pl.Boolean)))
    assert attention.verdict == "benign"
    assert attention.notes[0].startswith("insufficient_data: 0 labels")


_POISON: dict[str, pl.Expr] = {
    "null": pl.lit(None, pl.Float64),
    "untyped null": pl.lit(None),
    "nan": pl.lit(math.nan),
    "inf": pl.lit(math.inf),
    "constant": pl.lit(1.0),
}


@settings(deadline=None, max_examples=12)
@given(
    how=st.sampled_from(sorted(_POISON)),
    name=st.sampled_from(["load", "heat", "idle"]),
    rows=st.sampled_from([2, 3, 50, 400]),
    also=st.booleans(),
)
def test_no_value_makes_attend_fail(how: str, name: str, rows: int, also: bool) -> None:
    current = _rows(2, rows).with_columns(_POISON[how].alias(name))
    reference = _rows(1, 400).with_columns(_POISON[how].alias(name)) if also else _rows(1, 400)
    attention = attend(
        reference,
        current,
        _WATCHED._replace(least=2),
        mature=current,
    )
    assert attention.verdict is not None
    judged = {column.name for column in attention.columns}
    assert (name in judged) == (how == "constant")
    assert how == "constant" or any(note.startswith(f"{name}: not judged") for note in attention.notes)


def test_the_same_seed_gives_the_same_answer() -> None:
    rows = _rows(2, 6_000).with_columns(load=pl.col("load") * 3)
    assert _attend(rows) == _attend(rows)


@pytest.mark.parametrize(
    ("task", "metric", "label"),
    [
        ("regression", "mae", pl.col("load") * 2),
        ("regression", "rmse", pl.col("load") * 2),
        (
            "multiclass",
            "log_loss",
            pl.when(pl.col("load") > 0).then(pl.lit("up")).otherwise(pl.lit("down")),
        ),
        (
            "multiclass",
            "accuracy",
            pl.when(pl.col("load") > 0).then(pl.lit("up")).otherwise(pl.lit("down")),
        ),
        ("binary", "log_loss", pl.col("label")),
        ("binary", "accuracy", pl.col("label")),
        ("binary", "f1", pl.col("label")),
    ],
)
def test_every_task_and_metric_calls_a_reversed_column_harmful(
    task: Task, metric: Metric, label: pl.Expr
) -> None:
    def predict(frame: pl.DataFrame) -> Sequence[Output]:
        if task == "binary":
            return _champion(frame)
        load = frame["load"].to_list()
        if task == "regression":
            return [2 * value for value in load]
        return [{"up": 0.9, "down": 0.1} if value > 0 else {"up": 0.1, "down": 0.9} for value in load]

    def served(frame: pl.DataFrame) -> pl.DataFrame:
        outputs = predict(frame)
        texts = [json.dumps(o) if isinstance(o, dict) else o for o in outputs]
        return frame.with_columns(output=pl.Series(texts))

    reference, now = (served(_rows(seed).with_columns(label=label)) for seed in (1, 2))
    broken = served(now.with_columns(load=-pl.col("load") + 1))
    for mature in (None, broken):
        attention = attend(
            reference,
            broken,
            WatchedChampion(_FEATURES, task, metric, predict, least=200),
            mature=mature,
        )
        assert attention.verdict == "act"


def _attention_on(*moved: tuple[str, Verdict, float]) -> Attention:
    findings = tuple(
        Finding(
            what=what,
            distance=0.2,
            measure="",
            drifted=True,
            output_effect=effect,
            verdict=says,
            sentence=says,
        )
        for what, says, effect in moved
    )
    return Attention(
        verdict=findings[0].verdict if findings else "benign", findings=findings, notes=("said",)
    )


@pytest.mark.parametrize(
    ("newest", "judged", "verdict"),
    [
        ((("load", "act", 0.1),), (("load", "benign", 0.1),), "benign"),
        ((("load", "watch", 0.1),), (("load", "act", 0.06),), "act"),
        ((("load", "act", 0.1),), (), "act"),
        ((("load", "act", 0.1),), (("heat", "benign", 0.1),), "act"),
        ((("load", "act", 0.1),), (("load", "benign", 0.03),), "act"),
        ((("heat", "benign", 0.1),), (("load", "act", 0.1), ("heat", "benign", 0.1)), "benign"),
        ((), (("concept", "act", 0.0),), "act"),
    ],
    ids=["excused", "worse", "unseen", "another", "more of it", "over again", "concept"],
)
def test_labels_overrule_estimates_that_they_cover(
    newest: Sequence[tuple[str, Verdict, float]],
    judged: Sequence[tuple[str, Verdict, float]],
    verdict: Verdict,
) -> None:
    assert overruled(_attention_on(*newest), _attention_on(*judged)).verdict == verdict


@pytest.mark.parametrize(
    ("judged", "verdict"),
    [(("load", "act", 0.1), None), (("label", "benign", 0.0), None), (("concept", "act", 0.0), "act")],
)
def test_too_little_to_judge_is_not_benign(judged: tuple[str, Verdict, float], verdict: Verdict) -> None:
    attention = overruled(Attention(notes=("insufficient_data",)), _attention_on(judged))
    assert (attention.verdict, attention.notes) == (verdict, ("insufficient_data", "said"))


@pytest.mark.parametrize(
    ("clear", "changed", "verdict"),
    [(True, False, "act"), (False, False, "watch"), (False, True, "act"), (False, None, "act")],
)
def test_a_usual_move_is_no_second_witness_of_a_hard_week(
    clear: bool, changed: bool | None, verdict: Verdict
) -> None:
    """Labels may say that other rows came, which are harder: then nothing is wrong."""
    finding = Finding(
        what="load",
        distance=1.0,
        measure="",
        drifted=True,
        clear=clear,
        metric_effect=0.03,
        verdict="watch",
        sentence="",
    )
    (weighed_finding, *_) = weighed("roc_auc", [finding], Loss(0.03, 0.005), changed)
    assert weighed_finding.verdict == verdict
