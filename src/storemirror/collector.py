"""How Python's garbage collector is to work in a process that applies events or answers calls."""

from __future__ import annotations

import gc
from typing import Final

#: Objects that may be added before the youngest are looked through; Python's own is 700.
YOUNG_COUNT: Final = 50_000


def calm_collector() -> None:
    """
    Have the collector look less often, and never at what was there before.

    An event makes about 15 objects and a call some hundreds, hardly any of which is in a cycle:
    they go when nothing refers to them, and what the collector looks through in between it looks
    through in vain.  That took a quarter of the writer's time (docs/explanation/performance.md).
    Call it once, when everything is imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_COUNT, *gc.get_threshold()[1:])
