"""The settings file that `storemirror init` writes is one that the loader reads as it was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storemirror.config import Settings, load_settings, settings_reference
from storemirror.config.written import problem_of, settings_text, values_of


def loaded(text: str, folder: Path) -> Settings:
    """Load a text as a settings file, without an environment."""
    file = folder / "storemirror.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, {})


def test_a_file_without_choices_gives_the_defaults(tmp_path: Path) -> None:
    """Everything in it is commented out."""
    assert loaded(settings_text({}), tmp_path) == Settings()


def test_what_was_chosen_is_what_the_loader_gives(tmp_path: Path) -> None:
    """In every kind of place: under no table, in a table, with characters that TOML escapes."""
    chosen: dict[str, str | bool] = {
        "is_mirror_on": True,
        "firestore.project": 'a "quoted" \\ ünïcode\tproject',
        "documents.kind": "firestore",
        "sql.dsn": "postgresql://db/mirror?sslmode=require#[x]",
    }
    text = settings_text(chosen)
    assert values_of(text) == chosen
    settings = loaded(text, tmp_path)
    assert settings.is_mirror_on
    assert settings.documents.kind == "firestore"
    for name in ("firestore.project", "sql.dsn"):
        assert settings.text_of(name) == chosen[name]


def test_what_is_commented_out_shows_the_default(tmp_path: Path) -> None:
    """Whoever takes the comment sign away changes nothing yet, and has made no mistake."""
    shown = re.sub(r"^# (\w+ = )(?!\"\"$)", r"\1", settings_text({}), flags=re.MULTILINE)
    assert len(values_of(shown)) > 10
    assert loaded(shown, tmp_path) == Settings()


def test_every_setting_has_its_line_with_meaning_and_variable() -> None:
    """The comments come from the settings' own descriptions, so that they cannot lag behind."""
    text = re.sub(r"\n# ", " ", settings_text({}))
    for doc in settings_reference():
        assert f"{doc.what}; variable {doc.variable}" in text, doc.name
        assert re.search(rf"\b{doc.name.rpartition('.')[2]} = ", text), doc.name
    assert "[procedures]" in text


def test_a_secret_is_not_written() -> None:
    """A settings file ends up in a repository sooner or later."""
    text = settings_text({}, kept_out=["sql.dsn"])
    section = text.partition("[sql]")[2].partition("[bus]")[0]
    assert "set STOREMIRROR_SQL_DSN in the environment" in section
    assert '\n# dsn = ""' in section


def test_a_name_that_is_no_settings_is_refused() -> None:
    """A choice that is written nowhere would be lost unseen."""
    with pytest.raises(ValueError, match=r"sql\.dns"):
        settings_text({"sql.dns": "x"})
    with pytest.raises(ValueError, match=r"sql\.dns"):
        settings_text({}, kept_out=["sql.dns"])


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("documents.kind", "firebase", "embedded"),
        ("firestore.project", " ", "is blank"),
        ("is_mirror_on", "perhaps", "neither true nor false"),
    ],
)
def test_an_answer_that_does_not_fit_is_explained(name: str, value: str, what: str) -> None:
    """At once, and not at the first start."""
    problem = problem_of(name, value)
    assert problem is not None
    assert what in problem


def test_an_answer_that_fits_has_no_problem() -> None:
    assert problem_of("documents.kind", "firestore") is None
    assert problem_of("is_mirror_on", True) is None
