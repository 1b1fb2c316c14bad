"""README.md does what it says, for somebody in an empty folder."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.docs.blocks import SERVED, Reader, blocks_of
from tests.system.up import await_

from headwater.serving.client.client import Client

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Somebody who has followed the README."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    reader.follow("README.md")
    return reader


@pytest.fixture
def address(reader: Reader) -> Iterator[str]:
    """Where ``headwater serve`` answers on what the README made; on a free port, as others run."""
    with subprocess.Popen(
        ["headwater", "serve", "shop.py:clicks", "--port", "0"],
        cwd=reader.folder,
        env=reader.variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split(" at ")[1].split(";")[0]
            with Client(address) as client:
                await_(client.is_ready, 600)
            yield address
        finally:
            process.terminate()


def test_the_readme_runs_as_printed(reader: Reader) -> None:
    assert (reader.folder / ".headwater").is_dir()  # in the reader's folder, with all that was made


@pytest.mark.skipif(shutil.which("curl") is None, reason="the documents use curl")
def test_the_examples_of_the_service_in_documents_hold(reader: Reader, address: str) -> None:
    served = [block for name in ("README.md", "docs/guide.md") for block in blocks_of(name)]
    served = [block for block in served if block.mark == SERVED]
    assert served
    for block in served:
        reader.type(block, address.removeprefix("http://"))
