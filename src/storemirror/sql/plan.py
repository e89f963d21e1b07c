"""What `storemirror schema apply` would do, or has done, and the words for it.  Pure values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from storemirror.sql.shape import Refusal


class Step(enum.StrEnum):
    """What is done to one thing."""

    ADD = "add"
    ADOPT = "adopt"  #: a table with rows of its own becomes the mirror's
    ALTER = "alter"  #: only on an explicit word
    REPLACE = "replace"
    REGISTER = "register"  #: a declaration gets a mapping revision
    RECOMPUTE = "recompute"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """One thing that is done."""

    step: Step
    #: What kind of thing: "table", "column", "index", "constraint", "procedure", "declaration",
    #: "roll-up", "schema".
    kind: str
    #: "dm_message.body"
    name: str
    #: What more there is to say: a type, columns.
    detail: str = ""

    def __str__(self) -> str:
        """Give it as one line; the same before and after it is done."""
        return " ".join(filter(None, (self.step.value, self.kind, self.name, self.detail)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededBackfill:
    """Rows that only their documents can bring to the new declaration."""

    entity: str
    #: Name in `--check=`.
    check: str
    mapping_revision: int
    #: Declared names of columns and child tables that it fills; empty: values that are there are
    #: mapped anew.
    fills: tuple[str, ...]
    #: Whether rows of the table are of no known version: then documents may be gone, too.
    is_adoption: bool

    def __str__(self) -> str:
        """Give it as one sentence."""
        if self.is_adoption:
            return (
                f"{self.entity}: backfill --check={self.check} brings its rows to their documents' "
                f"versions, reconcile --check={self.check} deletes those whose document is gone"
            )
        fills = f"fills {', '.join(self.fills)}" if self.fills else "maps its rows anew"
        return f"{self.entity}: backfill --check={self.check} {fills}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaPlan:
    """What would be done, or why nothing would."""

    changes: tuple[PlannedChange, ...]
    #: While there is one, nothing is changed.
    refusals: tuple[Refusal, ...]
    #: Column alterations that are among the changes.
    alterations: tuple[Refusal, ...]
    backfills: tuple[NeededBackfill, ...]
    #: Columns that no declaration has, as "table.column"; they stay as they are.
    kept: tuple[str, ...]
    #: What a person should know of it, a sentence each.
    notes: tuple[str, ...]

    @property
    def is_refused(self) -> bool:
        """Tell whether nothing would be done, since something stands in the way."""
        return bool(self.refusals)

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to do."""
        return not self.changes and not self.refusals

    def to_json(self) -> dict[str, object]:
        """Give it as plain JSON values."""
        return {
            "is_empty": self.is_empty,
            "is_refused": self.is_refused,
            "changes": [
                {"step": c.step.value, "kind": c.kind, "name": c.name, "detail": c.detail}
                for c in self.changes
            ],
            "refusals": [
                {"what": r.what, "cure": r.cure, "can_alter": r.alteration is not None}
                for r in self.refusals
            ],
            "backfills": [
                {
                    "entity": b.entity,
                    "check": b.check,
                    "mapping_revision": b.mapping_revision,
                    "fills": list(b.fills),
                    "is_adoption": b.is_adoption,
                }
                for b in self.backfills
            ],
            "kept": list(self.kept),
            "notes": list(self.notes),
        }
