"""
Leaves SQL alone for a while after failures in a row, so that not every caller waits for a deadline.

Then one call at a time tries SQL, until one has shown how it is; all others do without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from purgatory.domain.model import HALF_OPENED, Context, OpenedState

from storemirror.errors import CallRefused

#: SQL failures in a row after which it is left alone, and for how long.
BREAKER_THRESHOLD: Final = 5
BREAKER_OPEN_S: Final = 5.0


class Breaker:
    """Lets calls of SQL through, or not.  For one event loop."""

    def __init__(self) -> None:
        """Let everything through."""
        # Its state alone: the library's own block counts a call that is called off as a success,
        # and lets everybody through at once when the time is over.
        self._context = Context("sql", BREAKER_THRESHOLD, BREAKER_OPEN_S)
        self._is_tried = False

    def turn(self) -> contextlib.AbstractContextManager[None] | None:
        """
        Give the block in which to ask SQL, to be entered at once; None: leave SQL alone.

        An exception that leaves the block is a failure of SQL's.  Not so `CallRefused`, which is
        an answer; and a call that is called off says nothing of SQL.
        """
        if self._is_tried:
            return None
        try:
            self._context.handle_new_request()
        except OpenedState as exc:
            # It is one exception, raised at every read: it would keep the frames of each.
            exc.with_traceback(None)
            return None
        finally:
            self._context.messages.clear()
        self._is_tried = self._context.state == HALF_OPENED
        return self._counted(is_trial=self._is_tried)

    @contextlib.contextmanager
    def _counted(self, *, is_trial: bool) -> Iterator[None]:
        try:
            yield
        except CallRefused:
            self._note(None, is_trial=is_trial)
            raise
        except Exception as exc:
            self._note(exc, is_trial=is_trial)
            raise
        else:
            self._note(None, is_trial=is_trial)
        finally:
            if is_trial:
                self._is_tried = False

    def _note(self, failure: Exception | None, *, is_trial: bool) -> None:
        """Count how a block ended."""
        if self._context.state == HALF_OPENED and not is_trial:
            # It began before SQL was left alone.
            return
        if failure is None:
            self._context.handle_end_request()
        else:
            self._context.handle_exception(failure)
        self._context.messages.clear()
