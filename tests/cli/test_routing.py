"""Routing from the command line."""

from pathlib import Path

from tests.cli.conftest import TOY, Run, history


def test_a_routing_is_shown_set_and_taken_back(run: Run, tmp_path: Path) -> None:
    assert "is routed: champion; declared: champion" in run("routing", TOY).out
    run("import", TOY, history(tmp_path / "a.parquet"))
    run("train", TOY)
    result = run("routing", TOY, "--set", "canary:0.1:1", "--reason", "a try").out
    assert "is routed: canary:0.1:1; declared: champion" in result
    assert "(a try)" in result
    found = run("routing", TOY, "--declared", "--json").json
    assert found["routing"] == {"type": "champion_only"}
    assert [one["number"] for one in found["history"]] == [1, 2]
    unknown = run("routing", TOY, "--set", "shadow:7")
    assert (unknown.status, "no version '7'" in unknown.err) == (1, True)
    assert "write" in run("routing", TOY, "--set", "duel:7").err
    assert run("routing", TOY, "--set", "champion", "--declared").status == 1
