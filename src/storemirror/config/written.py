"""
A settings file as text, commented from the settings' own descriptions.

Every setting has its line: those that were chosen are in force, the others are commented out and
show the default.  Pure.
"""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pydantic import ValidationError

from storemirror.config.reference import SettingDoc, section_docs, setting_docs
from storemirror.config.settings import Settings
from storemirror.config.shape import misfits

_WIDTH: Final = 98
_HEAD: Final = """\
# Settings of StoreMirror, each with its meaning and the environment variable that overrides it.
# A line that is commented out shows the default, or an empty text where there is none.
# Secrets, such as a DSN with a password, are better in the environment.
"""


def settings_text(chosen: Mapping[str, str | bool], *, kept_out: Iterable[str] = ()) -> str:
    """
    Write a settings file.

    Args:
        chosen: setting, as in "sql.dsn", -> value.
        kept_out: settings whose value is a secret that stays in the environment: their line says
            so, and is commented out.

    Returns:
        TOML.  That it gives what was chosen is for the caller to see, by loading it.

    Raises:
        ValueError: a name is no setting's.
    """
    docs = {doc.name: doc for doc in setting_docs(Settings)}
    unknown = sorted({*chosen, *kept_out} - docs.keys())
    if unknown:
        raise ValueError(f"no settings: {', '.join(unknown)}")
    sections = section_docs(Settings)
    # In TOML what stands under no table must come first.
    by_section: dict[str, list[SettingDoc]] = {"": []}
    for doc in docs.values():
        by_section.setdefault(doc.name.rpartition(".")[0], []).append(doc)
    lines = [_HEAD.rstrip("\n")]
    for section, inside in by_section.items():
        if section:
            lines += ["", *_comment(sections[section]), f"[{section}]"]
        for doc in inside:
            lines += ["", *_comment(f"{doc.what}; variable {doc.variable}")]
            lines += _lines_of(doc, chosen, kept_out)
    for name, what in sections.items():
        if name not in by_section:
            lines += ["", *_comment(what), f"# [{name}]"]
    return "\n".join(lines) + "\n"


def problem_of(name: str, value: str | bool) -> str | None:
    """
    Say what is wrong with a value for one setting; None when it fits.

    >>> problem_of("sql.schema_name", "a-b")
    'is no SQL identifier. Use letters, digits and underscores, not a digit first, at most 63.'
    """
    section, _, key = name.rpartition(".")
    table = {section: {key: value}} if section else {key: value}
    try:
        Settings.model_validate(table)
    except ValidationError as error:
        misfit = misfits(Settings, error)[0]
    else:
        return None
    return f"{misfit.what}. {misfit.cure}"


def values_of(text: str) -> Mapping[str, object]:
    r"""
    Give what a settings file sets, by the settings' names: for comparing with what was chosen.

    >>> values_of('a = true\n[bus]\ntopic = "t"')
    {'a': True, 'bus.topic': 't'}
    """
    return dict(_flattened(tomllib.loads(text), ""))


def _flattened(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _lines_of(
    doc: SettingDoc, chosen: Mapping[str, str | bool], kept_out: Iterable[str]
) -> Iterator[str]:
    key = doc.name.rpartition(".")[2]
    if doc.name in kept_out:
        yield f"# It has a password: set {doc.variable} in the environment."
    elif doc.name in chosen:
        # JSON's text and truth values are TOML's, but for DEL, which no value that fits has.
        yield f"{key} = {json.dumps(chosen[doc.name], ensure_ascii=False)}"
        return
    shown = doc.default or '""'
    yield f"# {key} = {shown}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
