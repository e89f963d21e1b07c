"""Figures as JSON with fixed keys, and as one table.  Pure but for the file that it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.apply import Measured


@dataclass(slots=True)
class Report:
    """What was measured so far: dotted key -> figure, and the rows of the table."""

    machine: Mapping[str, object]
    figures: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, key: str, figure: float, note: str = "") -> None:
        """Add one figure; its unit is the end of its key."""
        self.figures[key] = round(figure, 2)
        self.rows.append((key, f"{figure:,.0f}" if figure >= 100 else f"{figure:,.2f}", note))

    def leave_out(self, part: str, reason: str) -> None:
        """Say in the table why a part was not run."""
        self.rows.append((part, "-", reason))

    def add_measured(self, key: str, measured: Measured, note: str = "") -> None:
        """Add a contestant's events a second, its rounds, and the processor time of both sides."""
        own_us, postgres_us = measured.own_cpu_us, measured.postgres_cpu_us
        cost = f"{own_us:.0f} µs Python + {postgres_us:.0f} µs PostgreSQL an event"
        self.add(key, measured.per_s, f"{cost}{'; ' if note else ''}{note}")
        self.figures[f"cost.{key}"] = {
            "python_cpu_us": round(own_us, 2),
            "postgres_cpu_us": round(postgres_us, 2),
            "rounds_per_s": [round(measured.event_count / r.at_s) for r in measured.rounds],
        }

    def as_json(self) -> dict[str, Any]:
        """
        Nest the figures by the dots of their keys.

        >>> made = Report(machine={"cores": 2})
        >>> made.add("apply.events_per_s", 12.5)
        >>> made.as_json()
        {'machine': {'cores': 2}, 'apply': {'events_per_s': 12.5}}
        """
        nested: dict[str, Any] = {"machine": dict(self.machine)}
        for key, figure in self.figures.items():
            *path, last = key.split(".")
            place = nested
            for part in path:
                place = place.setdefault(part, {})
            place[last] = figure
        return nested

    def write(self, path: Path) -> None:
        """Write the JSON; what another run left under other keys is gone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")

    def print(self, console: Console) -> None:
        """Print the table, with the machine in its heading."""
        machine = self.machine
        durable = "durable" if machine["postgres_is_durable"] else "NOT durable (fsync off)"
        table = Table(
            title=f"{machine['cores']} cores, load {machine['load_average_1m']} at the start,"
            f" Python {machine['python']}, PostgreSQL {machine['postgres']}, {durable}"
        )
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("note")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
