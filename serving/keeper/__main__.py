"""``python -m headwater.serving.keeper PIPELINE...``: run the keeper."""

import sys

from headwater.serving.keeper.keeper import main

sys.exit(main(sys.argv[1:]))
