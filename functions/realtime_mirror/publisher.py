"""
The thin publisher: hands deliveries to StoreMirror, and its answers back.

It takes the whole HTTP request.  The SDK's own handler would first make Python values of the
document, through a Firestore client, and raise before us where it cannot (ADR 7).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from flask import Request, Response, jsonify

from realtime_mirror.loop import LOOP
from realtime_mirror.settings import load
from storemirror.source.deliveries import Deliveries, is_from_browser
from storemirror.wiring import Parts

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

#: How long closing connections may take when an instance is stopped.
_CLOSE_TIMEOUT_S: Final = 5.0


class Publisher:
    """Answers the requests of every trigger function of this process."""

    def __init__(self) -> None:
        """Open nothing; the first request does."""
        self._opening = asyncio.Lock()
        self._deliveries: Deliveries | None = None
        self._opened = contextlib.AsyncExitStack()

    def answer(self, request: Request) -> ResponseReturnValue:
        """
        Answer one request: POST delivers, GET tells the counts.

        Success means that the bus has the event, or that there is none.  Any other answer, a
        missing setting's among them, makes Eventarc deliver again.
        """
        headers = {name.lower(): text for name, text in request.headers.items()}
        if is_from_browser(headers):
            return Response(status=403)
        if request.method == "GET":
            return jsonify(LOOP.run(self._status()))
        if request.method != "POST":
            return Response(status=405)
        return Response(status=LOOP.run(self._take(headers, request.get_data(cache=False))))

    async def _take(self, headers: Mapping[str, str], body: bytes) -> int:
        return await (await self._opened_deliveries()).take(headers, body)

    async def _status(self) -> Mapping[str, object]:
        return (await self._opened_deliveries()).status()

    async def _opened_deliveries(self) -> Deliveries:
        """Give what takes deliveries; opened once, and again after it could not be."""
        async with self._opening:
            if self._deliveries is None:
                async with contextlib.AsyncExitStack() as stack:
                    parts = await stack.enter_async_context(Parts(load()))
                    self._deliveries = await parts.deliveries()
                    self._opened = stack.pop_all()
                    atexit.register(self._close)
            return self._deliveries

    def _close(self) -> None:
        """Close connections; what they still owed was answered before the server stopped."""
        with contextlib.suppress(TimeoutError):
            LOOP.run(self._opened.aclose(), timeout_s=_CLOSE_TIMEOUT_S)


#: The process's only one: all its functions share connections and batches.
PUBLISHER = Publisher()
