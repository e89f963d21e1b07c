"""
How much one page may hold, so that nobody's messages stop a process.

A page's conversion holds up every other call, and a document has a mebibyte: a hundred of them cost
seconds.  So a page ends before its limit where its items weigh too much, as if fewer had been asked
for.  What an item weighs is told by what is answered of it, and so is the same whichever source it
came from.  Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from storemirror.gateway.port import MessageItem

#: Characters of a page's items; a page of one item may have more.
PAGE_MAX_WEIGHT: Final = 1_000_000
#: Of what each item has beside its body and attachments.
ITEM_WEIGHT: Final = 200
#: Converting a value within attachments costs about as much as so many characters.
VALUE_WEIGHT: Final = 50
#: Most items that are fetched before any was weighed: an ordinary page is fetched at once.
FIRST_COUNT: Final = 30
#: However light they were, most that are fetched next for each.
GROWTH: Final = 3

_ENCODER: Final = msgspec.json.Encoder()


def weight_of(item: MessageItem) -> int:
    """
    Give what an item weighs: its body's code points, its attachments' JSON, and its values.

    Values are counted by the commas and colons between them; those in a text count as well.

    >>> light = MessageItem(message_id="m", version=2, sender_id="s", body="b", sent_us=3,
    ...                     edited_us=None, attachments=None)
    >>> weight_of(light), weight_of(msgspec.structs.replace(light, attachments=[1, 2]))
    (201, 256)
    """
    weight = ITEM_WEIGHT + (0 if item.body is None else len(item.body))
    if item.attachments is not None:
        text = _ENCODER.encode(item.attachments)
        weight += len(text) + VALUE_WEIGHT * (text.count(b",") + text.count(b":"))
    return weight


class PageBudget:
    """Tells which items a page has room for, in the order in which they lie from its place on."""

    def __init__(self, limit: int) -> None:
        """Begin an empty page of at most `limit` items."""
        self._limit = limit
        self._weight = 0
        #: Items on the page.
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Tell whether the page has as many items as it may have."""
        return self.count >= self._limit

    @property
    def next_count(self) -> int:
        """Give how many items to fetch next: of the weight of those before, no more than fit."""
        if self.count == 0:
            return min(FIRST_COUNT, self._limit)
        fitting_count = (PAGE_MAX_WEIGHT - self._weight) * self.count // max(self._weight, 1) + 1
        return max(1, min(self._limit - self.count, self.count * GROWTH, fitting_count))

    def takes(self, item: MessageItem) -> bool:
        """Put the next item on the page; False: there is no room, and the page ends before it."""
        weight = self._weight + weight_of(item)
        if self.is_full or (self.count > 0 and weight > PAGE_MAX_WEIGHT):
            return False
        self._weight = weight
        self.count += 1
        return True
