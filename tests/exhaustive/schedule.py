"""
A schedule as data: steps of a kind and three small numbers each, so that it can be cut down.

Whatever the numbers are, every sequence of steps is a schedule: a number stands for one of what is
there at that moment.
"""

from __future__ import annotations

import enum
import random
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What happens in a step."""

    WRITE = 0  #: document a gets contents b; c & 1: by a dual write as well
    DELETE = 1  #: document a is deleted
    PUBLISH = 2  #: event a of those unpublished; b & 1: twice; c & 1: commits late
    REPEAT = 3  #: event a of those published, once more
    COMMIT = 4  #: publication a of those in flight
    WORK = 5  #: a + 1 deliveries to a writer; b: where it dies
    RACE = 6  #: a + 1 deliveries to one writer, b + 1 to another meanwhile; c: how the first ends
    OBSERVE = 7  #: document a is read; b: by whom
    REPAIR = 8  #: document a is read, and to be written anew
    DAMAGE = 9  #: document a's row is damaged; b: how
    PURGE = 10  #: old rows of entity a go, or of all; b & 1: it dies; c & 1: 20 minutes later
    TICK = 11  #: a + 1 minutes pass
    RESUBMIT = 12  #: every dead letter is sent again
    REFUSE = 13  #: the database refuses document a until it is cured; b & 1: cures all
    OUTAGE = 14  #: the database does not answer the next a + 1 calls
    MARK = 15  #: the low-water mark is moved
    SKEW = 16  #: the database's clock is a minutes behind Firestore's, at most 5


class Step(NamedTuple):
    """One step."""

    kind: Kind
    a: int = 0
    b: int = 0
    c: int = 0

    def __str__(self) -> str:
        """Give it as Python that makes it again."""
        return f"Step(Kind.{self.kind.name}, {self.a}, {self.b}, {self.c})"


Schedule = tuple[Step, ...]

_OF_DOCUMENTS = frozenset(
    {Kind.WRITE, Kind.DELETE, Kind.OBSERVE, Kind.REPAIR, Kind.DAMAGE, Kind.REFUSE}
)

#: How often each kind occurs, of 128.
_WEIGHTS = {
    Kind.WRITE: 24,
    Kind.DELETE: 9,
    Kind.PUBLISH: 24,
    Kind.REPEAT: 8,
    Kind.COMMIT: 3,
    Kind.WORK: 23,
    Kind.RACE: 6,
    Kind.OBSERVE: 4,
    Kind.REPAIR: 3,
    Kind.DAMAGE: 1,
    Kind.PURGE: 5,
    Kind.TICK: 6,
    Kind.RESUBMIT: 3,
    Kind.REFUSE: 3,
    Kind.OUTAGE: 2,
    Kind.MARK: 3,
    Kind.SKEW: 1,
}
_KINDS = tuple(kind for kind, weight in _WEIGHTS.items() for _ in range(weight))
#: Numbers are drawn below this; each step takes them as it needs.
NUMBER_LIMIT = 32


def random_schedule(seed: int, number: int) -> Schedule:
    """Give schedule `number` of a seed: the same on every machine and in every process."""
    # One draw a step: 7 bits for its kind, 5 for each number.
    draw = random.Random((seed << 40) + number).getrandbits
    kinds = _KINDS
    # A quarter of the schedules each is about one document, a conversation with one message or
    # with two and a follow edge, and all: the fewer they are, the more often their events meet.
    shape = draw(2)
    first = draw(3) if shape == 0 else 0
    mask = (0, 1, 3, 31)[shape]
    steps = [] if draw(2) else [Step(Kind.SKEW, draw(3))]
    for _ in range(4 + draw(5)):
        bits = draw(22)
        kind = kinds[bits & 127]
        a = bits >> 7 & 31
        if kind in _OF_DOCUMENTS:
            a = first + (a & mask)
        steps.append(Step(kind, a, bits >> 12 & 31, bits >> 17))
    return tuple(steps)
