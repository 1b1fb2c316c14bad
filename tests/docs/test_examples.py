"""The Python in the documents runs, block after block, as a reader would paste it."""

import re
from pathlib import Path

import pytest

from headwater.infra.settings import settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_the_python_of_a_document_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert blocks
    module = tmp_path / "pasted.py"
    module.write_text("\n\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    import importlib  # noqa: PLC0415
    import sys  # noqa: PLC0415

    sys.modules.pop("pasted", None)
    importlib.import_module("pasted")
    settings.cache_clear()
