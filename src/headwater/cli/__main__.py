"""``python -m headwater.cli``: what the command ``headwater`` runs."""

from headwater.cli import main

main()
