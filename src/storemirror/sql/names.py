"""
How tables, columns and procedures are called in each dialect, and the settings that rename them.

Declared names are `DmMessage` and `sentAt`.  PostgreSQL has `dm_message` and `sent_at`, SQL Server
`DmMessage` and `SentAt`.  A procedure is known by its setting, the same in both dialects:
`SQL_PROC_UPSERT_DM_MESSAGE`.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from storemirror.errors import ConfigError
from storemirror.model.entity import Entity, Model

SETTING_PREFIX: Final = "SQL_PROC_"
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """Spell a declared name with underscores.

    >>> [snake_case(n) for n in ("DmMessage", "sentAt", "userID", "lastEventURLId")]
    ['dm_message', 'sent_at', 'user_id', 'last_event_url_id']
    """
    return _WORD_START.sub("_", name).lower()


def pascal_case(name: str) -> str:
    """Spell a declared name with a capital first letter.

    >>> pascal_case("sentAt")
    'SentAt'
    """
    return name[:1].upper() + name[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """One procedure that a client of the schema may call."""

    #: Setting that renames it: "SQL_PROC_UPSERT_DM_MESSAGE".
    setting: str
    #: What it does: "upsert", "delete", "purge", "recompute", "ensure", "lock", "read", "find".
    verb: str
    #: "DmMessage"; None when it is not about one entity.
    entity: str | None
    #: Declared-style name: "UpsertDmMessage".
    name: str
    #: One sentence for the reference.
    what: str


def procedures_of(model: Model) -> tuple[Procedure, ...]:
    """List the procedures of a model, in the order of the reference."""
    return (*_entity_procedures(model), *_shared_procedures(model))


def _entity_procedures(model: Model) -> Iterator[Procedure]:
    for entity in model:
        yield _procedure("upsert", f"Upsert{entity.name}", entity, "Writes documents.")
        yield _procedure("delete", f"Delete{entity.name}", entity, "Leaves tombstones.")
        yield _procedure(
            "purge",
            f"Purge{entity.name}",
            entity,
            "Removes old tombstones, after it has raised the purge horizon.",
        )
        if entity.rollup is not None:
            yield _procedure(
                "recompute",
                f"Recompute{entity.name}Rollup",
                entity,
                f"Sets the aggregates in {entity.rollup.into} from the rows.",
            )
            yield _procedure(
                "find",
                f"Find{entity.name}RollupDifferences",
                entity,
                f"Lists aggregates in {entity.rollup.into} that are not what the rows say.",
            )


def _shared_procedures(model: Model) -> Iterator[Procedure]:
    yield _procedure("ensure", "EnsureParents", None, "Makes stubs of missing roll-up parents.")
    yield _procedure(
        "lock", "LockRows", None, "Locks every row that a transaction will touch, in key order."
    )
    if has_relationship(model):
        yield _procedure(
            "read", "GetFollowRelationship", None, "Tells how two users stand to each other."
        )


def has_relationship(model: Model) -> bool:
    """Tell whether the model has the follow graph and the blocks, as the reader needs them."""
    names = {e.name: len(e.keys) for e in model}
    return names.get("FollowEdge") == 2 and names.get("UserBlock") == 2


def _procedure(verb: str, name: str, entity: Entity | None, what: str) -> Procedure:
    return Procedure(
        setting=SETTING_PREFIX + snake_case(name).upper(),
        verb=verb,
        entity=None if entity is None else entity.name,
        name=name,
        what=what,
    )


def resolved_names(
    model: Model, overrides: Mapping[str, str], spell: Callable[[str], str]
) -> Mapping[str, str]:
    """
    Give the name by which each procedure is made and called.

    Args:
        model: says which procedures there are.
        overrides: setting -> name, as configured.
        spell: how the dialect spells a declared-style name.

    Returns:
        Declared-style name ("UpsertDmMessage") -> name in the database.

    Raises:
        ConfigError: a setting names no procedure of the model, or two procedures share a name.
    """
    procedures = procedures_of(model)
    known = {p.setting for p in procedures}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)}: no such procedure; known are {', '.join(sorted(known))}"
        )
    names = {p.name: overrides.get(p.setting, spell(p.name)) for p in procedures}
    if len(set(names.values())) != len(names):
        raise ConfigError("two SQL_PROC_ settings give the same name to two procedures")
    return names
