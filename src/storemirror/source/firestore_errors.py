"""Errors of Google's client as ours, at one place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors

from storemirror.errors import (
    ReadTimeRefused,
    SourceRefused,
    SourceUnavailable,
    StoreMirrorError,
)

#: The server, not the call, is in trouble: a repeated read may go through.
TRANSIENT: Final = (
    google_errors.Aborted,
    google_errors.Cancelled,
    google_errors.DeadlineExceeded,
    google_errors.InternalServerError,
    google_errors.ResourceExhausted,
    google_errors.ServiceUnavailable,
    google_errors.TooManyRequests,
    google_errors.Unknown,
)
#: What Google's own words leave out, by the kind of error; the first one that fits.
_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        google_errors.PermissionDenied,
        "the caller needs roles/datastore.viewer to read, roles/datastore.user to write too",
    ),
    (google_errors.Unauthenticated, "the credentials are missing or have expired"),
    (google_errors.NotFound, "see whether project and database are named right"),
    (google_errors.ResourceExhausted, "a quota is used up: see Firestore's quotas page"),
    (google_errors.ServiceUnavailable, "see whether this machine reaches it"),
)
_TOO_OLD: Final = (
    "a read time reaches back one hour (seven days by whole minutes with point-in-time recovery):"
    " start again, on fewer documents at a time"
)
_MAX_WORDS: Final = 300


def translated(exc: Exception, where: str) -> StoreMirrorError:
    """
    Give our error for one of Google's.

    Args:
        exc: what the client raised.
        where: the database, for the message.
    """
    words = " ".join(str(getattr(exc, "message", exc)).split())[:_MAX_WORDS] or type(exc).__name__
    if isinstance(exc, auth_errors.GoogleAuthError):
        if exc.retryable:
            return SourceUnavailable(f"{where}: {words}")
        return SourceRefused(f"{where}: no credentials that Google takes: {words}")
    advice = next((text for kind, text in _ADVICE if isinstance(exc, kind)), "")
    kind: type[StoreMirrorError] = SourceRefused
    if isinstance(exc, TRANSIENT):
        kind = SourceUnavailable
    elif isinstance(exc, google_errors.BadRequest) and _is_about_read_time(words):
        kind, advice = ReadTimeRefused, _TOO_OLD
    return kind(f"{where}: {words}{f' ({advice})' if advice else ''}")


def _is_about_read_time(words: str) -> bool:
    """Tell whether a refusal is about the moment asked for; its status alone does not say."""
    return "snapshot version" in words or "read_time" in words or "read time" in words


@contextlib.contextmanager
def translated_errors(where: str) -> Iterator[None]:
    """Turn errors of Google's client into ours.  The original stays as `__cause__`."""
    try:
        yield
    except (google_errors.GoogleAPIError, auth_errors.GoogleAuthError) as exc:
        raise translated(exc, where) from exc
