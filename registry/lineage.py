"""The lineage of versions by fine-tuning: as a tree, as records, and as a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwater.registry.version import Version
from headwater.spec.rulings import Reign

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Node", "draw", "lineage", "walk"]

_LABELLED_NODES = 60


class Node(msgspec.Struct, kw_only=True):
    """A version with the versions that were fine-tuned from it.

    Parameters
    ----------
    version
        The version.
    reigns
        Epochs in which it was champion.
    serving
        Whether it is champion now.
    children
        The versions that were fine-tuned from it, oldest first.
    """

    version: Version
    reigns: list[int]
    serving: bool
    children: list["Node"]


def lineage(versions: Sequence[Version], history: Sequence[Reign]) -> list[Node]:
    """Return the roots of the forest that versions make, oldest first.

    A version whose parent is gone counts as a root.
    """
    serving = history[-1].version if history else None
    nodes = {
        version.number: Node(
            version=version,
            reigns=[reign.epoch for reign in history if reign.version == version.number],
            serving=version.number == serving,
            children=[],
        )
        for version in versions
    }
    roots: list[Node] = []
    for version in versions:
        parent = nodes.get(version.parent or "")
        (parent.children if parent else roots).append(nodes[version.number])
    return roots


def walk(roots: Sequence[Node]) -> Iterator[tuple[int, Node]]:
    """Yield every node with its depth, parents first; a long line does not recurse."""
    stack = [(0, node) for node in reversed(roots)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack.extend((depth + 1, child) for child in reversed(node.children))


def draw(roots: Sequence[Node], path: Path, title: str) -> None:
    """Draw all generations: time from left to right, a lane for each line of descent.

    Parameters
    ----------
    roots
        As :func:`lineage` returns them.
    path
        The file; its suffix chooses the format (``.png``, ``.svg`` or ``.pdf``).
    title
        Above the picture.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second to import

    lanes = _lanes(roots)
    count = max(lanes.values(), default=0) + 1
    figure = Figure(figsize=(12, min(14.0, 2.2 + 0.45 * count)), layout="constrained")
    axes = figure.subplots()
    labelled = len(lanes) <= _LABELLED_NODES
    for _, node in walk(roots):
        _draw_node(axes, node, lanes, labelled=labelled)
    axes.set_title(title, loc="left")
    axes.set_xlabel("learned up to offset")
    axes.set_yticks([])
    axes.invert_yaxis()
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.margins(0.03, 0.3 if count < 3 else 0.08)
    figure.savefig(path, dpi=130)


def _lanes(roots: Sequence[Node]) -> dict[str, int]:
    """Assign each version a lane: its first child stays in it, other children open new lanes."""
    lanes: dict[str, int] = {}
    following: dict[str, int] = {}
    opened = 0
    for _, node in walk(roots):
        number, parent = node.version.number, node.version.parent
        if parent in following:
            lanes[number] = following.pop(parent)
        else:
            lanes[number] = opened
            opened += 1
        following[number] = lanes[number]
    return lanes


def _draw_node(axes: "Axes", node: Node, lanes: dict[str, int], *, labelled: bool) -> None:
    x, y = node.version.examples.stop, lanes[node.version.number]
    for child in node.children:
        axes.annotate(
            "",
            xy=(child.version.examples.stop, lanes[child.version.number]),
            xytext=(x, y),
            arrowprops={"arrowstyle": "-|>", "color": "0.6", "shrinkA": 5, "shrinkB": 5},
        )
    color = "tab:green" if node.serving else "tab:blue" if node.reigns else "0.75"
    marker = "o" if node.version.parent else "s"
    axes.plot([x], [y], marker=marker, color=color, markersize=9 if node.serving else 6)
    if labelled or node.serving:
        axes.annotate(
            node.version.number,
            (x, y),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
            fontsize=8,
        )
