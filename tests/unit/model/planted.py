"""A mistake planted in the declarations of a shop, and what must be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storemirror.errors import Mistake
from tests.unit.model.declarations import SHOP, line_of, mistakes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """One replacement in `SHOP`, and what must be said of it."""

    old: str
    new: str
    where: str
    what: str
    cure: str
    #: Part of the line that must be named; by default the replacement's first line.
    line: str = ""

    @property
    def text(self) -> str:
        """Give the declarations with the mistake in them."""
        assert self.old in SHOP
        return SHOP.replace(self.old, self.new, 1)

    @property
    def line_number(self) -> int:
        """Give the line that must be named."""
        return line_of(self.text, self.line or self.new.splitlines()[0])

    def only_mistake(self, folder: Path) -> Mistake:
        """Load the declarations, and give the one mistake that is reported."""
        (mistake,) = mistakes_of(folder, self.text)
        return mistake

    def mistake(self, folder: Path) -> Mistake:
        """Load the declarations, and give what is reported at the place of the mistake."""
        (mistake,) = [m for m in mistakes_of(folder, self.text) if m.where == self.where]
        return mistake
