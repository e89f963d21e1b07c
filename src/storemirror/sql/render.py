"""
Renders a dialect's templates from the declarations.

What goes into a template are names that `storemirror.model.load` has checked, spelled and quoted
by the dialect; values never do: they are bound when a procedure is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from storemirror.model.entity import Entity, Model
from storemirror.sql.catalogue import WantedEntity, rollup_entry

_ENCODER: Final = msgspec.json.Encoder(order="sorted")

#: Version of tables and procedures together; counted up with a release that changes what is
#: installed.  What a checkout before the first release has installed lacks tables of today's, and
#: `schema status` names them.
SCHEMA_VERSION: Final = 1
#: Versions a writer works on: its own and the one before.
SUPPORTED_VERSIONS: Final = (SCHEMA_VERSION, SCHEMA_VERSION - 1)


def template_environment(dialect: str, filters: Mapping[str, Callable[..., object]]) -> Environment:
    """
    Give the environment in which the templates of a dialect are rendered.

    Args:
        dialect: folder below `storemirror/sql`.
        filters: how this dialect spells, quotes and types.
    """
    environment = Environment(
        loader=PackageLoader("storemirror.sql", f"{dialect}/templates"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - SQL, not HTML; names are checked by model.load
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment


def rollup_digest(entity: Entity) -> str:
    """Give SHA-256, hex, of how an entity is rolled up; empty without a roll-up."""
    rollup = entity.rollup
    if rollup is None:
        return ""
    in_order = replace(rollup, latest=tuple(sorted(rollup.latest, key=lambda c: c.target)))
    return hashlib.sha256(_ENCODER.encode([entity.name, in_order])).hexdigest()


def registered_declarations(model: Model) -> list[Mapping[str, str]]:
    """Give entity and digest of all that a deployment registers: declarations, and roll-ups."""
    declared = [(e.name, e.digest) for e in model]
    # Those without a roll-up too: one that comes back after it was gone must be recomputed.
    declared += [(rollup_entry(e.name), rollup_digest(e)) for e in model]
    return [{"entity": name, "digest": digest} for name, digest in declared]


def wanted_entities(model: Model) -> tuple[WantedEntity, ...]:
    """Give the declarations as they are to be registered."""
    return tuple(
        WantedEntity(
            name=e.name,
            check=e.check,
            digest=e.digest,
            rollup_into="" if e.rollup is None else e.rollup.into,
            rollup_digest=rollup_digest(e),
        )
        for e in model
    )
