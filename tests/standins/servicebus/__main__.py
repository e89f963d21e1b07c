"""Run a stand-in by itself: prints its two addresses, and ends with its standard input."""

from __future__ import annotations

import asyncio
import sys

from tests.standins.servicebus.standin import StandIn


async def main() -> None:
    """Serve until standard input ends."""
    standin = StandIn()
    await standin.start()
    sys.stdout.write(f"{standin.connection_string()} {standin.management_endpoint}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await standin.stop()


asyncio.run(main())
