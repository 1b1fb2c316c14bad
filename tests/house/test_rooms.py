"""The house stays findable: small folders and files, one meaning a name, paths that exist."""

import ast
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from tests.house.test_packaging import ROOT, tracked

from headwater.flows.stack.runs import FLOWS

_ROOMS = (
    "spec",
    "infra",
    "features",
    "learners",
    "registry",
    "monitoring",
    "loop",
    "tasks",
    "serving",
    "flows",
    "src/headwater",
)
_SOURCE = tracked(*(f"{room}/*" for room in _ROOMS))
_MODULES = {
    name: (ROOT / name).read_text()
    for name in _SOURCE
    if name.endswith(".py") and not (ROOT / name).is_symlink()
}
_MOST_LINES_OF_A_FILE, _MOST_LINES_OF_A_CLASS = 400, 200
_GROWING = {
    "infra/migrations/versions",  # one more with each change of a table
    "docs/adr",  # one more with each decision
}
_DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/guide.md")


def test_no_folder_holds_more_than_fourteen_files() -> None:
    held = Counter(name.rpartition("/")[0] for name in tracked())
    assert {folder: n for folder, n in held.items() if n > 14 and folder not in _GROWING} == {}
    assert held.keys() >= {*_GROWING, "", "tests/loop", "benchmarks/service"}


def _nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    for name, text in _MODULES.items():
        yield from ((name, node) for node in ast.walk(ast.parse(text)) if isinstance(node, kinds))


def _lines(node: Any) -> int:
    return int(node.end_lineno) - int(node.lineno) + 1


def test_files_and_classes_are_short() -> None:
    long = {name for name, text in _MODULES.items() if len(text.splitlines()) > _MOST_LINES_OF_A_FILE}
    long |= {
        f"{name} {node.name}"
        for name, node in _nodes(ast.ClassDef)
        if _lines(node) > _MOST_LINES_OF_A_CLASS
    }
    assert long == set()


def test_functions_fit_a_screen() -> None:
    """Count the lines of a function without its docstring."""
    lengths = []
    for _, node in _nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        described = ast.get_docstring(node, clean=False) is not None
        lengths.append(_lines(node) - (_lines(node.body[0]) if described else 0))
    lengths.sort()
    p90, p99 = (lengths[len(lengths) * percent // 100] for percent in (90, 99))
    assert (p90 <= 18, p99 <= 35) == (True, True), f"p90 {p90}, p99 {p99}: {lengths[-30:]}"


def test_a_public_class_has_its_name_to_itself() -> None:
    named: Counter[str] = Counter()
    for text in _MODULES.values():
        named.update(re.findall(r"^class ([A-Za-z]\w*)", text, re.MULTILINE))
    assert [name for name, times in named.items() if times > 1] == []


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_every_path_that_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    rooms = "|".join((*_ROOMS, "tests", "benchmarks", "examples", "docs"))
    named = set(re.findall(rf"(?<![\w./])((?:{rooms})/[\w./-]+\.(?:py|md|toml|yaml))", text))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    assert named


_STARTED = (
    "headwater.cli",
    "headwater.flows.stack.doors",
    "headwater.flows.stack.prefect_server",
    "headwater.loop.rebuild",
    "headwater.serving.keeper",
    "headwater.serving.isolation.model_process",
    "headwater.serving.process.preload",
)


@pytest.mark.parametrize("module", _STARTED)
def test_modules_that_are_started_by_name_keep_it(module: str) -> None:
    spec = find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        assert find_spec(f"{module}.__main__") is not None


def test_flows_keep_the_names_under_which_they_are_deployed() -> None:
    assert set(FLOWS.values()) == {
        "headwater.flows.collect:collect",
        "headwater.flows.retrain:retrain",
        "headwater.flows.fine_tune:fine_tune",
        "headwater.flows.monitor:monitor",
        "headwater.flows.update:update",
        "headwater.flows.materialise:materialise",
        "headwater.flows.batch_predict:batch_predict",
    }
    assert all(find_spec(entry.partition(":")[0]) is not None for entry in FLOWS.values())


def test_imports_of_a_registered_model_exist() -> None:
    text = (ROOT / "registry/pyfunc_model.py").read_text()
    imports = re.findall(r"from (headwater[\w.]*) import (\w+)", text)
    assert imports
    for module, name in imports:
        assert hasattr(importlib.import_module(module), name)
