"""What a person may ask of `make bench`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Part(enum.StrEnum):
    """A benchmark that can be run by itself."""

    APPLY = "apply"
    SCALE = "scale"
    HOT = "hot"
    PIPELINE = "pipeline"
    MEMORY = "memory"
    BACKFILL = "backfill"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Sizes and times."""

    parts: tuple[Part, ...]
    #: Deliveries of *apply*, *scale* and *hot*.
    event_count: int = 100_000
    conversation_count: int = 2_000
    round_count: int = 3
    #: Of row at a time, which takes twenty times as long.
    row_event_count: int = 5_000
    lane_count: int = 2
    batch_max_events: int = 2_000
    rate_per_s: float = 500.0
    paced_s: float = 20.0
    flat_out_count: int = 40_000
    memory_rate_per_s: float = 2_000.0
    memory_s: float = 60.0
    #: Documents of 1 MiB.
    large_count: int = 60
    #: Documents of *backfill*, in Google's Firestore emulator.
    backfill_count: int = 20_000
    #: Messages of *gateway*, in `conversation_count` conversations.
    message_count: int = 100_000
    #: How long each of its calls is asked, flat out and again at the rate, in each round.
    gateway_s: float = 5.0
    gateway_rate_per_s: float = 300.0
    #: Of the contestant that reads documents: an inbox is some sixty reads of the store.
    document_rate_per_s: float = 2.0
    gateway_client_count: int = 8
    is_durable: bool = True
    seed: int = 1
    #: Python of an environment that holds the peers; empty: they are left out.
    peers_python: str = ""
