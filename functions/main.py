"""
The Firebase Functions of StoreMirror: what `firebase deploy --only functions` finds.

Deployed are the functions of this module: a trigger for each declared entity (`mirrorDmMessages`,
`mirrorDmConversations`, `mirrorFollowEdges`, `mirrorUserBlocks`, and those of your declarations),
the schedule `drainRealtimeMirrorQueue` and, with functions.with_gateway, the callables
(`sqlGatewayDmSend` and the others).  Each family of functions has a folder beside this
file and is named here; nothing is decided here.
"""

from __future__ import annotations

import os

from realtime_mirror.drainer import drainRealtimeMirrorQueue
from realtime_mirror.settings import load
from realtime_mirror.triggers import trigger_functions
from storemirror.telemetry import configure_logging

__all__ = ["drainRealtimeMirrorQueue"]

configure_logging(load().log.level, with_severity=True)
# The functions framework reads it when the server starts, after this file.  By itself it takes
# four deliveries a core at a time, however many Cloud Run sends to an instance.
os.environ.setdefault("THREADS", str(load().functions.concurrency))
globals().update(trigger_functions())
if load().functions.with_gateway:
    # Only then: it loads three times as much, at every cold start.
    from realtime_mirror.callables import callable_functions

    globals().update(callable_functions())
