"""Shows a running demo in the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table

from storemirror.demo.run import DemoProgress


@contextlib.contextmanager
def live_view(console: Console) -> Iterator[Callable[[DemoProgress], None]]:
    """Lend a function that shows progress: in place on a terminal, else a line a phase."""
    if not console.is_terminal:
        yield _phases_to(console)
        return
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        yield lambda progress: live.update(_table(progress))


def _phases_to(console: Console) -> Callable[[DemoProgress], None]:
    """Print one line when a phase begins; a log has no use for more."""
    shown: set[str] = set()

    def show(progress: DemoProgress) -> None:
        if progress.phase not in shown:
            shown.add(progress.phase)
            console.print(f"{progress.phase}: {progress.written} writes so far")

    return show


def _table(progress: DemoProgress) -> Table:
    table = Table.grid(padding=(0, 3))
    table.title = f"StoreMirror demo: {progress.phase}, {progress.duration_s:.0f} s  (Ctrl-C stops)"
    table.title_justify = "left"
    writes = f"{progress.written}  ({progress.deleted} deleted, {progress.recreated} re-created)"
    table.add_row("documents", "writes", writes)
    table.add_row("triggers", "events published", str(progress.published))
    dead = f"  [red]{progress.dead_letters} dead letters[/red]" if progress.dead_letters else ""
    table.add_row("bus", "deliveries waiting", f"{progress.depth}{dead}")
    table.add_row("writer", "events settled", str(progress.settled))
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(progress.outcomes.items()))
    table.add_row("", "outcomes", outcomes or "none yet")
    if progress.restarts:
        table.add_row("", "killed and restarted", str(progress.restarts))
    table.add_row("SQL", "commit to visible", _latency(progress))
    return table


def _latency(progress: DemoProgress) -> str:
    found = [f"{n} {ms:.1f} ms" for n, ms in progress.latency_ms.items() if ms is not None]
    return ", ".join(found) or "nothing applied yet"
