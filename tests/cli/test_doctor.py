"""What `headwater doctor` says of stores, and that it makes none."""

import stat
from pathlib import Path

import boto3
import pytest
from tests.cli.conftest import TOY, Run, history
from tests.features.conftest import S3, s3

from headwater.infra.settings import Settings
from headwater.loop.doctor import CheckResult, checkup

__all__ = ["s3"]


def found(settings: Settings) -> dict[str, CheckResult]:
    return {one.what: one for one in checkup(settings)}


def test_the_doctor_makes_no_home(tmp_path: Path) -> None:
    checks = found(Settings(home=tmp_path / "home"))
    for what in ("home", "signing key", "database", "storage", "MLflow"):
        assert (checks[what].good, "not there yet" in checks[what].found) == (True, True), what
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_no_home(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "deep" / "none"
    said = run("doctor", "--json", HEADWATER_HOME=str(home))
    assert (said.status, home.parent.exists()) == (0, False)


def test_the_doctor_makes_nothing_in_a_home(tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir(mode=0o700)
    assert all(one.good for one in checkup(Settings(home=home)))
    assert list(home.iterdir()) == []


def test_the_doctor_makes_no_bucket(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    where = Settings(home=tmp_path / "home", storage="s3://not-there/x", s3_endpoint=s3.endpoint)
    storage = found(where)["storage"]
    assert (storage.good, "no bucket 'not-there'" in storage.found) == (False, True)
    buckets = boto3.client("s3", endpoint_url=s3.endpoint).list_buckets()["Buckets"]
    assert "not-there" not in [one["Name"] for one in buckets]


@pytest.mark.parametrize("rights", [0o755, 0o750, 0o701])
def test_the_doctor_says_who_else_can_read_a_home(rights: int, tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    home.chmod(rights)
    check = found(Settings(home=home))["home"]
    assert (check.good, f"{rights:04o}" in check.found) == (False, True)
    assert check.hint == f"close it: chmod 700 {home}"
    home.chmod(0o700)
    assert found(Settings(home=home))["home"].good


def test_what_commands_make_is_their_owner_s_alone(run: Run, home: Settings, tmp_path: Path) -> None:
    before = set(home.root.rglob("*"))
    run("import", TOY, history(tmp_path / "a.parquet"))
    run("train", TOY)
    # MLflow copies our text with the rights that it has where headwater is installed.
    made = {path for path in home.root.rglob("*") if path.name != "pyfunc_model.py"} - before
    assert len(made) > 10
    assert [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
