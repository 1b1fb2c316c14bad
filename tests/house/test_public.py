"""The public names: each is there, lazily, and where the type checker believes it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import headwater

SOURCE = Path(headwater.__file__)


def imported() -> dict[str, str]:
    """Return the names that the type checker sees, with the module of each."""
    (block,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("name", headwater.__all__)
def test_a_public_name_is_what_the_type_checker_sees(name: str) -> None:
    found = getattr(headwater, name)
    assert found is getattr(sys.modules[imported()[name]], name)
    assert name in dir(headwater)


def test_no_public_name_is_left_out() -> None:
    assert sorted(imported()) == sorted(headwater.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'pipelines'"):
        headwater.pipelines  # noqa: B018 - that is the test


def test_importing_headwater_imports_none_of_its_rooms() -> None:
    code = "import sys, headwater; print([n for n in sys.modules if n.startswith('headwater.')])"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"
