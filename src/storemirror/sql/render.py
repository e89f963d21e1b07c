"""
Renders a dialect's templates from the declarations.

What goes into a template are names that `storemirror.model.load` has checked, spelled and quoted
by the dialect; values never do: they are bound when a procedure is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

#: Version of tables and procedures together; counted up when a template changes what is installed.
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
