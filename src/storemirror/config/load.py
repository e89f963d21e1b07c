"""
Read the settings file and lay the environment over it.

Every problem is reported at once, with the setting, where it came from, and what to do.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from storemirror.config.reference import SettingDoc, setting_docs
from storemirror.config.settings import Settings
from storemirror.config.shape import Misfit, misfits
from storemirror.config.toml_lines import Place, TomlLines, syntax_mistake
from storemirror.config.values import PROCEDURE_PREFIX
from storemirror.errors import ConfigError

DEFAULT_FILE: Final = Path("storemirror.toml")
FILE_VARIABLE: Final = "STOREMIRROR_CONFIG"
#: How like a known variable an unknown one must be to be taken for a slip of the pen.
_LIKENESS: Final = 0.9


def load_settings(config_file: Path | None, environ: Mapping[str, str]) -> Settings:
    """
    Give the settings of the file, overridden by the environment.

    Args:
        config_file: the file; None for the one that STOREMIRROR_CONFIG names, else
            ./storemirror.toml if it is there.
        environ: environment variables; one that is empty counts as not set.

    Raises:
        ConfigError: the file cannot be read, or settings are wrong; the message lists all.
    """
    variables = {name: value for name, value in environ.items() if value.strip()}
    path = _file_of(config_file, variables)
    values, lines = ({}, TomlLines("")) if path is None else _file_content(path)
    sources = _Sources(path, lines)
    problems = [*sources.merged_procedures(values), *_slips(variables)]
    sources.lay_over(values, variables)
    found, settings = _validated(values)
    problems += [sources.problem(misfit) for misfit in found]
    if problems or settings is None:
        plural = "setting is" if len(problems) == 1 else "settings are"
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} {plural} wrong; nothing was started{listed}")
    return settings


def settings_reference() -> list[SettingDoc]:
    """List every setting, for docs/reference/settings.md."""
    return list(setting_docs(Settings))


def _validated(values: Mapping[str, Any]) -> tuple[list[Misfit], Settings | None]:
    # Raised outside of the except clause: pydantic's own error holds passwords.
    try:
        return [], Settings.model_validate(values)
    except ValidationError as error:
        return misfits(Settings, error), None


def _file_of(config_file: Path | None, variables: Mapping[str, str]) -> Path | None:
    if config_file is not None:
        return config_file
    if FILE_VARIABLE in variables:
        return Path(variables[FILE_VARIABLE])
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _file_content(path: Path) -> tuple[dict[str, Any], TomlLines]:
    try:
        text = path.read_bytes().decode()
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8") from error
    except RecursionError:
        raise ConfigError(f"{path}: is no TOML: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        line, what = syntax_mistake(text, error)
        raise ConfigError(f"{path} line {line}: is no TOML: {what}") from error
    _anchor(values, path.parent)
    return values, TomlLines(text)


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Take the paths in a file as relative to its folder."""
    for section, key in (
        ("model", "files"),
        ("postgres", "bin_dir"),
        ("gateway", "template_file"),
    ):
        table = values.get(section)
        written = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(written, str):
            table[key] = str(folder / written)
        elif isinstance(table, dict) and isinstance(written, list):
            table[key] = [str(folder / p) if isinstance(p, str) else p for p in written]


def _slips(variables: Mapping[str, str]) -> Iterator[str]:
    """Report variables of ours that are almost, but not quite, spelled like a setting's."""
    known = [FILE_VARIABLE, *(doc.variable for doc in setting_docs(Settings))]
    for name in sorted(set(variables) - set(known)):
        if not name.startswith("STOREMIRROR_") or name.startswith("STOREMIRROR_TEST_"):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=_LIKENESS)
        if close:
            yield f"{name} (environment): no setting has this variable. Did you mean {close[0]}?"


class _Sources:
    """Where each value came from, while the file and the environment are laid over each other."""

    def __init__(self, path: Path | None, lines: TomlLines) -> None:
        self._path = path
        self._lines = lines
        self._variables: dict[Place, str] = {}
        #: Name with prefix -> key as it stands in the file.
        self._procedure_keys: dict[str, str] = {}

    def merged_procedures(self, values: dict[str, Any]) -> Iterator[str]:
        """Give each key of [procedures] its prefix; report one that stands there both ways."""
        table = values.get("procedures")
        if not isinstance(table, dict):
            return
        merged: dict[str, Any] = {}
        for key, name in table.items():
            full = PROCEDURE_PREFIX + key.removeprefix(PROCEDURE_PREFIX)
            if full in merged:
                line = self._lines.nearest(("procedures", key))
                yield (
                    f"procedures.{key} ({self._path} line {line}): stands twice, with and "
                    f"without {PROCEDURE_PREFIX}. Take one out."
                )
            merged[full] = name
            self._procedure_keys[full] = key
        values["procedures"] = merged

    def lay_over(self, values: dict[str, Any], variables: Mapping[str, str]) -> None:
        """Put the environment's values over the file's."""
        for doc in setting_docs(Settings):
            if doc.variable in variables:
                self._put(values, tuple(doc.name.split(".")), doc.variable, variables)
        for name in variables:
            if name.startswith(PROCEDURE_PREFIX):
                self._put(values, ("procedures", name), name, variables)

    def _put(
        self,
        values: dict[str, Any],
        place: tuple[str, ...],
        variable: str,
        variables: Mapping[str, str],
    ) -> None:
        table = values
        for part in place[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                # The file has something else in the section's place, which is reported.
                return
        table[place[-1]] = variables[variable]
        self._variables[place] = variable

    def problem(self, misfit: Misfit) -> str:
        """Give one line: the setting, where its value came from, what is wrong, what to do."""
        place = misfit.place
        for length in range(len(place), 0, -1):
            variable = self._variables.get(place[:length])
            if variable is not None:
                return f"{variable} (environment): {misfit.what}. {misfit.cure}"
        if place[:1] == ("procedures",) and len(place) > 1:
            place = ("procedures", self._procedure_keys.get(str(place[1]), str(place[1])))
        name = ".".join(str(part) for part in place)
        return (
            f"{name} ({self._path} line {self._lines.nearest(place)}): {misfit.what}. {misfit.cure}"
        )
