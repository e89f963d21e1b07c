"""Declarations are read from several files, checked together, and resolved into entities."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.errors import DeclarationInvalid
from storemirror.model.entity import (
    ChildColumn,
    ChildTable,
    Column,
    DerivedColumn,
    KeyPart,
    LatestColumn,
    Rollup,
)
from storemirror.model.load import load_model
from storemirror.model.types import ColumnType
from tests.unit.model.declarations import SHOP, line_of, mistakes_of, model_of

CHATS = """\
[[entity]]
name = "FollowEdge"
check = "follow"
path = "people/{followerId}/follows/{followeeId}"
category = "followSqlMirror"
replace = true
raw = true
key_length = { followeeId = 200 }
[entity.columns]
createdAt = { type = "timestamp", required = true, field = "meta.createdAt" }
"""


def column(name: str, kind: ColumnType, *, is_required: bool = False) -> Column:
    """Give a column that comes from the field of its own name."""
    return Column(name=name, type=kind, is_required=is_required, field=(name,))


def test_the_builtin_entities_are_in_the_order_of_their_procedures() -> None:
    """Locks are taken in this order."""
    names = [e.name for e in load_model()]
    assert names == ["DmConversation", "DmMessage", "FollowEdge", "UserBlock"]


def test_a_conversation_has_participants_and_aggregates() -> None:
    """An inbox reads these three tables and columns, and nothing else."""
    conversation = load_model()["DmConversation"]
    assert conversation.pattern == "conversations/{conversationId}"
    assert (conversation.check, conversation.category) == ("conversations", "dmSqlMirror")
    assert (conversation.has_audit, conversation.has_raw) == (False, False)
    assert conversation.keys == (KeyPart(name="conversationId"),)
    assert conversation.columns == (
        column("title", ColumnType.STRING),
        column("createdAt", ColumnType.TIMESTAMP, is_required=True),
    )
    last_read_at = ChildColumn(
        name="lastReadAt", type=ColumnType.TIMESTAMP, from_map=("lastReadAt",)
    )
    assert conversation.children == (
        ChildTable(
            name="DmParticipant",
            key=KeyPart(name="userId"),
            field=("participantIds",),
            columns=(last_read_at,),
        ),
    )
    assert conversation.derived == (
        DerivedColumn(
            name="lastActivityAt",
            type=ColumnType.TIMESTAMP,
            sources=("lastMessageAt", "createdAt"),
        ),
    )
    assert conversation.rollup is None
    assert conversation.rollup_columns == (
        Column(name="messageCount", type=ColumnType.INTEGER, field=()),
        Column(name="lastMessageId", type=ColumnType.STRING, field=()),
        Column(name="lastMessageAt", type=ColumnType.TIMESTAMP, field=()),
        Column(name="lastMessagePreview", type=ColumnType.TEXT, field=()),
    )


def test_a_message_is_audited_and_rolls_up() -> None:
    """Counts and the last message are kept in the conversation's row."""
    message = load_model()["DmMessage"]
    assert message.pattern == "conversations/{conversationId}/messages/{messageId}"
    assert (message.check, message.category) == ("messages", "dmSqlMirror")
    assert (message.has_audit, message.has_raw) == (True, False)
    assert message.keys == (KeyPart(name="conversationId"), KeyPart(name="messageId"))
    assert message.columns == (
        column("senderId", ColumnType.STRING, is_required=True),
        column("body", ColumnType.TEXT),
        column("sentAt", ColumnType.TIMESTAMP, is_required=True),
        column("editedAt", ColumnType.TIMESTAMP),
        column("attachments", ColumnType.JSON),
    )
    assert message.rollup == Rollup(
        into="DmConversation",
        count="messageCount",
        latest_by="sentAt",
        latest=(
            LatestColumn(target="lastMessageId", source="messageId", type=ColumnType.STRING),
            LatestColumn(target="lastMessageAt", source="sentAt", type=ColumnType.TIMESTAMP),
            LatestColumn(
                target="lastMessagePreview",
                source="body",
                type=ColumnType.TEXT,
                max_code_points=140,
            ),
        ),
    )
    assert (message.children, message.derived, message.rollup_columns) == ((), (), ())


@pytest.mark.parametrize(
    ("name", "pattern", "check"),
    [
        ("FollowEdge", "users/{followerId}/following/{followeeId}", "follow"),
        ("UserBlock", "users/{blockerId}/blocks/{blockedId}", "blocks"),
    ],
)
def test_an_edge_is_its_key_and_when_it_was_made(name: str, pattern: str, check: str) -> None:
    """The relationship reader looks edges up by both users."""
    edge = load_model()[name]
    assert (edge.pattern, edge.check, edge.category) == (pattern, check, "followSqlMirror")
    assert edge.columns == (column("createdAt", ColumnType.TIMESTAMP),)
    assert (edge.has_audit, edge.rollup, edge.children) == (False, None, ())


def test_a_users_file_adds_to_the_builtin_entities(tmp_path: Path) -> None:
    """Any other collection is mirrored by declaring it."""
    names = [e.name for e in model_of(tmp_path, SHOP, with_builtin=True)]
    assert names[4:] == ["Order", "OrderLine"]


