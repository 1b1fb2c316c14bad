"""docs/guide.md runs, every block of a document is run or says why not, and every command exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from tests.docs.blocks import FILE, NOT_RUN, ROOT, RUN, SERVED, Reader, alike, blocks_of, spans_of

from headwater.cli import app

FOLLOWED = ("README.md", "docs/guide.md")
DOCUMENTS = (*FOLLOWED, "docs/architecture.md", "infra/README.md", "CONTRIBUTING.md")


@pytest.mark.timeout(900)
def test_the_guide_runs_as_printed(tmp_path: Path) -> None:
    Reader(tmp_path).follow("docs/guide.md")


@pytest.mark.parametrize("name", FOLLOWED)
def test_each_block_is_run_or_says_why_not(name: str) -> None:
    blocks = blocks_of(name)
    fences = (ROOT / name).read_text(encoding="utf-8").count("```")
    assert len(blocks) == fences / 2, "a block is not told from its text"
    for block in blocks:
        where = f"{name}, line {block.line}"
        assert block.mark in (RUN, FILE, SERVED, NOT_RUN), f"{where}: there is no mark {block.mark!r}"
        if block.mark in (RUN, SERVED):
            assert block.language in ("python", "console"), f"{where}: say why it is not run"
        if block.mark == RUN:
            assert "curl" not in block.text, f"{where}: mark it as served, or say why it is not run"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_command_of_a_document_exists(name: str) -> None:
    for block in blocks_of(name):
        for command, _ in block.commands if block.language == "console" else ():
            _parse(command, whole=True)
    for span in spans_of(name):
        _parse(span, whole=False)


@pytest.mark.parametrize(
    "line",
    [
        "headwater trian shop.py:clicks",
        "headwater train shop.py:clicks --from-root",
        "headwater rebuild x",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|missing|Missing"):
        _parse(line, whole=True)


def test_every_command_that_ends_by_itself_takes_json() -> None:
    waiting, without = [typer.main.get_command(app)], set()
    while waiting:
        for command in waiting.pop().commands.values():
            if hasattr(command, "commands"):
                waiting.append(command)
            elif not any("--json" in parameter.opts for parameter in command.params):
                without.add(command.name)
    assert without == {"serve", "up"}


def test_the_output_of_a_command_is_compared() -> None:
    told = "version 2: learned 500 examples in 0.06 CPU s, digest 8a75d114e930\n...\nend\n"
    said = (
        "version 2: learned 500 examples in 10.10 CPU s, digest 0123456789ab \n\nmore\nstill more\nend"
    )
    assert alike(told, said)
    answer = '{"id":"p-2","output":0.41,"version":"1"}'
    assert alike(answer, answer.replace("0.41", "0.561824884814273"))
    assert not alike(answer, answer.replace('"1"', '"2"'))
    for word, other in (
        ("version 2", "version 3"),
        ("500", "501"),
        ("digest ", "digest of "),
        ("end", ""),
    ):
        assert not alike(told, said.replace(word, other))


def _parse(line: str, *, whole: bool) -> None:
    """Have the command line read a command without running it; part of one may lack arguments."""
    typed = re.match(r"(?:\.venv/bin/|hw .*)?\bheadwater (.*)", line)  # hw is compose's alias
    if typed is None:
        return
    command, rest = typer.main.get_command(app), shlex.split(typed[1], comments=True)
    while rest and hasattr(command, "commands"):
        name = rest.pop(0)
        if name.startswith("-"):
            assert name == "--help", f"No such option: {line}"
            return
        assert name in command.commands, f"No such command: {line}"
        command = command.commands[name]
    if hasattr(command, "commands"):
        assert not whole, f"Missing command: {line}"
        return
    try:
        command.make_context(command.name, rest)
    except typer.BadParameter as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise
