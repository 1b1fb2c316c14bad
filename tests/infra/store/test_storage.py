from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.features.conftest import S3

from headwater.infra.settings import Settings
from headwater.infra.store.local_storage import LocalStorage
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.s3_storage import S3Storage
from headwater.spec.errors import StorageError


@pytest.fixture
def client(s3: S3, on_s3: Settings) -> Iterator[Any]:
    opened = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1")
    yield opened
    opened.close()


def bucket_of(settings: Settings) -> str:
    assert settings.storage is not None
    return settings.storage.removeprefix("s3://").partition("/")[0]


def test_a_folder_is_made_and_kept(tmp_path: Path) -> None:
    storage = open_storage(Settings(home=tmp_path / "home", storage=str(tmp_path / "a" / "b")))
    assert isinstance(storage, LocalStorage)
    assert storage.options == {}
    storage.prepare()
    Path(storage.address("kept")).touch()
    storage.prepare()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage = open_storage(Settings(home=tmp_path, storage=str(tmp_path / "file" / "tables")))
    with pytest.raises(StorageError, match="file/tables") as refused:
        storage.prepare()
    assert "HEADWATER_STORAGE" in refused.value.hint


def test_a_bucket_is_made_and_kept(on_s3: Settings, client: Any) -> None:
    storage = open_storage(on_s3)
    bucket = bucket_of(on_s3)
    assert isinstance(storage, S3Storage)
    storage.prepare()
    client.put_object(Bucket=bucket, Key="kept", Body=b"1")
    storage.prepare()
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [found["Key"] for found in listed] == ["kept"]


def test_the_conditional_write_leaves_nothing_behind(on_s3: Settings, client: Any) -> None:
    storage = S3Storage(str(on_s3.storage), on_s3.s3_endpoint)
    storage.prepare()
    storage.check_conditional_write("doctor/try")
    storage.check_conditional_write("doctor/try")
    assert client.list_objects_v2(Bucket=bucket_of(on_s3))["KeyCount"] == 0


def test_s3_away_is_a_storage_error_that_names_it(on_s3: Settings, s3: S3) -> None:
    storage = open_storage(on_s3)
    s3.relay.cut()
    try:
        with pytest.raises(StorageError, match="cannot reach the bucket") as refused:
            storage.prepare()
    finally:
        s3.relay.mend()
    assert s3.endpoint in refused.value.what
    assert "HEADWATER_S3_ENDPOINT" in refused.value.hint
    storage.prepare()


def test_no_credentials_is_a_storage_error(
    on_s3: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers the credentials it found once
    with pytest.raises(StorageError) as refused:
        open_storage(on_s3).prepare()
    assert "AWS_*" in refused.value.hint


@pytest.mark.parametrize(
    ("root", "parts", "wanted"),
    [
        ("s3://bucket", ("tables", "toy"), "s3://bucket/tables/toy"),
        ("s3://bucket/prefix/", ("tables",), "s3://bucket/prefix/tables"),
        ("/data/", ("tables", "toy", "examples"), "/data/tables/toy/examples"),
    ],
)
def test_addresses_are_below_the_root(
    tmp_path: Path, root: str, parts: tuple[str, ...], wanted: str
) -> None:
    assert open_storage(Settings(home=tmp_path, storage=root)).address(*parts) == wanted


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        (None, {}),
        ("https://s3.example", {"aws_endpoint_url": "https://s3.example"}),
        ("http://s3:1", {"aws_endpoint_url": "http://s3:1", "aws_allow_http": "true"}),
    ],
)
def test_the_endpoint_goes_with_the_tables(
    tmp_path: Path, endpoint: str | None, wanted: dict[str, str]
) -> None:
    options = open_storage(Settings(home=tmp_path, storage="s3://bucket", s3_endpoint=endpoint)).options
    names = ("aws_endpoint_url", "aws_allow_http")
    assert {name: options[name] for name in names if name in options} == wanted
    assert options["aws_conditional_put"] == "etag"


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_files_are_put_read_fetched_and_removed(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = request.getfixturevalue("on_s3") if where == "s3" else Settings(home=tmp_path / "home")
    storage = open_storage(settings)
    (tmp_path / "long").write_bytes(b"long" * 5_000)
    storage.write(b"one", "runs", "1", "part")
    storage.put(tmp_path / "long", "runs", "1", "table")
    storage.write(b"other", "runs", "10", "part")
    storage.write(b"again", "runs", "1", "part")
    assert storage.read("runs", "1", "part") == b"again"
    storage.fetch(tmp_path / "copy", "runs", "1", "table")
    assert (tmp_path / "copy").read_bytes() == b"long" * 5_000
    storage.remove("runs", "1")
    storage.remove("runs", "1")
    for refused in (
        lambda: storage.read("runs", "1", "part"),
        lambda: storage.fetch(tmp_path / "none", "runs", "1", "table"),
    ):
        with pytest.raises(StorageError):
            refused()
    assert storage.read("runs", "10", "part") == b"other"
    assert storage.find("runs", "1", "part") is None
    assert storage.create(b"first", "runs", "1", "part")
    assert not storage.create(b"second", "runs", "1", "part")
    assert storage.find("runs", "1", "part") == b"first"
    storage.remove_file("runs", "1", "part")
    storage.remove_file("runs", "1", "part")
    assert storage.find("runs", "1", "part") is None


def test_a_write_leaves_no_draft(tmp_path: Path) -> None:
    storage = open_storage(Settings(home=tmp_path / "home"))
    storage.write(b"one", "a")
    (Path(storage.root) / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        storage.write(b"two", "folder")  # a folder cannot be replaced
    assert sorted(path.name for path in Path(storage.root).iterdir()) == ["a", "folder"]