def test_a_parent_comes_before_its_child_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    """Parents are locked and written first."""
    parent, child = SHOP.split("\n\n")
    assert [e.name for e in model_of(tmp_path, child, parent)] == ["Order", "OrderLine"]


def test_a_replacement_takes_the_place_of_the_builtin_entity(tmp_path: Path) -> None:
    """Paths and field names are settings: real apps differ."""
    model = model_of(tmp_path, CHATS, with_builtin=True)
    edge = model["FollowEdge"]
    assert [e.name for e in model] == ["DmConversation", "DmMessage", "FollowEdge", "UserBlock"]
    assert edge.path == ("people", "{followerId}", "follows", "{followeeId}")
    assert edge.keys == (
        KeyPart(name="followerId"),
        KeyPart(name="followeeId", max_length=200),
    )
    assert edge.columns[0].field == ("meta", "createdAt")
    assert edge.has_raw


def test_a_second_entity_of_a_builtin_name_needs_replace(tmp_path: Path) -> None:
    """A copy by accident must not take the place of the original."""
    text = CHATS.replace("replace = true\n", "")
    mistakes = mistakes_of(tmp_path, text, with_builtin=True)
    name = next(m for m in mistakes if m.where == "FollowEdge.name")
    assert name.line == 2
    assert name.cure.startswith("To replace the built-in entity, add replace = true")


def test_replace_needs_a_builtin_entity_of_the_name(tmp_path: Path) -> None:
    """A misspelled replacement would leave the original where it is."""
    text = CHATS.replace("FollowEdge", "FolowEdge").replace('"follow"', '"folow"')
    (mistake,) = mistakes_of(tmp_path, text, with_builtin=True)
    assert (mistake.where, mistake.line) == ("FolowEdge.replace", 6)
    assert mistake.what == "there is no built-in entity 'FolowEdge' to replace"
    assert mistake.cure == "Did you mean 'FollowEdge'? Or take replace out."


def test_two_replacements_of_one_entity_are_refused(tmp_path: Path) -> None:
    """The later file would win silently."""
    mistakes = mistakes_of(tmp_path, CHATS, CHATS, with_builtin=True)
    assert [m.where for m in mistakes] == [
        "FollowEdge.name",
        "FollowEdge.check",
        "FollowEdge.path",
    ]
    assert all(m.file.endswith("2.toml") for m in mistakes)


def test_a_replacement_that_no_longer_fits_the_builtin_child_is_blamed(tmp_path: Path) -> None:
    """The user cannot mend the built-in file; the line must be one of their own."""
    text = """\
[[entity]]
name = "DmConversation"
check = "conversations"
path = "chats/{chatId}"
category = "dmSqlMirror"
replace = true
[entity.columns]
createdAt = { type = "timestamp", required = true }
"""
    (mistake,) = mistakes_of(tmp_path, text, with_builtin=True)
    assert (mistake.where, mistake.line) == ("DmConversation.path", 4)
    assert mistake.file.endswith("1.toml")
    assert "Replace DmMessage as well (replace = true)." in mistake.cure


def test_all_mistakes_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    """Nobody mends a file mistake by mistake, with a start between each."""
    first = (
        SHOP.replace('"text"', '"txt"')
        .replace("title:20", "titel:20")
        .replace('check = "orders"', "")
    )
    second = CHATS.replace("replace", "replcae").replace('check = "follow"', "check = 3")
    mistakes = mistakes_of(tmp_path, first, second, "x =", with_builtin=True)
    assert [(Path(m.file).name, m.line, m.where) for m in mistakes] == [
        ("1.toml", 1, "Order.check"),
        ("1.toml", line_of(first, "txt"), "Order.columns.note.type"),
        ("1.toml", line_of(first, "titel"), "OrderLine.rollup.latest.set.lastTitle"),
        ("2.toml", 2, "FollowEdge.name"),
        ("2.toml", 3, "FollowEdge.check"),
        ("2.toml", 6, "FollowEdge.replcae"),
        ("3.toml", 1, ""),
    ]


