"""Counts the latency of every call that was answered; see `CallableLatencyTracker`."""

from __future__ import annotations

from typing import Any, Final

from storemirror.gateway.callables import CallableSpec
from storemirror.gateway.port import Served
from storemirror.gateway.protocol import CallStatus
from storemirror.telemetry import CallableLatencyTracker

#: The source of an answer that came from neither side.
_NO_SOURCE: Final = "none"


class LatencyObserver:
    """See `storemirror.gateway.calls.CallObserver`."""

    def __init__(self) -> None:
        """Start empty."""
        self.tracker = CallableLatencyTracker()

    def answered(
        self,
        spec: CallableSpec[Any, Any],
        *,
        status: CallStatus,
        source: Served | None,
        duration_ms: float,
    ) -> None:
        """See `CallObserver.answered`."""
        self.tracker.record(
            spec.name,
            category=spec.category,
            source=_NO_SOURCE if source is None else source.value,
            outcome=status.value,
            latency_us=round(duration_ms * 1_000),
        )
