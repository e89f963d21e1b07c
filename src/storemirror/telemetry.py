"""
Every metric and log-event name, with its unit, in one file; and how latencies are kept.

Names are a contract: dashboards and alerts rest on them.  Log events carry document paths and
event ids, never what a document contains.
"""

from __future__ import annotations

import enum
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

import structlog

#: Latency from a document's commit to its row being visible, milliseconds, by category.
SQL_MIRROR_LATENCY_MS: Final = "sql_mirror_latency_ms"
#: Events by what came of them; the label `outcome` is `storemirror.event.change.Outcome`.
SQL_MIRROR_EVENTS_TOTAL: Final = "sql_mirror_events_total"
#: Deliveries that were set aside, by reason.
SQL_MIRROR_DEAD_LETTERS_TOTAL: Final = "sql_mirror_dead_letters_total"
#: Deliveries that were given back to the bus without having been applied.
SQL_MIRROR_ABANDONED_TOTAL: Final = "sql_mirror_abandoned_total"
#: Deliveries whose lock was lost before they were settled.
SQL_MIRROR_LOST_LOCKS_TOTAL: Final = "sql_mirror_lost_locks_total"
#: Messages that wait or are locked in a subscription.
SQL_MIRROR_QUEUE_DEPTH: Final = "sql_mirror_queue_depth"
#: Age of the oldest of them, seconds.
SQL_MIRROR_QUEUE_OLDEST_AGE_S: Final = "sql_mirror_queue_oldest_age_s"


