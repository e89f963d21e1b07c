"""The schedule `drainRealtimeMirrorQueue`: applies what waits on the bus, every minute."""

from __future__ import annotations

from typing import Final

from firebase_functions import scheduler_fn

from realtime_mirror.deployment import options_of
from realtime_mirror.loop import LOOP
from realtime_mirror.settings import load
from storemirror.apply.drain import DrainStats
from storemirror.apply.put_back import DeadLetterRound
from storemirror.wiring import Parts

#: How long the batch in hand, and what is opened, may take beside the draining itself.
_SPARE_S: Final = 60
#: How far the runs of this instance have looked at dead letters.
_DEAD_LETTERS: Final = DeadLetterRound()


async def drain() -> DrainStats:
    """Drain once, on connections of its own: one run owes the one before nothing else."""
    async with Parts(load()) as parts:
        return await parts.drain(
            max_duration_s=load().functions.drain_within_s, dead_letters=_DEAD_LETTERS
        )


@scheduler_fn.on_schedule(
    schedule="* * * * *",
    # The next minute's run is the retry.
    retry_count=0,
    timeout_sec=int(load().functions.drain_within_s) + _SPARE_S,
    # A second one at the same time would do no harm, and nothing that the first does not.
    max_instances=1,
    concurrency=1,
    **options_of(load(), needed=Parts(load()).applying_settings),
)
def drainRealtimeMirrorQueue(_: scheduler_fn.ScheduledEvent) -> None:  # noqa: N802 - a contract
    """Drain, and log one line of figures; an error is logged, and answered with 500."""
    LOOP.run(drain())
