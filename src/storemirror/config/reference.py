"""Every setting with its variable, default and meaning: for loading, messages and the reference."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDoc:
    """One setting, as the reference shows it."""

    #: Section and key in the settings file: "sql.dsn".
    name: str
    #: Environment variable that overrides it.
    variable: str
    #: As it would stand in the file; empty where there is none.
    default: str
    what: str
    #: Whether its value must not be shown, logged or written into a file that others read.
    is_secret: bool

    @property
    def cure(self) -> str:
        """Tell how to set it."""
        section, _, key = self.name.rpartition(".")
        under = f" under [{section}]" if section else ""
        return f"Set {self.variable}, or {key}{under} in storemirror.toml."


def setting_docs(shape: type[BaseModel], section: str = "") -> Iterator[SettingDoc]:
    """Walk all settings in order; tables of free keys, as [procedures] is, are left out."""
    for name, info in shape.model_fields.items():
        full_name = f"{section}.{name}" if section else name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from setting_docs(info.annotation, full_name)
        elif not isinstance(info.default, dict):
            yield SettingDoc(
                name=full_name,
                variable=_variable(full_name, info),
                default=_default(info.default),
                what=info.description or "",
                is_secret=_holds_secret(info.annotation),
            )


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_holds_secret, typing.get_args(annotation)))


def section_docs(shape: type[BaseModel]) -> Mapping[str, str]:
    """Give what each table of the settings file is for, [procedures] included."""
    return {
        name: _section_doc(info)
        for name, info in shape.model_fields.items()
        if _is_table(info) or isinstance(info.default, dict)
    }


def _is_table(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def _section_doc(info: FieldInfo) -> str:
    described = info.annotation.__doc__ if _is_table(info) else info.description
    return " ".join((described or "").split("\n\n")[0].split())


def _variable(name: str, info: FieldInfo) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "env" in extra:
        return str(extra["env"])
    return "STOREMIRROR_" + name.replace(".", "_").upper()


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return "[]" if value == () else str(value)
