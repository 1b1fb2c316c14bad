"""The operator's key lies in a file that only its owner can read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.infra.operator_key import (
    is_private,
    operator_key_file,
    read_operator_key,
    write_operator_key,
)
from headwater.infra.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_key_is_written_for_its_owner_alone(home: Settings, no_umask: None) -> None:
    assert read_operator_key(home) is None
    assert not is_private(home)
    for key in ("hw_1_abc", "hw_2_def"):
        write_operator_key(home, key)
        assert read_operator_key(home) == key
        assert stat.S_IMODE(operator_key_file(home).stat().st_mode) == 0o600
        assert is_private(home)
    assert list(home.root.iterdir()) == [operator_key_file(home)]


def test_no_draft_can_be_read_by_others_either(
    home: Settings, no_umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (seen.append(stat.S_IMODE(os.fstat(file).st_mode)), fsync(file))
    )
    write_operator_key(home, "hw_1_abc")
    assert seen == [0o600]


def test_a_file_that_others_may_read_is_not_private(home: Settings, tmp_path: Path) -> None:
    write_operator_key(home, "hw_1_abc")
    operator_key_file(home).chmod(0o640)
    assert not is_private(home)
    operator_key_file(home).replace(tmp_path / "elsewhere")
    operator_key_file(home).symlink_to(tmp_path / "elsewhere")
    assert not is_private(home)


@pytest.mark.parametrize("text", [b"", b"a key\r\nhost: evil", b"\xff", b"x" * 101])
def test_what_is_no_key_is_none(home: Settings, text: bytes) -> None:
    (home.root / "operator.key").write_bytes(text)
    assert read_operator_key(home) is None


def test_reading_makes_no_home(home: Settings) -> None:
    assert read_operator_key(home) is None
    assert not home.place.exists()
