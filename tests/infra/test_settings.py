import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from headwater.infra.settings import Settings, settings
from headwater.spec.errors import DeclarationError, StorageError


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("HEADWATER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_by_default_everything_is_below_the_current_folder(tmp_path: Path) -> None:
    found = Settings()
    assert found.root == tmp_path / ".headwater"
    assert found.root.is_dir()
    assert found.storage_uri == f"{tmp_path}/.headwater/storage"
    assert found.operational_url == f"sqlite:///{tmp_path}/.headwater/headwater.sqlite"
    assert found.tracking_uri == f"sqlite:///{tmp_path}/.headwater/mlflow.sqlite"
    assert found.artifact_uri == f"file://{tmp_path}/.headwater/storage/mlflow"


@pytest.mark.parametrize(
    ("name", "value", "attribute", "wanted"),
    [
        ("HOME", "{tmp}/there", "root", "{tmp}/there"),
        ("HOME", "there", "root", "{tmp}/there"),
        ("STORAGE", "{tmp}/tables", "storage_uri", "{tmp}/tables"),
        ("STORAGE", "tables/", "storage_uri", "{tmp}/tables"),
        ("STORAGE", "s3://bucket/some/prefix/", "storage_uri", "s3://bucket/some/prefix"),
        ("STORAGE", "s3://bucket/prefix/", "artifact_uri", "s3://bucket/prefix/mlflow"),
        ("STORAGE", "{tmp}/tables", "artifact_uri", "file://{tmp}/tables/mlflow"),
        ("ARTIFACTS", "s3://states", "artifact_uri", "s3://states"),
        ("DATABASE_URL", "postgresql://db/log", "operational_url", "postgresql://db/log"),
        ("MLFLOW_URI", "http://mlflow:5000", "tracking_uri", "http://mlflow:5000"),
        ("HOSTS", "shop.example, 10.0.0.7:80", "hosts", "shop.example, 10.0.0.7:80"),
        ("S3_ENDPOINT", "http://127.0.0.1:5001", "s3_endpoint", "http://127.0.0.1:5001"),
    ],
)
def test_each_setting_is_read_from_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, attribute: str, wanted: str
) -> None:
    monkeypatch.setenv(f"HEADWATER_{name}", value.format(tmp=tmp_path))
    assert str(getattr(settings(), attribute)) == wanted.format(tmp=tmp_path)


def test_a_home_below_the_users_home_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(home=Path("~/water")).root == tmp_path / "water"


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings()
    monkeypatch.setenv("HEADWATER_HOME", "elsewhere")
    assert settings() is first


@pytest.mark.parametrize("moment", ["soon", "2024-01-01T00:00:00"])
def test_a_variable_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setenv("HEADWATER_NOW", moment)
    with pytest.raises(DeclarationError, match=r"^HEADWATER_NOW: .*correct or unset HEADWATER_NOW\.$"):
        settings()


@pytest.mark.parametrize("hosts", ["*", "good.example,https://shop.example", "shop.example/x"])
def test_a_wrong_host_is_named(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    monkeypatch.setenv("HEADWATER_HOSTS", hosts)
    with pytest.raises(DeclarationError, match=r"^HEADWATER_HOSTS: .*is not a host: write NAME"):
        settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().home = Path("other")  # type: ignore[misc] # on purpose


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)  # with the widest one, the file's own mode is what counts
    try:
        key = Settings(home=tmp_path / "home").key()
    finally:
        os.umask(mask)
    assert len(bytes.fromhex(key.decode())) == 32
    assert stat.S_IMODE((tmp_path / "home" / "signing.key").stat().st_mode) == 0o600
    assert Settings(home=tmp_path / "home").key() == key
    assert Settings(home=tmp_path / "other").key() != key


def test_a_key_from_the_environment_leaves_no_file_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_SIGNING_KEY", "of the house")
    found = Settings(home=tmp_path / "home")
    assert found.key() == b"of the house"
    assert list(found.root.iterdir()) == []
    assert "of the house" not in f"{found!r} {found}"


def test_a_new_home_is_its_owner_s_alone_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        made = Settings(home=tmp_path / "deep" / "home").root
        (old := tmp_path / "old").mkdir(mode=0o755)
        assert Settings(home=old).root == old
    finally:
        os.umask(mask)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(old.stat().st_mode) == 0o755
    assert Settings().withheld == 0o077


def test_a_home_of_a_group_is_that_group_s_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrgid(os.getgid())
    made = Settings(home=tmp_path / "home", group=group.gr_name).root
    assert (made.stat().st_gid, stat.S_IMODE(made.stat().st_mode)) == (group.gr_gid, 0o2770)
    assert Settings(group=group.gr_name).withheld == 0o007
    monkeypatch.setenv("HEADWATER_GROUP", "nobody-has-this")
    settings.cache_clear()
    with pytest.raises(DeclarationError, match=r"^HEADWATER_GROUP: .*no group 'nobody-has-this'"):
        settings()


@pytest.mark.parametrize("name", ["HOME", "STORAGE", "ARTIFACTS"])
@pytest.mark.parametrize("taken", [*"%#?\\[]^|", "\n", "\x7f", "\udcff"])
def test_a_path_that_a_store_would_take_for_another_is_refused_before_any_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, taken: str
) -> None:
    monkeypatch.setenv(f"HEADWATER_{name}", f"{tmp_path}/a{taken}b")
    with pytest.raises(DeclarationError, match=f"HEADWATER_{name}: the path .* holds"):
        settings()
    assert list(tmp_path.iterdir()) == []


def test_a_default_home_below_such_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a#b").mkdir()
    monkeypatch.chdir(tmp_path / "a#b")
    with pytest.raises(DeclarationError, match="HEADWATER_HOME"):
        settings()


def test_a_home_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="cannot make the home"):
            Settings(home=home).root  # noqa: B018 - made when it is asked for
