"""
Every error StoreMirror raises, in one file, so that the tree can be read at once.

    StoreMirrorError                exit
    ├── ConfigError                 4   a setting is missing or wrong; raised before any I/O
    │   └── DeclarationInvalid      4   a declaration is wrong; carries every mistake found
    ├── UsageRefused                2   an option's value cannot be one; nothing was done
    ├── OutputClosed                141 standard output was closed or is full
    ├── SwitchedOff                 7   the master switch is off; nothing was read or written
    ├── TransientError              5   written or not is unknown; retry: calls are idempotent
    │   ├── BusUnavailable
    │   │   └── SettledInPart           of some deliveries; nobody knows of the others
    │   ├── SqlUnavailable
    │   │   ├── RebaseUnderWay          the mirror takes no events for a while; nothing written
    │   │   └── SchemaLocked            others use the tables to be changed; says what was changed
    │   ├── SourceUnavailable
    │   └── ParentMissing               a purge struck between stubs and locks; nothing written
    ├── DatabaseRefused             5   SQL said no, and not because of an event; nothing written
    │   └── SchemaMismatch          6   installed tables or procedures are not the ones we call
    │       ├── SchemaBoundElsewhere 6  the schema mirrors another Firestore
    │       └── SchemaChangeRefused 6   tables that are there stand in the way; nothing changed
    ├── BusRefused                  5   the bus said no; a mend is needed before a retry
    │   └── MessageRefused          5   it never takes this message; others it may
    ├── SourceRefused               5   the document store said no; nothing was read or written
    │   └── ReadTimeRefused         5   the store does not show this moment, or no longer
    ├── ClockSkewed                 5   this machine's clock is wrong; nothing written
    ├── EmbeddedServerFailed        5   the embedded PostgreSQL did not start or stop
    ├── PoisonEventError            8   this event can never be applied; it is dead-lettered
    │   ├── EnvelopeInvalid             no CloudEvent of ours, or of a later format
    │   ├── EntityUnknown               no declaration has this path
    │   ├── KeyRefused                  an id that cannot be a key
    │   ├── MappingFailed               a value does not fit its column
    │   └── EventRefused                the database refused the data of this event
    ├── CheckIncomplete             3   the comparison did not finish; says nothing of the data
    │   └── CheckReadsSpent         3   no reads were left for the rest; says what was compared
    ├── DeadLetterUnknown           9   no dead letter has this number; nothing was changed
    └── CallRefused                 70  a callable's answer that is no result: why, for the client

A stale or repeated event is not an error: see `storemirror.event.change.Outcome`.
A difference between both sides is not an error: see `storemirror.check.compare.Mismatch`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar


class StoreMirrorError(Exception):
    """Base of all errors raised on purpose by this package."""

    #: What the operator should do next.  Shown by the command line; a page in docs/runbook.
    hint: ClassVar[str] = ""
    #: Status with which the command line ends.  2 is click's, for wrong usage.
    exit_status: ClassVar[int] = 70


class ConfigError(StoreMirrorError):
    """A setting is missing or wrong.  Raised before any input or output."""

    hint = "Mend the setting named above; `storemirror --help` and docs/reference/settings.md."
    exit_status = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong in a declaration file."""

    #: The file as the user named it; "built-in social.toml" for ours.
    file: str
    #: Line in the file, from 1; 0 when the mistake has no place of its own.
    line: int
    #: Where in the declaration: "DmMessage.columns.sentAt.type"; empty for the whole file.
    where: str
    what: str
    cure: str

    def __str__(self) -> str:
        """Give the mistake as one line."""
        place = f"{self.file} line {self.line}" if self.line else self.file
        where = f"{self.where}: " if self.where else ""
        return f"{place}: {where}{self.what}. {self.cure}"


