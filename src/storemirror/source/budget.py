"""
How many documents may be read, and how many were: reading Firestore is paid for by the document.

Pure: no I/O.
"""

from __future__ import annotations


class ReadBudgetSpent(Exception):
    """Another read would be one too many; it was not made."""


class ReadBudget:
    """
    Counts document reads and refuses those above a limit.

    Shared by scans that run at the same time in one event loop.  Reads are set aside before a
    query is sent and given back if it needed fewer, so that the limit holds at every moment.

    >>> budget = ReadBudget(10)
    >>> budget.reserve(8), budget.reserve(8)
    (8, 2)
    >>> budget.settle(8, spent_count=5)
    >>> budget.spent_count, budget.remaining
    (5, 3)
    """

    def __init__(self, max_count: int | None = None) -> None:
        """
        Begin with nothing spent.

        Args:
            max_count: most document reads; None: as many as are wanted.
        """
        #: Most document reads; None: as many as are wanted.
        self.max_count = max_count
        self._reserved_count = 0
        #: Document reads that were paid for.
        self.spent_count = 0

    @property
    def remaining(self) -> int | None:
        """Give how many reads may still be set aside; None: any number."""
        if self.max_count is None:
            return None
        return max(self.max_count - self.spent_count - self._reserved_count, 0)

    def reserve(self, wanted_count: int) -> int:
        """
        Set reads aside for one query.

        Args:
            wanted_count: the most that the query may cost, at least 1.

        Returns:
            How many it may cost: 1 to `wanted_count`.  To be given to `settle` afterwards.

        Raises:
            ReadBudgetSpent: there is none left.
        """
        remaining = self.remaining
        if remaining == 0:
            raise ReadBudgetSpent(f"all of {self.max_count} document reads are spent")
        granted = wanted_count if remaining is None else min(wanted_count, remaining)
        self._reserved_count += granted
        return granted

    def pay(self) -> None:
        """
        Pay for one read that is about to be made.

        Raises:
            ReadBudgetSpent: there is none left.
        """
        self.settle(self.reserve(1), spent_count=1)

    def settle(self, reserved_count: int, *, spent_count: int) -> None:
        """Say what a query did cost of the reads that were set aside for it."""
        self._reserved_count -= reserved_count
        self.spent_count += spent_count


class HalfBudget(ReadBudget):
    """
    Grants a query half at most of what another budget has left.

    So that what a page makes needful, such as reading some of it again, can still be paid for.

    >>> whole = ReadBudget(10)
    >>> half = HalfBudget(whole)
    >>> half.reserve(8), half.reserve(8), half.reserve(8), half.reserve(8), whole.remaining
    (5, 2, 1, 1, 1)
    """

    def __init__(self, whole: ReadBudget) -> None:
        """Spend of `whole`, which tells what was spent."""
        super().__init__(whole.max_count)
        self._whole = whole

    @property
    def remaining(self) -> int | None:
        """See `ReadBudget.remaining`."""
        return self._whole.remaining

    def reserve(self, wanted_count: int) -> int:
        """See `ReadBudget.reserve`.  The last read is granted too."""
        remaining = self.remaining
        if remaining is not None:
            wanted_count = min(wanted_count, max(remaining // 2, 1))
        return self._whole.reserve(wanted_count)

    def settle(self, reserved_count: int, *, spent_count: int) -> None:
        """See `ReadBudget.settle`."""
        self._whole.settle(reserved_count, spent_count=spent_count)
