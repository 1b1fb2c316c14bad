"""``python -m headwater.serving.keeper PIPELINE...``: run the keeper."""

import sys

from headwater.infra.processes import exit_despite_threads
from headwater.serving.keeper.keeper import main

status = main(sys.argv[1:])
exit_despite_threads(status)
sys.exit(status)
