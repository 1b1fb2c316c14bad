"""The fenced blocks of a document, each with its mark, and how they are run as a reader would.

Written here because nothing we found runs shell commands and Python files of one document in order, in
processes of their own, and compares what they print: Sybil, pytest-markdown-docs and mktestdocs run
Python within the test, phmdoctest only sessions of Python.

A mark is an HTML comment on the line before a block, which readers do not see:

- ``<!-- file: shop.py -->`` writes the block to that file of the reader's folder.
- ``<!-- served: clicks -->`` runs the block while ``headwater serve shop.py:clicks`` answers.
- ``<!-- not run: REASON -->`` leaves the block out. Its ``headwater`` commands are parsed all the same.

Without a mark a block of Python or of the console is run. What stands in another language bears a mark.
Unmarked Python of one document is one program, run as a file behind all else. A line of the console that
begins with ``$`` is run by bash, and has to end with status 0; the lines below it are what it prints. If
there are none, what it prints is not compared. Compared is text without blank lines and the spaces at a
line's end; equal are any two ids and digests (12 hexadecimal digits or more), moments, numbers of
processes, ages in hours, CPU seconds, and fractions in JSON; ``...`` stands for anything.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SERVICE = "localhost:8000"
RUN, FILE, SERVED, NOT_RUN = "run", "file", "served", "not run"
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+): (?P<told>.+?) -->\n)?^```(?P<language>\S*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_VARIES = {
    r"(?<=\":)\d+\.\d+": "FRACTION",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "ID",
    r"\b[0-9a-f]{12,64}\b": "DIGEST",
    r"\d{4}-\d\d-\d\d \d\d:\d\d": "MOMENT",
    r"\bprocess \d+": "process N",
    r"\b\d+\.\d+ h ago": "AGE ago",
    r"\b\d+\.\d+ CPU s": "CPU s",
}


class Block(NamedTuple):
    """A fenced block: where it stands, what its mark says, and its text."""

    line: int
    language: str
    mark: str
    told: str
    text: str

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command of a console's block with what the document says that it prints."""
        found = re.split(r"^\$ ", self.text.replace("\\\n", ""), flags=re.MULTILINE)
        assert found[0] == "", f"line {self.line}: something is printed before the first command"
        return [(command, said) for command, _, said in (each.partition("\n") for each in found[1:])]


def blocks_of(name: str) -> list[Block]:
    """Give the blocks of a document, in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [
        Block(
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            found["mark"] or RUN,
            found["told"] or "",
            found["text"],
        )
        for found in _BLOCK.finditer(text)
    ]


def spans_of(name: str) -> Iterator[str]:
    """Give what a document says in code within its text."""
    text = _BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
    for span in re.findall(r"`([^`]+)`", text):
        yield " ".join(span.split())


class Reader:
    """Somebody with an empty folder and headwater installed, who does what a document says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tools = Path(sys.executable).parent
        self.variables = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def follow(self, name: str) -> None:
        """Do what stands in a document's blocks without a server, in order."""
        program = ""
        for block in blocks_of(name):
            if block.mark == FILE:
                (self.folder / block.told).write_text(block.text, encoding="utf-8")
            elif block.mark == RUN and block.language == "python":
                program += block.text + "\n\n"
            elif block.mark == RUN:
                self.type(block)
        if program:
            (self.folder / "pasted.py").write_text(program, encoding="utf-8")
            self.run("python pasted.py")

    def type(self, block: Block, service: str = SERVICE) -> None:
        """Run a console's block, and compare what is printed; the service may be elsewhere."""
        for command, expected in block.commands:
            said = self.run(command.replace(SERVICE, service))
            assert not expected or alike(expected, said), (
                f"line {block.line}: {command}\nis said to print\n{expected}\nand prints\n{said}"
            )

    def run(self, command: str) -> str:
        """Run a line of bash, and give what it prints."""
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\nended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
        return ran.stdout


def alike(expected: str, said: str) -> bool:
    """Tell whether a command printed what a document says, but for what varies."""
    pattern = re.escape(_plain(expected)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, _plain(said), re.DOTALL) is not None


def _plain(text: str) -> str:
    for pattern, name in _VARIES.items():
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
