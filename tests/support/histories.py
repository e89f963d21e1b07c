"""Histories of one document, the orders in which they can arrive, and the ways to batch them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

#: Longest history whose every order is tried.
LONGEST = 4
#: W writes, D deletes; a document is deleted only while it is there.
HISTORIES = [
    "".join(history)
    for length in range(1, LONGEST + 1)
    for history in itertools.product("WD", repeat=length)
    if history[0] == "W" and "DD" not in "".join(history)
]


def arrivals(count: int) -> Iterator[tuple[int, ...]]:
    """Every order of `count` changes, with none or any one of them repeated, each once."""
    yield from itertools.permutations(range(count))
    for repeated in range(count):
        yield from sorted(set(itertools.permutations([*range(count), repeated])))


def doubled_arrivals(count: int) -> Iterator[tuple[int, ...]]:
    """
    Every order of `count` changes, each of them arriving twice, each order once.

    >>> list(doubled_arrivals(1)), len(list(doubled_arrivals(2))), len(list(doubled_arrivals(3)))
    ([(0, 0)], 6, 90)
    """

    def rest(left: list[int]) -> Iterator[tuple[int, ...]]:
        if not any(left):
            yield ()
        for change in range(count):
            if left[change]:
                left[change] -= 1
                for order in rest(left):
                    yield (change, *order)
                left[change] += 1

    return rest([2] * count)


def splits(order: Sequence[int]) -> Iterator[list[list[int]]]:
    """Every way to cut an order into batches."""
    for cuts in itertools.product((False, True), repeat=len(order) - 1):
        batches = [[order[0]]]
        for index, is_cut in zip(order[1:], cuts, strict=True):
            if is_cut:
                batches.append([index])
            else:
                batches[-1].append(index)
        yield batches
