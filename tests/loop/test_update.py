import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import START
from tests.loop import models
from tests.loop.conftest import PIPELINE, Binder, day

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.execute import carry_out
from headwater.loop.rebuild import rebuild, rebuild_here
from headwater.loop.training.plan import plan_update
from headwater.loop.training.update import train
from headwater.registry.version import Version
from headwater.spec.data.records import Label
from headwater.spec.errors import DigestError, HeadwaterWarning, NotEnoughError
from headwater.spec.recipe import OffsetRange
from headwater.spec.updating.decision import decision_of
from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.triggers.schedule import Every
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer
from headwater.spec.updating.update import Reset, Stateful, Stateless, Subsample


def test_the_error_for_a_pipeline_without_examples_says_what_to_do(bind: Binder) -> None:
    with pytest.raises(NotEnoughError, match="headwater collect"):
        train(bind())


@pytest.mark.parametrize("model", [models.river_lr, models.sgd, models.trees])
def test_a_line_of_versions_and_its_rebuild(bind: Binder, model: object) -> None:
    bound = bind(model=model)
    numbers = []
    for _ in range(3):
        day(bound)
        made = train(bound).version
        assert made is not None
        numbers.append((made.number, made.parent, made.update, made.examples))
    assert numbers == [
        ("1", None, "stateless", OffsetRange(0, 120)),
        ("2", "1", "stateful", OffsetRange(120, 240)),
        ("3", "2", "stateful", OffsetRange(240, 360)),
    ]
    for state in Path(bound.settings.storage_uri).rglob("state.bin"):
        state.rename(state.with_suffix(".away"))
    rebuilt = rebuild("line", "3", bound.settings, from_root=True)
    assert [version.number for version in rebuilt.versions] == ["1", "2", "3"]
    assert rebuilt.equal


def test_trees_that_compute_in_threads_rebuild(bind: Binder) -> None:
    bound = bind(model=models.hist, update=Stateless(), threads=2)
    day(bound, 1_000)
    made = train(bound)
    assert made.version is not None
    assert made.warnings == ()
    assert rebuild("line", made.version.number, bound.settings).equal


def test_an_update_warns_of_what_only_a_learned_state_shows(bind: Binder) -> None:
    bound = bind(model=models.addressed)
    assert bound.cautions == ()
    day(bound)
    with pytest.warns(HeadwaterWarning, match="addresses"):
        made = train(bound)
    assert made.version is not None
    assert len(made.warnings) == 1
    assert "Addressed keeps memory addresses" in made.warnings[0]
    day(bound)
    evidence = Evidence(pipeline="line", at=bound.clock.now(), standing="enough")
    decision = decision_of(evidence, TriggerAnswer(fired=True, reason="asked for by a test"))
    bound.decisions.store(decision)
    with pytest.warns(HeadwaterWarning, match="addresses"):
        carried = carry_out(bound, decision.id, by="a test")
    assert carried.version is not None
    assert carried.warnings == made.warnings


SCRIPT = """
import sys
from pathlib import Path
from headwater import Bound, Feature, LabelRule, Pipeline, Settings, Stateful, collect, train
from headwater.loop.replay.history import Columns
from headwater.loop.replay.import_history import import_history
from headwater.spec.errors import DeclarationError
import polars as pl

def model():
    from river import linear_model
    return linear_model.LogisticRegression()

line = Pipeline(name="line", task="binary", features=(Feature("a", float),),
    label=LabelRule(wait="1d"), model=model, update=Stateful())
at = pl.datetime(2024, 1, 1, time_zone="UTC")
rows = pl.select(id=pl.lit("p0"), a=1.0, label=True, served_at=at, known_at=at)
with Bound(line, Settings(home=Path(sys.argv[1]))) as bound:
    import_history(bound.log, rows, Columns())
    collect(bound.log)
    try:
        train(bound)
    except DeclarationError as error:
        print(error)
    print(len(bound.registry.store.versions()))
"""


