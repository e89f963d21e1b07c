"""
A Firestore that fails on request: a gRPC server that hands calls on to the emulator, or ends them.

It works on the wire, in bytes, so that Google's client and our adapter run as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How one call ends."""

    code: grpc.StatusCode
    words: str
    #: Answers that are let through before it ends.
    after_count: int = 0


@dataclass
class FaultyFirestore:
    """The faults still to come, one a call (None: it is handed on), and the calls that came."""

    host: str
    faults: list[Fault | None] = field(default_factory=list)
    #: The fault of every call once `faults` is empty; None: calls are handed on.
    lasting: Fault | None = None
    #: The only method that `lasting` is for, as "RunQuery"; None: every one.
    lasting_method: str | None = None
    calls: list[str] = field(default_factory=list)

    def next_fault(self, method: str) -> Fault | None:
        """Note a call, and tell how it is to end."""
        name = method.rsplit("/", 1)[-1]
        self.calls.append(name)
        if self.faults:
            return self.faults.pop(0)
        return self.lasting if self.lasting_method in (None, name) else None


class _Relay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands calls on to the emulator as bytes."""

    def __init__(self, channel: Any, firestore: FaultyFirestore) -> None:
        self._channel = channel
        self._firestore = firestore

    def service(self, details: Any) -> Any:
        method = details.method

        async def relay(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            fault = self._firestore.next_fault(method)
            if fault is not None and not fault.after_count:
                await context.abort(fault.code, fault.words)
            answers = self._channel.stream_stream(method)(requests)
            count = 0
            try:
                async for answer in answers:
                    yield answer
                    count += 1
                    if fault is not None and count >= fault.after_count:
                        answers.cancel()
                        await context.abort(fault.code, fault.words)
            except grpc.aio.AioRpcError as exc:
                await context.abort(exc.code(), exc.details())

        return grpc.stream_stream_rpc_method_handler(relay)


@contextlib.asynccontextmanager
async def faulty_firestore(emulator_host: str) -> AsyncIterator[FaultyFirestore]:
    """Lend a server in front of the emulator that fails as it is told."""
    async with grpc.aio.insecure_channel(emulator_host) as channel:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        firestore = FaultyFirestore(f"127.0.0.1:{port}")
        server.add_generic_rpc_handlers([_Relay(channel, firestore)])
        await server.start()
        try:
            yield firestore
        finally:
            await server.stop(grace=None)
