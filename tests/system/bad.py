"""Pipelines of models at fault for ``headwater serve``, with short deadlines."""

from benchmarks.service.bad_pipelines import first
from msgspec.structs import replace

from headwater import Serving

exits = replace(first, name="exits", serving=Serving(deadline="2s"))
crashes = replace(exits, name="crashes")
hangs = replace(exits, name="hangs")
good = replace(exits, name="good")
learns_exits = replace(exits, name="learns-exits", learn="each label")
learns_hangs = replace(learns_exits, name="learns-hangs")
learns_good = replace(learns_exits, name="learns-good")
"""Each does what its name says, if it is asked to."""

ON_LOOP = (exits, crashes, hangs)
LEARNING = (learns_exits, learns_hangs)
NAMES = ("exits", "crashes", "hangs", "good", "learns_exits", "learns_hangs", "learns_good")
