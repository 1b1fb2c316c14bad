"""The journey of a user, command by command."""

import shlex
from itertools import pairwise
from pathlib import Path

import polars as pl
from tests.cli.conftest import TOY, TOYS, Run, history


def test_from_history_to_rollback(run: Run, tmp_path: Path) -> None:
    first, more = history(tmp_path / "a.parquet"), history(tmp_path / "b.parquet", 200, 300)
    assert run("import", TOY, first, "--json").json == {"records_added": 400}
    assert "0 records added" in run("import", TOY, first).out  # again adds nothing
    shown = run("import", TOY, first, "--dry-run").out
    assert "200 predictions are left out: recorded before with the same values" in shown
    assert "nothing was recorded" in shown
    trained = run("train", TOY, "--json").json
    assert (trained["version"]["number"], trained["promoted"]) == ("1", True)
    assert trained["version"]["learned"] == 200
    run("import", TOY, more)
    assert "fine-tunes version 1" in run("train", TOY).out
    assert "no new version" in run("train", TOY).out

    versions = run("versions", "toy", "--json").json
    assert [(v["number"], v["parent"], v["serving"]) for v in versions] == [
        ("1", None, False),
        ("2", "1", True),
    ]
    assert "2 *" in run("versions", TOY).out
    assert [node["depth"] for node in run("lineage", "toy", "--json").json] == [0, 1]
    drawn = run("lineage", "toy", "--picture", str(tmp_path / "line.png"))
    assert "← champion" in drawn.out
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")

    rebuilt = run("rebuild", "toy", "2", "--from-root")
    assert rebuilt.status == 0
    assert rebuilt.out.count("digests equal") == 2
    poison = ("--quarantine", "200:300", "--reason", "flipped labels")
    back = run("rollback", "toy", *poison, "--json").json
    assert (back["version"], back["previous"], back["reason"]) == ("1", "2", "flipped labels")
    status = run("status", TOY, "--json").json
    assert status["quarantined"] == [{"start": 200, "stop": 300}]
    assert status["counts"]["examples"] == 300
    assert "version 2 is champion" in run("promote", "toy", "2").out


def test_examples_are_printed_written_and_the_same(run: Run, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "a.csv.parquet"))
    assert "200 new examples" in run("collect", TOY).out
    out = tmp_path / "out.parquet"
    assert "10 rows" in run("examples", TOY, "--start", "5", "--stop", "15", "--out", str(out)).out
    written = pl.read_parquet(out)
    assert written["offset"].to_list() == list(range(5, 15))
    lines = run("examples", TOY, "--start", "5", "--stop", "15", "--json").out.splitlines()
    assert len(lines) == 10
    run("examples", TOY, "--out", str(tmp_path / "out.csv"))
    assert pl.read_csv(tmp_path / "out.csv").height == 200


def test_by_hand_leaves_promotion_to_the_user(run: Run, tmp_path: Path) -> None:
    pipeline = f"{TOYS}:by_hand"
    run("import", pipeline, history(tmp_path / "a.parquet"))
    assert "to let it serve: headwater promote by-hand 1" in run("train", pipeline).out
    assert "champion: none" in run("status", pipeline).out
    assert "version 1 is champion" in run("promote", "by-hand", "1").out


def test_doctor_finds_nothing_wrong(run: Run) -> None:
    found = run("doctor", "--json")
    assert found.status == 0
    assert {"database", "storage", "MLflow"} <= {finding["what"] for finding in found.json}


def test_a_decision_is_made_listed_and_carried_out(run: Run, tmp_path: Path) -> None:
    pipeline = f"{TOYS}:watched"
    run("import", pipeline, history(tmp_path / "a.parquet"))
    quiet = run("monitor", pipeline, "--json").json
    assert (quiet["fired"], quiet["evidence"]["standing"]) == (False, "no_champion")
    run("train", pipeline)
    assert "no decision waits" in run("update", pipeline).out
    run("import", pipeline, history(tmp_path / "b.parquet", 200, 300))
    result = run("monitor", pipeline)
    assert "100 of 50 new examples" in result.out
    assert f"Next: headwater update {pipeline}" in result.out
    updated = run("update", pipeline, "--json").json
    assert (updated["version"]["number"], updated["promoted"]) == ("2", True)
    (fired,) = run("decisions", "watched", "--fired", "--json").json
    assert fired["outcome"]["version"] == "2"
    assert updated["version"]["decision"] == fired["id"]
    assert len(run("decisions", "watched", "--json").json) == 2
    assert "100 of 50 new examples" in run("decisions", "watched").out
    again = run("update", pipeline, "--decision", fired["id"])
    assert "done already" in again.out
    assert run("performance", pipeline, "--json").json == []