class LogEvent(enum.StrEnum):
    """What a log line says happened."""

    WRITER_STARTED = "writer.started"
    #: The writer ended; carries the counters.
    WRITER_STOPPED = "writer.stopped"
    #: A dependency did not answer; the call is repeated after `wait_s`.
    CALL_RETRIED = "writer.call_retried"
    #: Nothing is received until the database takes events again.
    GATE_CLOSED = "writer.gate_closed"
    #: The database still does not take events; seen again after `wait_s`.
    GATE_STILL_CLOSED = "writer.gate_still_closed"
    GATE_OPENED = "writer.gate_opened"
    #: The document store does not answer, or says no: expired events wait, all others go on.
    SOURCE_GATE_CLOSED = "writer.source_gate_closed"
    #: It still does not; asked again after a while.
    SOURCE_GATE_STILL_CLOSED = "writer.source_gate_still_closed"
    SOURCE_GATE_OPENED = "writer.source_gate_opened"
    #: One event was set aside with `reason`.
    EVENT_DEAD_LETTERED = "writer.event_dead_lettered"
    #: Decoding one event ended in an error that nobody foresaw; it is set aside.
    EVENT_UNDECODABLE = "writer.event_undecodable"
    #: Locks were lost before the deliveries were settled; they come again as duplicates.
    LOCKS_LOST = "writer.locks_lost"
    #: Locks could not be extended; tried again before they run out.
    RENEWAL_FAILED = "writer.renewal_failed"
    #: Rows are committed, but the bus could not be told; the deliveries come again.
    SETTLEMENT_FAILED = "writer.settlement_failed"
    #: An error that nobody foresaw; the writer stops.
    WRITER_FAILED = "writer.failed"
    #: One line a drain, with its numbers.
    DRAIN_FINISHED = "drain.finished"
    #: A drain on schedule met an outage; the next one comes at its time.
    DRAIN_FAILED = "drain.failed"
    #: A dead letter that the bus made by itself was put back.
    DEAD_LETTER_RESUBMITTED = "drain.dead_letter_resubmitted"
    #: The bus does not take a dead letter again; it stays where it is.  Carries its `number`.
    DEAD_LETTER_REFUSED = "drain.dead_letter_refused"
    #: The bus did not answer while dead letters were put back; the next drain goes on with it.
    RESUBMITTING_FAILED = "drain.resubmitting_failed"
    #: Somebody who may not deliver called the receiver; carries why, and nothing of the token.
    CALLER_REFUSED = "receiver.caller_refused"
    #: A delivery that cannot be read went to the bus as it came, for the writer to set aside.
    DELIVERY_UNREADABLE = "receiver.delivery_unreadable"
    #: The bus takes no events: deliveries are answered 503, and come again.
    BUS_FAILED = "receiver.bus_failed"
    #: The bus takes events again.
    BUS_RECOVERED = "receiver.bus_recovered"
    #: A callable failed for a reason that nobody foresaw; the client was told INTERNAL.
    CALL_FAILED = "gateway.call_failed"
    #: A function cannot open the gateway: clients are told UNAVAILABLE, and each call tries again.
    GATEWAY_NOT_OPENED = "gateway.not_opened"
    #: Somebody called who could not prove who they are, or may not; nothing of the token.
    CALL_REFUSED = "gateway.call_refused"
    #: The template of Remote Config cannot be had or read: reads and writes are Firestore's alone.
    FLAGS_FAILED = "gateway.flags_failed"
    #: The template can be had and read again.
    FLAGS_RECOVERED = "gateway.flags_recovered"
    #: The template breaks on what a caller's token claims: Firestore serves that caller; carries
    #: the kind of error, and how often since it was last said.
    FLAGS_UNEVALUATED = "gateway.flags_unevaluated"
    #: Firestore or SQL did not answer a call, or not in time: the client was told so; carries which
    #: error, and how often since it was last said.
    CALL_UNAVAILABLE = "gateway.call_unavailable"
    #: SQL was not seen to be this Firestore's mirror, or is another one's; `is_read` tells whether
    #: it is read all the same, since it was seen before.
    SCHEMA_UNVERIFIED = "gateway.schema_unverified"
    #: SQL was seen to be this Firestore's mirror again.
    SCHEMA_VERIFIED = "gateway.schema_verified"
    #: SQL did not take a write within the call; the event path brings it.
    CALL_NOT_MIRRORED = "gateway.call_not_mirrored"
    #: A read that SQL was to serve came from Firestore; carries `reason`.
    READ_FELL_BACK = "gateway.read_fell_back"
    #: SQL did not answer a read.
    READ_FAILED = "gateway.read_failed"
    #: The bus does not say how far SQL is behind.
    LAG_UNKNOWN = "gateway.lag_unknown"
    #: Both sides show one version of a document differently; carries `item` and `field`.
    SHADOW_DIFFERS = "gateway.shadow_differs"
    #: SQL did not answer a comparison that nobody waits for.
    SHADOW_FAILED = "gateway.shadow_failed"
    #: All parts of one process are to end, in order; `cause` is "asked" or the part that failed.
    PARTS_ENDING = "up.ending"
    #: A part had not ended in time, and was cut short; what it held comes again.
    PART_CUT_SHORT = "up.part_cut_short"


#: Buckets in each doubling of the value: a bucket is at most 1/16 wider than its lower bound.
_STEPS: Final = 16
_STEP_BITS: Final = 4
#: Values from 2^40 microseconds (12 days) on share the last bucket.
_LAST_BUCKET: Final = (40 - _STEP_BITS + 1) * _STEPS


def bucket_of(value_us: int) -> int:
    """
    Give the bucket of a value: its highest five bits and where they stand.

    >>> [bucket_of(v) for v in (0, 15, 16, 31, 32, 33, 34, 2**50)]
    [0, 15, 16, 31, 32, 32, 33, 592]
    """
    shift = value_us.bit_length() - _STEP_BITS - 1
    if shift <= 0:
        return max(value_us, 0)
    return min(shift * _STEPS + (value_us >> shift), _LAST_BUCKET)


