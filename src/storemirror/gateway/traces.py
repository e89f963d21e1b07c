"""
What the log may say of an error that nobody foresaw: of which kind, and where it was raised.

Its words are left out unless they are our own: a driver's or a library's may quote a document.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Final

from storemirror.errors import StoreMirrorError

#: Innermost frames that are told of each error.
_FRAMES: Final = 12
#: Errors of a chain that are told.
_CHAIN: Final = 8


def trace_of(error: BaseException) -> list[Mapping[str, object]]:
    """
    Tell an error and its causes, the last one first.

    >>> trace_of(ValueError("of somebody's message"))
    [{'kind': 'ValueError', 'at': []}]
    """
    told: list[Mapping[str, object]] = []
    for each, _ in zip(_chain(error), range(_CHAIN), strict=False):
        frames = traceback.extract_tb(each.__traceback__)[-_FRAMES:]
        words = {"words": str(each)} if isinstance(each, StoreMirrorError) else {}
        at = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        told.append({"kind": type(each).__name__, **words, "at": at})
    return told


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
