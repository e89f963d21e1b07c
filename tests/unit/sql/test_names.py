"""Names of tables, columns and procedures, and the settings that rename procedures."""

from __future__ import annotations

import pytest

from storemirror.errors import ConfigError
from storemirror.model.load import load_model
from storemirror.sql.names import (
    has_relationship,
    pascal_case,
    procedures_of,
    resolved_names,
    snake_case,
)

#: Part of the contract: clients and database administrators call them by these names.
BY_CONTRACT = {
    "upsert_dm_conversation",
    "upsert_dm_message",
    "delete_dm_conversation",
    "delete_dm_message",
    "upsert_follow_edge",
    "delete_follow_edge",
    "upsert_user_block",
    "delete_user_block",
    "get_follow_relationship",
    "ensure_parents",
}


@pytest.mark.parametrize(
    ("declared", "snake"),
    [
        ("DmMessage", "dm_message"),
        ("HTTPRequest", "http_request"),
        ("lastReadAt", "last_read_at"),
        ("userID", "user_id"),
        ("v2Name", "v2_name"),
        ("already_snake", "already_snake"),
        ("x", "x"),
    ],
)
def test_words_are_joined_by_underscores(declared: str, snake: str) -> None:
    """The same name must come out wherever it is spelled."""
    assert snake_case(declared) == snake


def test_only_the_first_letter_becomes_a_capital() -> None:
    """SQL Server has `SentAt`, and `LastReadAt` as it stands."""
    assert (pascal_case("sentAt"), pascal_case("LastReadAt"), pascal_case("")) == (
        "SentAt",
        "LastReadAt",
        "",
    )


def test_the_names_of_the_contract_are_there() -> None:
    """They stand in the brief; a rename would break callers."""
    names = resolved_names(load_model(), {}, snake_case)
    assert set(names.values()) >= BY_CONTRACT


def test_settings_are_spelled_alike_in_both_dialects() -> None:
    """One variable names the procedure wherever it runs."""
    settings = {p.name: p.setting for p in procedures_of(load_model())}
    assert settings["UpsertDmMessage"] == "SQL_PROC_UPSERT_DM_MESSAGE"
    assert settings["GetFollowRelationship"] == "SQL_PROC_GET_FOLLOW_RELATIONSHIP"
    assert len(set(settings.values())) == len(settings)


def test_every_procedure_says_what_it_does() -> None:
    """The reference is generated from it."""
    assert all(p.what.endswith(".") for p in procedures_of(load_model()))


def test_without_follow_graph_there_is_no_relationship() -> None:
    """The reader needs both tables."""
    model = load_model()
    assert has_relationship(model)
    without = type(model)(tuple(e for e in model if e.name != "UserBlock"))
    assert not has_relationship(without)
    assert "GetFollowRelationship" not in {p.name for p in procedures_of(without)}


def test_an_unknown_setting_names_the_known_ones() -> None:
    """A typing error is seen at once."""
    with pytest.raises(ConfigError, match=r"SQL_PROC_X: no such.*SQL_PROC_UPSERT_DM_MESSAGE"):
        resolved_names(load_model(), {"SQL_PROC_X": "x"}, snake_case)


def test_two_procedures_of_one_name_are_refused() -> None:
    """The second would replace the first."""
    overrides = {"SQL_PROC_UPSERT_DM_MESSAGE": "same", "SQL_PROC_DELETE_DM_MESSAGE": "same"}
    with pytest.raises(ConfigError, match="same name"):
        resolved_names(load_model(), overrides, snake_case)
