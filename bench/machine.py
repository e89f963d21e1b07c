"""What the machine is, and how much processor time a run took of it."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storemirror.clock import Clock

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def machine_facts(*, postgres_version: str, is_durable: bool) -> Mapping[str, object]:
    """Give what figures are not to be read without."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgres": postgres_version,
        "postgres_is_durable": is_durable,
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """One moment: the time, and the processor seconds used so far."""

    at_s: float
    #: By this process.
    own_cpu_s: float
    #: By PostgreSQL: the server, its backends, and those that have ended.
    postgres_cpu_s: float

    def since(self, earlier: Usage) -> Usage:
        """Give what passed between two moments."""
        return Usage(
            self.at_s - earlier.at_s,
            self.own_cpu_s - earlier.own_cpu_s,
            self.postgres_cpu_s - earlier.postgres_cpu_s,
        )


def usage(clock: Clock, postgres_pid: int) -> Usage:
    """Read the clock and the processor time used."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(clock.monotonic_s(), own.ru_utime + own.ru_stime, family_cpu_s(postgres_pid))


def family_cpu_s(pid: int) -> float:
    """Give the processor seconds of a process, its ended children and its living ones."""
    own = _stat(pid)
    # User and system time, of the process itself and of the children it has waited for.
    ticks = sum(int(own[place]) for place in (11, 12, 13, 14))
    children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    for child in children:
        try:
            stat = _stat(int(child))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended in between; its parent's figure has it next time
        ticks += int(stat[11]) + int(stat[12])
    return ticks / _TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Give the resident memory of a process, MiB."""
    pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[str]:
    """Give the fields of /proc/PID/stat after the name, which may hold spaces."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
