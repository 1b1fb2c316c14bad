"""Copies of a trained home, each of which goes on by itself."""

import shutil
from pathlib import Path

from headwater.infra.settings import Settings
from headwater.loop.upkeep.moving import follow_move

__all__ = ["copy_home"]


def copy_home(source: Path, target: Path) -> Path:
    """Copy a home, and let MLflow's records name the states of the copy."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    follow_move(Settings(home=target))
    return target
