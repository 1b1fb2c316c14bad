"""Operate models from the command line, by the pipeline's name if that is enough."""

from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import TOY, Run, history

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.published.alarms import Alarm, KeeperStatus, KeeperStatusFile
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.spec.data.records import Label, Prediction
from headwater.spec.loading import load_pipeline


@pytest.fixture
def two(run: Run, tmp_path: Path) -> None:
    """Two versions, the second of which is champion."""
    run("import", TOY, history(tmp_path / "a.parquet"))
    run("train", TOY)
    run("import", TOY, history(tmp_path / "b.parquet", 200, 300))
    run("train", TOY)


@pytest.mark.usefixtures("two")
def test_rulings_are_made_shown_and_audited(run: Run) -> None:
    assert "toy is routed: as declared" in run("routing", "toy").out
    unknown = run("shadow", "add", "toy", "1")
    assert (unknown.status, "module:attribute" in unknown.err) == (1, True)
    assert "toy is routed: shadow:1; declared: champion" in run("shadow", "add", TOY, "1").out
    roles = {row["number"]: row["roles"] for row in run("versions", "toy", "--json").json}
    assert roles == {"1": ["previous", "shadow"], "2": ["champion"]}
    assert "shadow" in run("versions", "toy").out
    assert "toy is routed: champion" in run("shadow", "drop", "toy", "1").out
    result = run("routing", "toy", "--set", "canary:0.1:1", "--reason", "a try").out
    assert "toy is routed: canary:0.1:1" in result
    assert "quarantined: [3, 5), [7, 9)" in run("quarantine", "toy", "3:5", "7:9").out
    assert run("rollback", "toy", "--json").json["version"] == "1"
    audited = [row for row in run("audit", "--json").json if row["action"] not in {"promote", "declare"}]
    rows = [(row["action"], row["by"]) for row in audited]
    assert audited[2]["detail"]["routing"] == "canary:0.1:1"
    (who,) = {by for _, by in rows}
    assert who
    done = ["route", "route", "route", "quarantine", "quarantine", "roll back"]
    assert [action for action, _ in rows] == done
    assert "roll back" in run("audit").out


def test_learning_is_paused_where_each_label_is_learned(run: Run, tmp_path: Path) -> None:
    each = TOY.replace(":toy", ":each")
    run("import", each, history(tmp_path / "a.parquet"))
    run("train", each)
    assert "each is paused at offset 200" in run("pause", each, "--reason", "a look").out
    assert run("resume", "each").out == "each learns\n"
    actions = [row["action"] for row in run("audit", "--json").json]
    assert actions[-2:] == ["pause learning", "resume learning"]
    refused = run("pause", TOY)
    assert (refused.status, "learns on schedule" in refused.err) == (1, True)


def test_what_is_suspect_is_found_and_nothing_is_quarantined(run: Run, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "a.parquet"))
    run("collect", TOY)
    assert run("quarantine", TOY, "--find").out == "no example is suspect\n"
    assert run("quarantine", TOY, "--find", "--json").json == {"suspects": [], "unusual": []}
    assert "nothing to quarantine" in run("quarantine", TOY).err
    assert "takes no offsets" in run("quarantine", TOY, "3:5", "--find").err


def test_what_is_unusual_is_shown_apart_and_not_proposed(run: Run, tmp_path: Path) -> None:
    odd = pl.when(pl.int_range(pl.len()) < 175).then(pl.col("x")).otherwise(60.0)
    run("import", TOY, history(tmp_path / "odd.parquet", x=odd))
    run("collect", TOY)
    shown = run("quarantine", TOY, "--find").out
    assert shown.startswith("no example is suspect\nunusual, may be true")
    assert ("feature 'x' is 60, unusual" in shown, "Next:" in shown) == (True, False)
    assert "and 5 more" in shown
    found = run("quarantine", TOY, "--find", "--json").json
    assert (found["suspects"], len(found["unusual"])) == ([], 25)