def test_the_message_lists_file_line_place_and_cure(tmp_path: Path) -> None:
    """It is all that a terminal shows."""
    with pytest.raises(DeclarationInvalid) as caught:
        model_of(tmp_path, SHOP.replace('"text"', '"txt"'))
    assert str(caught.value) == (
        "1 mistake in the declarations; nothing was started\n"
        f"  {tmp_path}/1.toml line 8: Order.columns.note.type: unknown type 'txt'. "
        "Did you mean 'text'? Known types are string, text, integer, double, boolean, timestamp, "
        "bytes, reference, geopoint, json."
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Nor is what it may have declared reported as missing."""
    file = tmp_path / "child.toml"
    file.write_text(SHOP.split("\n\n")[1])
    with pytest.raises(DeclarationInvalid) as caught:
        load_model([tmp_path / "gone.toml", file], with_builtin=False)
    (mistake,) = caught.value.mistakes
    assert str(mistake) == (
        f"{tmp_path}/gone.toml: cannot be read: No such file or directory. "
        "Mend the path in model.files."
    )


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    """A traceback would name our decoder, not the file."""
    file = tmp_path / "latin.toml"
    file.write_bytes(b'name = "\xe4"')
    with pytest.raises(DeclarationInvalid, match="is not UTF-8"):
        load_model([file])


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[[entity]]\nname = \n", 2, "is no TOML: Invalid value"),
        ('[[entity]]\nname = "a"\nname = "b"\n', 3, "is no TOML: Cannot overwrite a value"),
        ('[[entity]]\nname = """a', 2, "is no TOML: Unterminated string"),
        ("a = " + "[" * 100_000, 0, "is no TOML: nested too deeply"),
        ("[[entitty]]\n", 1, "unknown key 'entitty'"),
        ('[entity]\nname = "A"\n', 1, "entity must be a list of tables"),
        ("entity = [1]\n", 1, "entity must be a list of tables"),
        ("# nothing\n", 0, "declares nothing"),
    ],
)
def test_a_file_that_is_no_declaration_is_named(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    """Syntax errors have a line like every other mistake."""
    (mistake,) = mistakes_of(tmp_path, text)
    assert mistake.line == line
    assert what in mistake.what


def test_nothing_declared_is_a_mistake() -> None:
    """A mirror of nothing would run, and mirror nothing."""
    with pytest.raises(DeclarationInvalid, match="no entity is declared"):
        load_model((), with_builtin=False)


def test_inline_tables_are_the_same_declaration(tmp_path: Path) -> None:
    """TOML has several spellings; lines and digests must hold for all."""
    inline = (
        'entity = [ # one\n{ name = "Note", check = "n", path = "notes/{noteId}", category = "n", '
        'columns = { text = { type = "text" } } },\n]\n'
    )
    table = """\
[[entity]]
category = "other"
path = "notes/{noteId}"
check = "other"
name = "Note"   # a comment
columns.text.type = "text"
"""
    notes = [model_of(tmp_path, text)["Note"] for text in (inline, table)]
    assert notes[0].digest == notes[1].digest
    wrong = inline.replace('type = "text"', 'type = "txt"')
    assert [m.line for m in mistakes_of(tmp_path, wrong)] == [2]


def digests_of(folder: Path, old: str, new: str) -> tuple[bool, bool]:
    """Tell of parent and child whether a replacement changes the digest."""
    assert old in SHOP
    before, after = (model_of(folder, text) for text in (SHOP, SHOP.replace(old, new, 1)))
    parent, child = (before[name].digest != after[name].digest for name in ("Order", "OrderLine"))
    return parent, child


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('check = "orders"', 'check = "o"  # a comment'),
        ('category = "shop"', 'category = "store"'),
        (
            'placedAt = { type = "timestamp", required = true }\nnote = { type = "text" }',
            'note = { type = "text" }\nplacedAt = { required = true, type = "timestamp" }',
        ),
        ('note = { type = "text" }', 'note = { type = "text", field = "note" }'),
        (
            '{ lastLineAt = "addedAt", lastTitle = "title:20" }',
            '{ lastTitle = "title:20", lastLineAt = "addedAt" }',
        ),
    ],
)
def test_a_digest_does_not_change_with_what_rows_do_not_show(
    tmp_path: Path, old: str, new: str
) -> None:
    """A new digest is a new mapping revision, and every row is written again."""
    assert digests_of(tmp_path, old, new) == (False, False)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('note = { type = "text" }', 'note = { type = "string" }', (True, False)),
        ('note = { type = "text" }', 'note = { type = "text", required = true }', (True, False)),
        ('note = { type = "text" }', 'note = { type = "text", field = "n" }', (True, False)),
        ('"lastLineAt", "placedAt"', '"placedAt", "lastLineAt"', (True, False)),
        ('from = "readerIds"', 'from = "readers"', (True, False)),
        ('from_map = "readAt"', 'from_map = "readTimes"', (True, False)),
        ('category = "shop"', 'category = "shop"\nraw = true', (True, False)),
        ('category = "shop"', 'category = "shop"\naudit = true', (True, False)),
        ('amount = { type = "double" }', 'amount = { type = "json" }', (False, True)),
        ('count = "lineCount"', 'count = "lines"', (True, True)),
        ("title:20", "title:30", (True, True)),
        ('title = { type = "string" }', 'title = { type = "text" }', (True, True)),
    ],
)
def test_a_digest_changes_with_everything_that_rows_show(
    tmp_path: Path, old: str, new: str, changed: tuple[bool, bool]
) -> None:
    """A change that is not seen would leave old rows as they are."""
    assert digests_of(tmp_path, old, new) == changed


def test_the_builtin_digests_are_what_they_were() -> None:
    """A new digest makes every installation write every row again: never by accident."""
    assert {e.name: e.digest[:16] for e in load_model()} == {
        "DmConversation": "dd07199621fe36d0",
        "DmMessage": "803ae71026ebbc46",
        "FollowEdge": "69170dcdf305d289",
        "UserBlock": "9a5e9e046878cd0b",
    }