def test_a_model_that_will_not_rebuild_is_warned_of_once(run: Run, tmp_path: Path) -> None:
    pipeline, why = f"{TOYS}:unseeded", "will not rebuild to the same digest: MLPClassifier"
    run("import", pipeline, history(tmp_path / "a.parquet"))
    result = run("train", pipeline, "--json")
    assert result.err.count(why) == 1
    assert "next: write random_state=1" in result.err
    (warning,) = result.json["warnings"]
    assert why in warning
    assert run("train", pipeline).err.count(why) == 1
    run("import", pipeline, history(tmp_path / "b.parquet", 200, 300))
    assert run("monitor", pipeline, "--json").json["fired"]
    updated = run("update", pipeline, "--json")
    assert updated.json["warnings"] == [warning]
    assert updated.err.count(why) == 1
    assert result.out.count("\n") == 1


def test_a_model_that_rebuilds_is_not_warned_of(run: Run, tmp_path: Path) -> None:
    run("import", TOY, history(tmp_path / "a.parquet"))
    result = run("train", TOY, "--json")
    assert result.json["warnings"] == []
    assert "warning" not in result.err


def test_a_dry_run_remarks_on_what_may_be_a_mistake(run: Run, tmp_path: Path) -> None:
    empty, table = tmp_path / "empty.csv", tmp_path / "shades.csv"
    empty.write_text("id,served_at,known_at,label,x,y\n")
    told = run("import", TOY, str(empty), "--dry-run")
    assert (told.status, told.out) == (0, "the table has no rows: there is nothing to import\n")
    assert run("import", TOY, str(empty), "--dry-run", "--json").json["rows"] == 0
    table.write_text(
        "id,served_at,known_at,label,x,y\n"
        "a,2024-02-01T12:00Z,2024-02-01T13:00Z,red,1,2\n"
        "b,2024-02-01T12:00Z,2024-03-01T13:00Z,gren,1,2\n"
        "c,2024-02-05T12:00Z,2024-02-01T13:00Z,red,1,2\n"
    )
    said = run("import", TOY.replace(":toy", ":shades"), str(table), "--dry-run").out
    assert "1 labels come after the wait, and are marked as late; the first is that of 'b'" in said
    assert "1 labels are dropped: their prediction comes after the wait; the first is that of 'c" in said
    assert "1 labels are of classes that are not declared ('gren'); the first is that of 'b'" in said


def test_a_dry_run_of_a_text_file_shows_it_as_it_would_be_recorded(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(
        "order|at|known|bought|x|y|colour\n"
        "1|01.02.2024 12:00|01.02.2024 13:00|ja|1.5|2|red\n"
        "2|01.02.2024 12:30|||0.5|1|blue\n"
    )
    options = ["--id", "order", "--served-at", "at", "--known-at", "known", "--label", "bought"]
    options += ["--delimiter", "|", "--true", "ja", "--false", "nein", "--zone", "Europe/Berlin"]
    options += ["--time-format", "%d.%m.%Y %H:%M"]
    told = run("import", TOY, str(table), *options, "--dry-run")
    assert told.status == 0
    assert '"served_at":"2024-02-01T11:00:00Z"' in told.out
    assert "2 rows: 2 predictions and 1 labels would be recorded" in told.out
    assert "1 rows have no label" in told.out
    assert "columns that are not read: colour" in told.out
    said = " ".join(told.out.split())  # it may be broken into lines
    assert f"Next: {shlex.join(['headwater', 'import', TOY, str(table)])}" in said
    for option, value in pairwise(options):
        if option.startswith("--"):
            assert shlex.join([option, value]) in said
    found = run("import", TOY, str(table), *options, "--dry-run", "--json").json
    assert found["counts"] == {
        "predictions": 2,
        "labels": 1,
        "predictions_known": 0,
        "labels_known": 0,
    }
    assert (found["rows"], found["unlabelled"], found["unused"]) == (2, 1, ["colour"])
    assert found["first"][0][1]["value"] is True
    assert run("status", TOY, "--json").json["counts"]["unsequenced"] == 0
    refused = run("import", TOY, str(table), *options[:-2])
    assert refused.status != 0
    assert "line 2: column 'at' holds '01.02.2024 12:00', which is no time with a zone" in refused.err
    assert run("import", TOY, str(table), *options, "--json").json == {"records_added": 3}
