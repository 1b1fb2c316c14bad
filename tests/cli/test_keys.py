"""Keys from the command line."""

import pytest
from tests.cli.conftest import TOY, Run


def test_a_key_is_shown_once_listed_and_revoked(run: Run) -> None:
    made = run("keys", "add", "shop", "--scope", "predict", "--scope", "label")
    (key,) = made.out.split()
    assert key.startswith("hw_")
    listed = run("keys", "list")
    assert "predict, label" in listed.out
    assert key not in listed.out
    (row,) = run("keys", "list", "--json").json
    assert (row["name"], row["scopes"], row["revoked_at"]) == ("shop", ["predict", "label"], None)
    assert "sha256" not in row
    assert run("keys", "revoke", "shop").status == 0
    (row,) = run("keys", "list", "--json").json
    assert row["revoked_at"]
    again = run("keys", "add", "shop", "--scope", "read", "--json").json
    assert again["key"] != key


def test_the_audit_names_author_and_action(run: Run) -> None:
    run("keys", "add", "shop", "--scope", "predict", "--scope", "label")
    run("keys", "revoke", "shop")
    rows = run("audit", "--json").json
    assert [row["action"] for row in rows] == ["add key", "revoke key"]
    assert all(row["by"] and row["at"] for row in rows)
    result = run("audit", "--last", "1").out
    assert "revoke key" in result
    assert "add key" not in result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("keys", "add", "shop", "--scope", "all"), ("'all'", "predict, label, operate, read")),
        (("keys", "add", "a shop", "--scope", "read"), ("'a shop'",)),
        (("keys", "revoke", "shop"), ("no valid key 'shop'", "none")),
        (("serve", TOY, "--host", "0.0.0.0"), ("--host 0.0.0.0", "headwater keys add")),
    ],
    ids=lambda value: " ".join(value)[-40:],
)
def test_an_invalid_argument_is_refused(
    run: Run, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = run(*arguments)
    assert (result.status, result.out) == (1, "")
    assert "next: " in result.err
    for word in words:
        assert word in result.err


def test_a_revoked_key_does_not_allow_another_host(run: Run) -> None:
    run("keys", "add", "shop", "--scope", "predict")
    run("keys", "revoke", "shop")
    result = run("serve", TOY, "--host", "0.0.0.0")
    assert result.status == 1
    assert "no key" in result.err


def test_a_key_closes_what_it_is_told_and_the_list_shows_it(run: Run) -> None:
    run("keys", "add", "ops", "--scope", "operate", "--closes", "operate")
    run("keys", "add", "shop", "--scope", "predict")
    closed = [row["closes"] for row in run("keys", "list", "--json").json]
    assert closed == [["operate"], ["predict", "label", "operate", "read"]]
    assert "closes" in run("keys", "list").out
    assert run("keys", "add", "x", "--scope", "read", "--closes", "all").status == 1