class DeclarationInvalid(ConfigError):
    """Declaration files are wrong.  All mistakes of all files are reported at once."""

    hint = "Mend the lines above; the format is in docs/reference/declarations.md."

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        """Keep the mistakes as values, so that callers need not parse the text."""
        listed = "".join(f"\n  {mistake}" for mistake in mistakes)
        plural = "mistake" if len(mistakes) == 1 else "mistakes"
        super().__init__(
            f"{len(mistakes)} {plural} in the declarations; nothing was started{listed}"
        )
        self.mistakes = tuple(mistakes)


class UsageRefused(StoreMirrorError):
    """An option's value cannot be one.  Nothing was done."""

    hint = "See the command's own --help."
    exit_status = 2


class OutputClosed(StoreMirrorError):
    """Standard output was closed, or cannot take more.  What the command did stands."""

    hint = "Run it again with its output going to a terminal, or to a disk with room."
    #: 128 + SIGPIPE, as shells have it.
    exit_status = 141


class SwitchedOff(StoreMirrorError):
    """`USE_SQL_DM_WRITE_MIRROR` is not true.  Nothing was received or written."""

    hint = "Set USE_SQL_DM_WRITE_MIRROR=true to let the writer and the dual write run."
    exit_status = 7


class TransientError(StoreMirrorError):
    """A dependency did not answer.

    A connection lost during commit leaves the result unknown.  Retrying is safe
    because every procedure is idempotent, not because nothing was written.
    """

    hint = (
        "Nothing is lost: events wait on the bus.  See whether the named server answers, has room "
        "on its disk and takes writes, and whether user, password and database in its DSN are "
        "right."
    )
    exit_status = 5


class BusUnavailable(TransientError):
    """The bus did not answer, or asked to wait."""

    hint = (
        "Nothing is lost: what is not on the bus stays where it came from.  See whether this "
        "machine reaches the named server or namespace; on PostgreSQL also whether it has room on "
        "its disk and takes writes, and whether user, password and database in STOREMIRROR_BUS_DSN "
        "are right."
    )


class SettledInPart(BusUnavailable):
    """The bus took note of some settlements of a call, and not of others."""

    def __init__(self, message: str, *, unsettled: Collection[int]) -> None:
        """Keep the sequence numbers of which nothing is known, or that are lost."""
        super().__init__(message)
        self.unsettled = unsettled


class SqlUnavailable(TransientError):
    """The mirror's database did not answer, or broke a deadlock or a timeout."""


class RebaseUnderWay(SqlUnavailable):
    """A rebase has closed the mirror to events; nothing was written.

    Writers wait, and go on by themselves when it is open again.
    """

    hint = (
        "Wait for `storemirror rebase` to end; if it was stopped or killed, give the command again."
    )


class SchemaLocked(SqlUnavailable):
    """Others use the tables that a change of the schema needs to itself; it was rolled back."""

    hint = (
        "Let the sessions named above end (a dump, a report, a transaction left open), or end them,"
        " then run `storemirror schema apply` again: it does what is left."
    )


class SourceUnavailable(TransientError):
    """The document store did not answer."""


class ParentMissing(TransientError):
    """Fewer parent rows could be locked than there should be; nothing was written.

    A purge struck between the stubs and the locks, or a procedure was called
    without `ensure_parents` before it.
    """

    hint = "Call ensure_parents first; through the writer this is retried by itself."


class DatabaseRefused(StoreMirrorError):
    """The database said no for a reason that is not the event's; nothing was written."""

    hint = "Read the database's own words above: rights, disk space and read-only mode come first."
    exit_status = 5


class SchemaMismatch(DatabaseRefused):
    """The installed tables or procedures are not the ones this code calls."""

    hint = "Run `storemirror schema status`, then `storemirror schema apply`."
    exit_status = 6


class SchemaBoundElsewhere(SchemaMismatch):
    """The schema mirrors another Firestore project or database; nothing was changed."""

    hint = "Check STOREMIRROR_SQL_DSN and STOREMIRROR_FIRESTORE_PROJECT: one of them is another's."


