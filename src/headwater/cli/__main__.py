"""``python -m headwater.cli``: run the command ``headwater``."""

from headwater.cli import run

run()
