import sys
from pathlib import Path

import pytest

from headwater.spec.errors import DeclarationError, HeadwaterError, NotFoundError
from headwater.spec.loading import load_pipeline
from headwater.spec.pipeline import Pipeline

SOURCE = """
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful


def model():
    return None


first = Pipeline(
    name="first",
    task="binary",
    features=(Feature("x", float),),
    label=LabelRule(wait="1d"),
    model=model,
    update=Stateful(),
)
number = 7
"""


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test import files as if no other had, in a folder of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a pipeline in its module ``declared``, below the present folder."""
    folder = tmp_path / "headwater_lines"
    (folder / "inner").mkdir(parents=True)
    for place in (folder, folder / "inner"):
        (place / "__init__.py").touch()
    (folder / "declared.py").write_text(SOURCE)
    (folder / "inner" / "deep.py").write_text(SOURCE)
    (folder / "empty.py").touch()
    return folder


@pytest.mark.parametrize(
    "reference",
    [
        "headwater_lines.declared:first",
        "headwater_lines/declared.py:first",
        "./headwater_lines/declared.py:first",
        "headwater_lines.inner.deep:first",
        "headwater_lines/inner/deep.py:first",
    ],
)
def test_a_pipeline_loads_by_module_or_file_and_attribute(package: Path, reference: str) -> None:
    found = load_pipeline(reference)
    assert isinstance(found, Pipeline)
    assert found.name == "first"


@pytest.mark.parametrize("name", ["declared", "inner.deep"])
def test_a_pipeline_is_the_same_however_it_is_named(package: Path, name: str) -> None:
    path = package.joinpath(*name.split(".")).with_suffix(".py")
    assert load_pipeline(f"{path}:first") is load_pipeline(f"headwater_lines.{name}:first")
    assert load_pipeline(f"{path}:first").model.__module__ == f"headwater_lines.{name}"


def test_a_file_outside_the_current_folder_loads(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = package.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_pipeline(f"{package}/declared.py:first").name == "first"


def test_a_file_alone_has_the_name_of_its_stem(tmp_path: Path) -> None:
    (tmp_path / "headwater_alone.py").write_text(SOURCE)
    assert load_pipeline("headwater_alone.py:first").model.__module__ == "headwater_alone"


@pytest.mark.parametrize("reference", ["", ":", "first", "declared:", ":first", "declared.py"])
def test_an_incomplete_reference_is_refused_with_the_form(reference: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        load_pipeline(reference)
    assert repr(reference) in refused.value.what
    assert "path.py:attribute" in refused.value.hint


@pytest.mark.parametrize(
    ("reference", "error", "what", "instead"),
    [
        ("headwater_lines/none.py:first", NotFoundError, "none.py", "path"),
        ("headwater_lines:none", NotFoundError, "'none'", "declare one"),
        ("headwater_lines.none:first", NotFoundError, "'headwater_lines.none'", "path.py:attribute"),
        ("headwater_none.declared:first", NotFoundError, "'headwater_none'", "path.py:attribute"),
        ("headwater_lines.declared:second", NotFoundError, "'second'", "it declares first"),
        ("headwater_lines/declared.py:second", NotFoundError, "'second'", "it declares first"),
        ("headwater_lines.empty:first", NotFoundError, "'first'", "x = Pipeline(...)"),
        ("headwater_lines.declared:number", DeclarationError, "is int", "it declares first"),
        ("headwater_lines.declared:Pipeline", DeclarationError, "not a pipeline", "it declares first"),
    ],
)
def test_a_missing_file_module_or_attribute_is_named(
    package: Path, reference: str, error: type[HeadwaterError], what: str, instead: str
) -> None:
    with pytest.raises(error) as refused:
        load_pipeline(reference)
    assert what in refused.value.what
    assert instead in refused.value.hint


def test_a_file_with_a_missing_import_names_the_import(tmp_path: Path) -> None:
    (tmp_path / "headwater_needs.py").write_text("import headwater_missing_library\n")
    with pytest.raises(NotFoundError, match="headwater_missing_library"):
        load_pipeline("headwater_needs.py:first")


@pytest.mark.parametrize("text", ["from headwater import nothing", "1 / 0", "def broken(:"])
def test_a_module_that_fails_is_refused_with_its_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / f"failing_{len(text)}.py"
    path.write_text(text)
    with pytest.raises(DeclarationError, match=r"fails when it is imported: .*Error") as refused:
        load_pipeline(f"{path}:p")
    assert refused.value.__cause__ is not None
