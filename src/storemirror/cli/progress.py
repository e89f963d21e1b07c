"""How far a backfill or reconcile is, for a person at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from storemirror.clock import Clock
from storemirror.source.backfill import BackfillProgress
from storemirror.source.backfill_pace import Waiting


class ProgressBar:
    """How far it is, on standard error; nothing where that is no terminal."""

    def __init__(self, clock: Clock, *, is_quiet: bool) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=is_quiet or not console.is_terminal,
        )
        self._clock = clock
        self._task: TaskID | None = None
        self._began: tuple[float, int] = (0.0, 0)
        self._has_said_wait = False
        self._has_said_stall = False

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show_wait(self, waiting: Waiting) -> None:
        """Show that the writer must take events first; say so once, and again when none does."""
        text = f"waiting: {waiting.depth:,} events on the bus, at most {waiting.max_depth:,}"
        if self._task is not None:
            self._bar.update(self._task, description=text)
        if not self._has_said_wait:
            self._has_said_wait = True
            self._say(f"{text}; the writer must take some first")
        if waiting.is_stalled and not self._has_said_stall:
            self._say(
                f"no event was taken for {waiting.still_s:.0f} s: does a writer run? Start one with"
                " `storemirror writer` or `storemirror up`, or read its log; this goes on when it"
                " does. Ctrl-C stops here, and the same command goes on later"
            )
        self._has_said_stall = waiting.is_stalled

    def _say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: BackfillProgress) -> None:
        """Show a state of things."""
        now_s = self._clock.monotonic_s()
        if self._task is None:
            self._task = self._bar.add_task("reading", total=None)
            self._began = (now_s, progress.document_count)
        began_s, began_count = self._began
        rate = (progress.document_count - began_count) / max(now_s - began_s, 0.001)
        self._bar.update(
            self._task,
            total=max(progress.expected_count, progress.document_count),
            completed=progress.document_count,
            description=f"{rate:,.0f} documents/s, {progress.read_count:,} reads",
        )