class SchemaChangeRefused(SchemaMismatch):
    """Tables that are there stand in the way, until a person decides; nothing was changed."""

    hint = (
        "Run `storemirror schema diff`: it lists what stands in the way, and which of it "
        "`storemirror schema apply --alter-columns` would change."
    )


class BusRefused(StoreMirrorError):
    """The bus said no: rights, a missing topic, a full one.  Nothing was published."""

    hint = "Read the words of the bus above: rights, the topic and its quota come first."
    exit_status = 5


class MessageRefused(BusRefused):
    """The bus can never take this message: too large, or not to be stored.  It takes others."""

    hint = "Read the words of the bus above: they say what of the message is not taken."


class SourceRefused(StoreMirrorError):
    """The document store said no: rights, a missing database, a read time too old.

    Nothing was written by the call that was refused.
    """

    hint = "Read Firestore's own words above: rights, project and database, and quotas come first."
    exit_status = 5


class ReadTimeRefused(SourceRefused):
    """The store does not show the moment asked for, or no longer; nothing was read."""


class ClockSkewed(StoreMirrorError):
    """This machine's clock is over a minute away from the database's; nothing was written."""

    hint = "Set this machine's clock (NTP), then start again."
    exit_status = 5


class EmbeddedServerFailed(StoreMirrorError):
    """The embedded PostgreSQL did not start or stop."""

    hint = (
        "Mend what is named above; STOREMIRROR_POSTGRES_BIN names other binaries, and --port "
        "another port."
    )
    exit_status = 5


class PoisonEventError(StoreMirrorError):
    """This event can never be applied, however often it is retried.  Nothing of it was written."""

    hint = (
        "Run `storemirror dlq show NUMBER`; mend the cause; then `storemirror dlq resubmit NUMBER`."
    )
    exit_status = 8
    #: Short, fixed word that the dead letter carries as its reason.
    reason: ClassVar[str] = "Poison"

    def __init__(self, message: str, *, event_id: str = "", path: str = "") -> None:
        """Keep the ids as attributes, so that callers need not parse the text."""
        super().__init__(f"{message} (event {event_id or '?'}, document {path or '?'})")
        self.event_id = event_id
        self.path = path


class EnvelopeInvalid(PoisonEventError):
    """The body is no CloudEvent of ours, or of a format this version does not know."""

    reason = "EnvelopeInvalid"


class EntityUnknown(PoisonEventError):
    """No declared entity has this document's path."""

    reason = "EntityUnknown"


class KeyRefused(PoisonEventError):
    """An id in the document's path cannot be a key in this database."""

    reason = "KeyRefused"


class MappingFailed(PoisonEventError):
    """A value of the document does not fit its column."""

    reason = "MappingFailed"


class EventRefused(PoisonEventError):
    """The database refused the data of this event."""

    reason = "EventRefused"


class CheckIncomplete(StoreMirrorError):
    """The comparison did not finish.  It says nothing about the data."""

    hint = "Let the backlog drain (`storemirror drain`), then check again."
    exit_status = 3


class CheckReadsSpent(CheckIncomplete):
    """The reads ran out before all was compared, and nothing differs so far."""

    hint = "Give more with --max-reads, or compare fewer kinds at a time with --check."


class DeadLetterUnknown(StoreMirrorError):
    """No dead letter has this number.  Nothing was changed."""

    hint = "Run `storemirror dlq list` to see the numbers."
    exit_status = 9


class CallRefused(StoreMirrorError):
    """A callable cannot be answered with a result; the client is told the status and why.

    The message goes to the client: it never says whether something exists that is not theirs.
    """

    def __init__(self, status: str, message: str, *, details: object = None) -> None:
        """
        Say what the client is told.

        Args:
            status: canonical, in capitals: "NOT_FOUND"; see `storemirror.gateway.protocol`.
            message: one sentence.
            details: what JSON can carry; None for nothing.
        """
        super().__init__(message)
        self.status = status
        self.details = details
