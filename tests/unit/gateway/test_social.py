"""What the gateway asks of declarations, and the indexes that its queries need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storemirror.errors import ConfigError
from storemirror.gateway.document_queries import all_queries
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.model.entity import Model
from storemirror.model.load import load_model
from storemirror.source.firestore_indexes import composite_indexes
from storemirror.source.port import DocumentQuery
from tests.contract.gateway.test_declared import DECLARED
from tests.house.rules import ROOT
from tests.unit.model.declarations import SHOP, model_of

INDEXES = ROOT / "deploy" / "firestore.indexes.json"


def indexes_of(model: Model) -> list[object]:
    return [*composite_indexes(all_queries(DirectMessages.of(model)))]


def test_the_indexes_file_is_fresh() -> None:
    """A query whose index is not there is refused: every inbox in production would fail."""
    expected = {"indexes": indexes_of(load_model()), "fieldOverrides": []}
    assert json.loads(INDEXES.read_text()) == expected, "run: make docs"


def test_indexes_go_by_the_declaration(tmp_path: Path) -> None:
    """Another app's fields need another index."""
    [index] = indexes_of(model_of(tmp_path, DECLARED))
    assert index == {
        "collectionGroup": "lines",
        "queryScope": "COLLECTION",
        "fields": [
            {"fieldPath": "meta.at", "order": "ASCENDING"},
            {"fieldPath": "from.id", "order": "ASCENDING"},
        ],
    }


@pytest.mark.parametrize(
    ("planted", "instead", "said"),
    [
        ('name     = "DmConversation"', 'name     = "Room"', "the declarations lack them"),
        ('name = "DmParticipant"', 'name = "Member"', "DmParticipant"),
        ('required = true, field = "meta.since"', 'field = "meta.since"', "createdAt"),
        ('type = "string", required = true, field = "from', 'type = "text", field = "from', "send"),
        (
            '"rooms/{conversationId}',
            '"apps/{appId}/rooms/{conversationId}',
            "2 key parts, and one is wanted",
        ),
    ],
)
def test_what_the_gateway_cannot_serve_is_said_before_it_starts(
    tmp_path: Path, planted: str, instead: str, said: str
) -> None:
    """Each lack is named, not met at the first call."""
    assert planted in DECLARED
    text = DECLARED.replace(planted, instead).replace('into   = "DmConversation"', _into(instead))
    with pytest.raises(ConfigError, match=said):
        DirectMessages.of(model_of(tmp_path, text))


def _into(instead: str) -> str:
    return 'into   = "Room"' if "Room" in instead else 'into   = "DmConversation"'


def test_an_app_without_social_entities_has_no_gateway(tmp_path: Path) -> None:
    """All that is missing is listed at once."""
    model = model_of(tmp_path, SHOP)
    with pytest.raises(ConfigError, match=r"DmConversation.*DmMessage"):
        DirectMessages.of(model)
    with pytest.raises(ConfigError, match=r"FollowEdge.*UserBlock"):
        FollowGraph.of(model)


def test_equal_needs_are_one_index() -> None:
    """The file has each once."""
    [query] = [q for q in all_queries(DirectMessages.of(load_model())) if len(q.conditions) > 1]
    other = DocumentQuery(collection="a/b/messages", conditions=query.conditions, limit=1)
    assert len(composite_indexes([query, other])) == 1
