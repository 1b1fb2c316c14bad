import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]


def tracked(*patterns: str) -> list[str]:
    completed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return completed.stdout.split()


ROOMS = sorted({Path(name).parent.as_posix() for name in tracked("*/__init__.py")} - {"src/headwater"})
ROOMS = [room for room in ROOMS if room.split("/")[0] not in ("src", "tests", "examples", "benchmarks")]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_mapped_and_shipped(room: str) -> None:
    package = "headwater." + room.replace("/", ".")
    assert FOLDERS.get(package) == room
    assert package in PACKAGES


@pytest.mark.parametrize("room", [room for room in ROOMS if "/" not in room])
def test_each_room_is_linked(room: str) -> None:
    link = ROOT / "src" / "headwater" / room
    assert link.is_symlink()
    assert link.readlink() == Path("../..") / room


def test_every_mapped_folder_exists() -> None:
    assert {folder for folder in FOLDERS.values() if not folder.startswith("src/")} == set(ROOMS)


@pytest.mark.parametrize("room", [room for room in ROOMS if "/" not in room])
def test_each_room_has_its_layer(room: str) -> None:
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    layers = re.split(r"[\s|]+", " ".join(contract["layers"]))
    assert room in layers


def test_the_wheel_holds_what_is_tracked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in tracked("src", "pyproject.toml", "README.md", "LICENSE", *ROOMS):
        there, here = source / name, ROOT / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.is_symlink():
            there.symlink_to(here.readlink())
        else:
            there.write_bytes(here.read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])",
            str(tmp_path),
        ],
        cwd=source,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {name.removeprefix("src/") for name in tracked("src/headwater/*.py")}
    wanted |= {"headwater/py.typed"}
    wanted |= {
        f"headwater/{name}" for room in ROOMS for name in tracked(f"{room}/*.py", f"{room}/*.mako")
    }
    assert shipped == wanted


def test_no_room_hides_a_library() -> None:
    declared = [re.split(r"[<>=\[;]", entry)[0] for entry in PROJECT["project"]["dependencies"]]
    libraries = {name.replace("-", "_") for name in declared} | {"sklearn", "lightgbm"}
    hidden = [name for room in ROOMS for name in tracked(f"{room}/*.py") if Path(name).stem in libraries]
    assert hidden == []