def test_a_program_that_declares_what_it_trains_is_refused(home: Settings, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "program.py", str(home.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-1_000:]
    said, count = ended.stdout.splitlines()
    assert "a script or a notebook" in said
    assert "into a file of their own" in said
    assert count == "0"


def test_an_update_without_new_examples_makes_no_version(bind: Binder) -> None:
    bound = bind()
    day(bound)
    train(bound)
    again = train(bound)
    assert again.version is None
    assert "no new examples" in again.reason
    assert len(bound.registry.store.versions()) == 1


def test_two_fields_move_a_pipeline_from_stage_two_to_three(bind: Binder) -> None:
    stage2 = bind(update=Stateless(window="2d"), triggers=(Every("1d"),))
    for _ in range(4):
        day(stage2)
    first = train(stage2).version
    assert first is not None
    assert first.examples == OffsetRange(120, 480)  # the window holds its edge
    stage3 = bind(stage2.clock, update=Stateful(), triggers=(Every("1d"),))
    day(stage3)
    second = train(stage3).version
    assert second is not None
    assert (second.parent, second.examples) == ("1", OffsetRange(480, 600))


def test_a_candidate_promoted_by_hand_is_no_parent(bind: Binder) -> None:
    bound = bind(promotion="by hand")
    day(bound)
    first = train(bound)
    assert not first.promoted
    assert bound.registry.champion() is None
    bound.registry.promote("1", by="test", reason="looks right")
    for _ in range(2):
        day(bound)
        made = train(bound).version
        assert made is not None
        assert made.parent == "1"
    assert made.examples == OffsetRange(120, 360)
    assert bound.registry.store.aliases() == {"champion": "1", "challenger": "3"}


def test_quarantined_offsets_are_not_learned_again(bind: Binder) -> None:
    bound = bind()
    for _ in range(2):
        day(bound)
        train(bound)
    bound.registry.rollback(by="test", reason="poison", quarantine=[OffsetRange(150, 200)])
    assert bound.registry.store.aliases()["champion"] == "1"
    day(bound)
    made = train(bound).version
    assert made is not None
    assert (made.parent, made.examples, made.learned) == ("1", OffsetRange(120, 360), 190)
    assert bound.registry.store.recipe(made).exclusions == (OffsetRange(150, 200),)
    assert rebuild("line", made.number, bound.settings).equal


def test_a_start_from_scratch_learns_corrections_instead(bind: Binder) -> None:
    bound = bind(update=Stateless())
    day(bound, rows=50)
    revised = [
        Label(prediction_id=f"02-{i}", value=i % 2 == 0, known_at=bound.clock.now(), key="again")
        for i in range(50)
    ]
    bound.log.label(revised)
    emitted = collect(bound.log).emitted
    assert 0 < emitted < 50  # the others had that value before
    made = train(bound).version
    assert made is not None
    assert made.examples == OffsetRange(0, 50 + emitted)
    assert made.learned == 50


@pytest.mark.parametrize(("revision", "learned"), [("learn", 52), ("ignore", 50)])
def test_a_stateful_update_follows_the_revision_policy(
    bind: Binder, revision: str, learned: int
) -> None:
    from msgspec.structs import replace  # noqa: PLC0415

    bound = bind(label=replace(PIPELINE.label, revision=revision))
    day(bound, rows=50)
    train(bound)
    frame = bound.log.examples(0, 2, ("prediction_id", "label"))
    flips = [
        Label(prediction_id=id_, value=not value, known_at=bound.clock.now(), key="flip")
        for id_, value in frame.rows()
    ]
    bound.log.label(flips)
    day(bound, rows=50)
    made = train(bound).version
    assert made is not None
    assert made.learned == learned


def test_digests_do_not_depend_on_how_examples_were_collected(bind: Binder) -> None:
    daily = bind(model=models.sgd, batch_rows=64)
    for _ in range(3):
        day(daily, 70)
    assert daily.log.archive["examples"].stop() == 210
    one = train(daily).version
    late = bind(name="late", model=models.sgd, batch_rows=64)
    for _ in range(3):
        day(late, 70, collected=False)
    collect(late.log)
    two = train(late).version
    assert one is not None
    assert two is not None
    assert one.digest == two.digest


def test_one_fold_equals_many_for_a_learner_that_learns_one_by_one(bind: Binder) -> None:
    steps = bind(model=models.river_hat)
    for _ in range(3):
        day(steps)
        last = train(steps).version
    whole = bind(name="whole", model=models.river_hat)
    for _ in range(3):
        day(whole)
    once = train(whole).version
    assert last is not None
    assert once is not None
    assert last.digest == once.digest


def test_a_changed_archive_is_not_learned_from(bind: Binder) -> None:
    """The database has what the changed file held; without it, the rebuild would be another state."""
    import polars as pl  # noqa: PLC0415

    bound = bind()
    day(bound)
    train(bound)
    (path,) = Path(bound.log.archive["examples"].address).glob("*.parquet")
    frame = pl.read_parquet(path)
    changed = pl.when(pl.col("offset") < 100).then(~pl.col("label")).otherwise(pl.col("label"))
    frame.with_columns(changed.alias("label")).write_parquet(path)
    assert rebuild("line", "1", bound.settings).equal


def version(made_days: int, started_days: int) -> Version:
    return Version(
        pipeline="line",
        number="7",
        update="stateful",
        parent=None,
        examples=OffsetRange(0, 10),
        learned=10,
        train_cpu_s=0.0,
        made_at=START + timedelta(days=made_days),
        line_started_at=START + timedelta(days=started_days),
        digest="",
        recipe_id="",
        model_id="",
        run_id="",
    )


_RESET = Stateful(reset=Reset(every="30d", window="90d", subsample=Subsample(rows=100)))


@pytest.mark.parametrize(
    ("update", "champion", "days", "starts_anew", "window"),
    [
        (Stateless(window="90d"), version(1, 0), 2, True, "90d"),
        (Stateful(window="7d"), None, 0, True, "7d"),
        (Stateful(), version(1, 0), 900, False, None),
        (_RESET, version(29, 0), 29, False, None),
        (_RESET, version(29, 0), 30, True, "90d"),
        (_RESET, version(35, 30), 59, False, None),
        (_RESET, version(35, 30), 60, True, "90d"),
    ],
)
def test_timetable_of_fresh_starts(
    update: Stateful | Stateless,
    champion: Version | None,
    days: int,
    starts_anew: bool,
    window: str | None,
) -> None:
    from msgspec.structs import replace  # noqa: PLC0415

    plan = plan_update(replace(PIPELINE, update=update), champion, START + timedelta(days=days))
    assert (plan.parent is None) == starts_anew
    assert plan.window == window


def test_a_stored_state_that_was_changed_is_never_parsed(bind: Binder) -> None:
    bound = bind()
    day(bound)
    train(bound)
    (state,) = Path(bound.settings.storage_uri).rglob("state.bin")
    bomb = b"cos\nsystem\n(S'touch " + str(bound.settings.root / "exploded").encode() + b"'\ntR."
    state.write_bytes(bomb)
    day(bound)
    again = bind(bound.clock)
    with pytest.raises(DigestError, match="bytes are not those"):
        again.registry.promote("1", by="a test", reason="it is refused")
    with pytest.warns(HeadwaterWarning, match="folded again"):
        train(again)
    assert not (bound.settings.root / "exploded").exists()


@pytest.mark.parametrize("folder", ['it\'s "mine" $HOME', "é & <a> {b}; ~ + , @ : = 'x' `y` !"])
def test_a_home_of_any_other_name_learns_and_rebuilds(
    folder: str, mlflow_template: Path, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path / folder)
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    with Bound(PIPELINE, settings, SimulatedClock(START)) as bound:
        day(bound)
        train(bound)
    assert all(one.equal for one in rebuild_here("line", "1", settings).versions)
    assert [path.name for path in tmp_path.iterdir()] == [folder]