def upper_bound_us(bucket: int) -> int:
    """
    Give the largest value that falls into a bucket; of the last, the smallest.

    >>> [upper_bound_us(bucket_of(v)) for v in (0, 16, 33, 34, 1_000_000)]
    [0, 16, 33, 35, 1015807]
    """
    shift = bucket // _STEPS - 1
    if shift <= 0 or bucket >= _LAST_BUCKET:
        return bucket if bucket < _LAST_BUCKET else 1 << 40
    return ((_STEPS + bucket % _STEPS + 1) << shift) - 1


class LatencyHistogram:
    """
    Counts of values in buckets that grow with the value, as HdrHistogram has them.

    Chosen over a reservoir: it forgets no outlier (P99 is what the promise is about), its error is
    bounded (a percentile is at most 1/16 too high, never too low), two of them add up exactly,
    and nothing is drawn by lot.  593 integers, however many values.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._counts = [0] * (_LAST_BUCKET + 1)
        self.count = 0

    def add(self, value_us: int) -> None:
        """Count one value, microseconds; below zero counts as zero."""
        self._counts[bucket_of(value_us)] += 1
        self.count += 1

    def add_all(self, values_us: Sequence[int]) -> None:
        """Count many values at once; see `add`."""
        for bucket, count in Counter(map(bucket_of, values_us)).items():
            self._counts[bucket] += count
        self.count += len(values_us)

    def percentile_us(self, percent: float) -> int | None:
        """Give a value, microseconds, that `percent` of the values do not exceed; None if empty."""
        if not self.count:
            return None
        needed = min(max(percent / 100 * self.count, 1), self.count)
        seen = enumerate(accumulate(self._counts))
        return upper_bound_us(next(bucket for bucket, count in seen if count >= needed))

    def percentiles_ms(self) -> dict[str, float | None]:
        """Give P50, P95 and P99 in milliseconds."""
        found = {f"p{p}": self.percentile_us(p) for p in (50, 95, 99)}
        return {name: None if us is None else us / 1000 for name, us in found.items()}


#: Category of every callable; the entities' own (`dmSqlMirror`, `followSqlMirror`) stand beside it.
SQL_MIRROR_CATEGORY: Final = "sqlMirror"


class CallableLatencyTracker:
    """Latencies of callables, by name, category, source and outcome, in bounded memory."""

    def __init__(self) -> None:
        """Start empty."""
        self._histograms: dict[tuple[str, str, str, str], LatencyHistogram] = {}

    def record(
        self, name: str, *, category: str, source: str, outcome: str, latency_us: int
    ) -> None:
        """
        Count one call.

        Args:
            name: of the callable.
            category: the entity's; the call counts for `SQL_MIRROR_CATEGORY` as well.
            source: "sql" or "firestore", which answered; "none" where no side was asked.
            outcome: "OK", or the canonical status that the client was told.
            latency_us: from the request to the answer, microseconds.
        """
        for counted in (SQL_MIRROR_CATEGORY, category):
            key = (name, counted, source, outcome)
            histogram = self._histograms.get(key)
            if histogram is None:
                histogram = self._histograms[key] = LatencyHistogram()
            histogram.add(latency_us)

    def snapshot(self) -> list[Mapping[str, object]]:
        """Give a line for each combination that occurred, as values that JSON can carry."""
        return [
            {
                "callable": name,
                "category": category,
                "source": source,
                "outcome": outcome,
                "count": histogram.count,
                "latency_ms": histogram.percentiles_ms(),
            }
            for (name, category, source, outcome), histogram in sorted(self._histograms.items())
        ]


def configure_logging(level: str, *, with_severity: bool = False) -> None:
    """
    Send log lines, as JSON, to standard error; standard output is for results.

    Args:
        level: "debug", "info", "warning" or "error"; anything else is "warning".
        with_severity: also give the level as Google's Cloud Logging reads it.
    """
    least = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *([_add_severity] if with_severity else []),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # The pool warns of each failed attempt; the error that ends the waiting says the same once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def _add_severity(
    _: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Say the level once more, under the name that Cloud Logging knows."""
    event["severity"] = name.upper()
    return event
