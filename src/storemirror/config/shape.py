"""
What is wrong with the shape of a TOML table, in words for the person who wrote it.

Pydantic finds all mistakes at once; here each becomes what is wrong and what to do.  The value
itself is never repeated: it may be a password.  Pure.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from storemirror.config.toml_lines import Place

#: What pydantic puts after a key that is wrong itself.
_KEY: Final = "[key]"
#: Pydantic's kind of error -> what was expected.
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "path_type": "a path",
}
_NOUNS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


class Table(BaseModel):
    """A table of known keys.  Each field's description tells what to write there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One thing that is wrong, and its place."""

    place: Place
    what: str
    cure: str


def refusal(what: str, cure: str) -> PydanticCustomError:
    """Make the error that a validator raises to say what is wrong and what to do."""
    # Braces would be taken for placeholders: the texts travel as context instead.
    return PydanticCustomError("refusal", "{what}. {cure}", {"what": what, "cure": cure})


def nearest_known(name: str, known: Iterable[str]) -> str:
    """
    Give the cure for an unknown name: the one that was probably meant, else all.

    >>> nearest_known("requird", ["required", "type"])
    "Did you mean 'required'?"
    >>> nearest_known("x", ["b", "a"])
    'Known are a, b.'
    """
    names = sorted(known)
    by_lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    if close:
        return f"Did you mean {by_lower[close[0]]!r}?"
    return f"Known are {', '.join(names)}." if names else "There are none."


def misfits(shape: type[BaseModel], error: ValidationError) -> list[Misfit]:
    """Give every mistake that pydantic has found in a table of this shape."""
    return [_misfit(shape, details) for details in error.errors(include_url=False)]


def _misfit(shape: type[BaseModel], details: ErrorDetails) -> Misfit:
    place, kind = details["loc"], details["type"]
    if place[-1] == _KEY and kind != "extra_forbidden":
        place = place[:-1]
    context = details.get("ctx", {})
    if kind == "refusal":
        return Misfit(place=place, what=context["what"], cure=context["cure"])
    if kind == "extra_forbidden":
        cure = nearest_known(str(place[-1]), _known_keys(shape, place[:-1]))
        return Misfit(place=place, what=f"unknown key {str(place[-1])!r}", cure=cure)
    meant = _description(shape, place)
    if kind == "missing":
        return Misfit(place=place, what="is missing", cure=f"Add it: {meant}.")
    what = details["msg"].removeprefix("Input ")
    if kind in _EXPECTED:
        what = f"must be {_EXPECTED[kind]}"
        if kind.endswith("_type"):
            what += f", not {_NOUNS.get(type(details['input']), 'something else')}"
    return Misfit(place=place, what=what, cure=f"Wanted: {meant}.")


def _known_keys(shape: type[BaseModel], place: Place) -> list[str]:
    table = _walked(shape, place)
    if not _is_table(table):
        return []
    return [info.alias or name for name, info in table.model_fields.items()]


def _description(shape: type[BaseModel], place: Place) -> str:
    """Give the description of the innermost field on the way to this place."""
    described = "a value that fits"
    here: Any = shape
    for part in place:
        if _is_table(here):
            for name, info in here.model_fields.items():
                if part in (name, info.alias):
                    described = info.description or described
        here = _step(here, part)
    return described


def _walked(shape: type[BaseModel], place: Place) -> Any:
    here: Any = shape
    for part in place:
        here = _step(here, part)
    return here


def _step(here: Any, part: str | int) -> Any:
    """Give the type of what stands under this key or index; None where there is none."""
    if _is_table(here):
        for name, info in here.model_fields.items():
            if part in (name, info.alias):
                return _bare(info.annotation)
        return None
    arguments = typing.get_args(here)
    return _bare(arguments[0 if isinstance(part, int) else -1]) if arguments else None


def _bare(annotation: Any) -> Any:
    """Take `None` out of a union, and the extras off an annotated type."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = [a for a in typing.get_args(annotation) if a is not types.NoneType]
        return _bare(kinds[0])
    return annotation


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
