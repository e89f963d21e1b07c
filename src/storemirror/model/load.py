"""
Read declarations: the built-in `social.toml` and the user's own files, same format.

Every mistake of every file is reported at once, with line and cure.  The format is described in
docs/reference/declarations.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from storemirror.config.shape import nearest_known
from storemirror.config.toml_lines import TomlLines, syntax_mistake
from storemirror.errors import DeclarationInvalid, Mistake
from storemirror.model.build import built_entities
from storemirror.model.crosscheck import check_together
from storemirror.model.declared import Declaration, read_declaration
from storemirror.model.entity import Model

#: How the built-in file is called in messages.
BUILTIN: Final = "built-in social.toml"


@dataclass(slots=True)
class _Read:
    """What was found in the files so far."""

    declarations: list[Declaration] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    are_complete: bool = True


def load_model(files: Sequence[Path] = (), *, with_builtin: bool = True) -> Model:
    """
    Read declarations and give the entities, roll-up parents before their children.

    Args:
        files: the user's files; an entity with `replace = true` takes the place of the built-in
            one of its name.
        with_builtin: whether the built-in entities are declared as well.

    Raises:
        DeclarationInvalid: something is wrong; carries every mistake of every file.
    """
    read = _Read()
    if with_builtin:
        text = resources.files("storemirror.model").joinpath("social.toml").read_text("utf-8")
        _read_text(read, text, file=BUILTIN, is_builtin=True)
    for path in files:
        _read_file(read, path)
    if not read.declarations and read.are_complete and not read.mistakes:
        cure = "Name a file in model.files, or set model.with_builtin = true."
        raise DeclarationInvalid([_file_mistake("model", 0, "no entity is declared", cure)])
    declarations = _replaced(read)
    read.mistakes += check_together(declarations, are_complete=read.are_complete)
    if read.mistakes:
        names = [BUILTIN, *dict.fromkeys(str(path) for path in files)]
        raise DeclarationInvalid(sorted(read.mistakes, key=lambda m: (names.index(m.file), m.line)))
    return Model(built_entities(declarations))


def _file_mistake(file: str, line: int, what: str, cure: str) -> Mistake:
    return Mistake(file=file, line=line, where="", what=what, cure=cure)


def _read_file(read: _Read, path: Path) -> None:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        what, cure = f"cannot be read: {error.strerror}", "Mend the path in model.files."
    except UnicodeDecodeError:
        what, cure = "is not UTF-8", "Save the file as UTF-8."
    else:
        _read_text(read, text, file=str(path), is_builtin=False)
        return
    read.mistakes.append(_file_mistake(str(path), 0, what, cure))
    read.are_complete = False


def _read_text(read: _Read, text: str, *, file: str, is_builtin: bool) -> None:
    content = _parsed(read, text, file)
    if content is None:
        return
    lines = TomlLines(text)
    for key in set(content) - {"entity"}:
        what, cure = f"unknown key {key!r}", nearest_known(key, ["entity"])
        read.mistakes.append(_file_mistake(file, lines.nearest((key,)), what, cure))
        read.are_complete = False
    if not content:
        cure = "Declare an [[entity]], or take the file out of model.files."
        read.mistakes.append(_file_mistake(file, 0, "declares nothing", cure))
    for index, table in enumerate(_entity_tables(read, content, lines, file)):
        declaration, mistakes = read_declaration(
            table, file=file, is_builtin=is_builtin, index=index, lines=lines
        )
        read.declarations.append(declaration)
        read.mistakes += mistakes


def _parsed(read: _Read, text: str, file: str) -> dict[str, Any] | None:
    """Give a file's content; None when it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, what = syntax_mistake(text, error)
    except RecursionError:
        line, what = 0, "nested too deeply"
    cure = "See https://toml.io/en/v1.0.0."
    read.mistakes.append(_file_mistake(file, line, f"is no TOML: {what}", cure))
    read.are_complete = False
    return None


def _entity_tables(
    read: _Read, content: dict[str, Any], lines: TomlLines, file: str
) -> list[dict[str, Any]]:
    tables = content.get("entity", [])
    if isinstance(tables, list) and all(isinstance(table, dict) for table in tables):
        return tables
    cure = "Write [[entity]], in two pairs of brackets."
    line = lines.nearest(("entity",))
    read.mistakes.append(_file_mistake(file, line, "entity must be a list of tables", cure))
    read.are_complete = False
    return []


def _replaced(read: _Read) -> list[Declaration]:
    """Put each entity with `replace = true` in the place of the built-in one of its name."""
    declarations = [d for d in read.declarations if not _replaces(d)]
    builtin = [d.entity.name for d in read.declarations if d.is_builtin]
    for declaration in read.declarations:
        name = declaration.entity.name
        if not _replaces(declaration):
            continue
        index = next(
            (i for i, d in enumerate(declarations) if d.is_builtin and d.entity.name == name), None
        )
        if index is not None:
            declarations[index] = declaration
            continue
        declarations.append(declaration)
        if name not in builtin:
            what = f"there is no built-in entity {name!r} to replace"
            cure = f"{nearest_known(name, builtin)} Or take replace out."
            read.mistakes.append(declaration.mistake(("replace",), what, cure))
    return declarations


def _replaces(declaration: Declaration) -> bool:
    """Tell whether an entity is to replace a built-in one; in doubt it is."""
    if "name" in declaration.broken:
        return False
    return declaration.entity.replace or "replace" in declaration.broken
