"""Values that no sound source sends, as a forged or mistaken publisher might."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.errors import MappingFailed
from storemirror.model.load import load_model
from storemirror.model.mapping import map_document
from storemirror.sql.postgres.types import LIMITS


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("whole", {"integerValue": "TOP-SECRET"}),
        ("whole", {"integerValue": " 1"}),
        ("number", {"doubleValue": "TOP-SECRET"}),
        ("number", {"integerValue": "TOP-SECRET"}),
        ("moment", {"timestampValue": "infinity"}),
        ("moment", {"timestampValue": "20000-01-01T00:00:00.000000Z"}),
        ("moment", {"timestampValue": "0000-01-01T00:00:00.000000Z"}),
        ("name", {"stringValue": {"TOP-SECRET": 1}}),
        ("flag", {"booleanValue": "true"}),
        ("tree", {"integerValue": "TOP-SECRET"}),
        ("tree", {"surpriseValue": "TOP-SECRET"}),
        ("tree", {"mapValue": {"TOP-SECRET": 1}}),
        ("tree", {"arrayValue": {"values": [{}]}}),
    ],
    ids=str,
)
def test_a_value_of_no_canonical_form_is_refused_without_being_quoted(
    tmp_path: Path, column: str, value: dict[str, object]
) -> None:
    """Another publisher's mistake must reach neither the row nor a log."""
    file = tmp_path / "thing.toml"
    file.write_text(
        '[[entity]]\nname = "Thing"\ncheck = "things"\npath = "things/{thingId}"\n'
        'category = "x"\n[entity.columns]\nwhole = { type = "integer" }\n'
        'number = { type = "double" }\nmoment = { type = "timestamp" }\n'
        'name = { type = "string" }\nflag = { type = "boolean" }\ntree = { type = "json" }\n'
    )
    entity = load_model([file], with_builtin=False)["Thing"]
    with pytest.raises(MappingFailed, match=column) as caught:
        map_document(entity, {column: value}, LIMITS, event_id="e", path="things/t")
    assert "TOP-SECRET" not in str(caught.value)