@pytest.mark.usefixtures("two")
def test_a_rollback_leaves_out_all_that_the_later_version_learned(run: Run) -> None:
    assert "quarantined: [200, 300)" in run("rollback", "toy", "--quarantine", "learned").out
    assert run("versions", "toy", "--json").json[0]["roles"] == ["champion"]


def test_a_name_that_is_not_enough_is_refused_with_a_hint(run: Run, tmp_path: Path) -> None:
    assert "no pipeline 'toy'" in run("routing", "toy").err
    run("import", TOY, history(tmp_path / "a.parquet"))
    refused = run("routing", "toy", "--set", "champion")
    assert (refused.status, "module:attribute or path.py:attribute" in refused.err) == (1, True)


def test_status_shows_the_alarms_that_hold_though_no_service_runs(run: Run, home: Settings) -> None:
    assert run("status", TOY, "--json").json["alarms"] == []
    assert "alarm" not in run("status", TOY).out
    with Bound(load_pipeline(TOY), home) as bound:
        now = bound.clock.now()
    alarm = Alarm(kind="learning", what="example 7 is out", hint="quarantine it", since=now)
    KeeperStatusFile("toy", home).publish(KeeperStatus(alarms=(alarm,)))
    (shown,) = run("status", TOY, "--json").json["alarms"]
    assert (shown["kind"], shown["what"], shown["hint"]) == ("learning", alarm.what, alarm.hint)
    told = run("status", TOY).out
    assert all(word in told for word in ("learning", f"{now:%Y-%m-%d %H:%M}", alarm.what, alarm.hint))


def test_status_shows_by_which_declaration_a_service_answers(run: Run, home: Settings) -> None:
    toy, slim = load_pipeline(TOY), TOY.replace(":toy", ":slim")
    assert run("status", TOY, "--json").json["serves"] is None
    state = ServedState(version="1", role="champion", name="n", learned_to=0, features=toy.features)
    PublishedModels(toy, home).publish(ServingFile(number=1, epoch=1, states=(state,)))
    assert "serves: version 1, which is asked for x, y" in run("status", TOY).out
    shown = run("status", slim, "--json").json
    assert shown["declared"]["features"] == {"x": "float"}
    assert shown["serves"]["requests"] == {"x": "float", "y": "float"}
    assert not shown["serves"]["as_declared"]
    assert "feature 'y' was float, is gone" in run("status", slim).out


def test_a_new_class_is_listed_and_named(run: Run, home: Settings) -> None:
    shades = TOY.replace(":toy", ":shades")
    assert run("classes", shades, "--json").json == []
    with Bound(load_pipeline(shades), home) as bound:
        now, features = bound.clock.now(), {"x": 1.0, "y": 1.0}
        told = {"a": "red", "b": "gren", "c": "teal"}
        bound.log.record(
            [Prediction(id=i, features=features, output={"red": 1.0}, served_at=now) for i in told]
        )
        bound.log.label([Label(prediction_id=i, value=v, known_at=now) for i, v in told.items()])
    assert run("collect", shades, "--json").json["emitted"] == 1
    assert "gren" in run("classes", "shades").out
    unknown = run("classes", "shades", "--accept", "gren", "--as", "rde")
    assert (unknown.status, "'rde' is no known class; near it: 'red'" in unknown.err) == (1, True)
    assert "--accept CLASS" in run("classes", "shades", "--as", "red").err
    run("classes", "shades", "--accept", "gren", "--as", "red", "--reason", "a slip")
    named = run("classes", "shades", "--accept", "teal", "--json").json
    assert [(one["name"], one["held"], one["becomes"]) for one in named] == [
        ("gren", 1, "red"),
        ("teal", 1, "teal"),
    ]
    assert run("collect", shades, "--json").json["emitted"] == 2
    with Bound(load_pipeline(shades), home) as bound:
        assert bound.log.examples()["label"].to_list() == ["red", "red", "teal"]
    audited = run("audit", "--json").json
    assert [row["action"] for row in audited] == ["name class", "name class"]
    assert audited[0]["detail"] == {"class": "gren", "becomes": "red", "reason": "a slip"}
