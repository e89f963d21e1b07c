"""Declarations to plant mistakes in, and to read them back."""

from __future__ import annotations

from pathlib import Path

import pytest

from storemirror.errors import DeclarationInvalid, Mistake
from storemirror.model.entity import Model
from storemirror.model.load import load_model

#: A parent, and a child that rolls up into it; right as it stands.
SHOP = """\
[[entity]]
name = "Order"
check = "orders"
path = "orders/{orderId}"
category = "shop"
[entity.columns]
placedAt = { type = "timestamp", required = true }
note = { type = "text" }
[entity.derived]
lastAt = { first_of = ["lastLineAt", "placedAt"] }
[[entity.children]]
name = "OrderReader"
key = "userId"
from = "readerIds"
[entity.children.columns]
readAt = { type = "timestamp", from_map = "readAt" }

[[entity]]
name = "OrderLine"
check = "lines"
path = "orders/{orderId}/lines/{lineId}"
category = "shop"
[entity.columns]
addedAt = { type = "timestamp", required = true }
title = { type = "string" }
amount = { type = "double" }
[entity.rollup]
into = "Order"
count = "lineCount"
latest = { by = "addedAt", set = { lastLineAt = "addedAt", lastTitle = "title:20" } }
"""


def model_of(folder: Path, *texts: str, with_builtin: bool = False) -> Model:
    """Write each text to a file of its own, and load them."""
    files = []
    for number, text in enumerate(texts, start=1):
        file = folder / f"{number}.toml"
        file.write_text(text, encoding="utf-8")
        files.append(file)
    return load_model(files, with_builtin=with_builtin)


def mistakes_of(folder: Path, *texts: str, with_builtin: bool = False) -> tuple[Mistake, ...]:
    """Load texts that are wrong, and give what is reported."""
    with pytest.raises(DeclarationInvalid) as caught:
        model_of(folder, *texts, with_builtin=with_builtin)
    return caught.value.mistakes


def line_of(text: str, part: str) -> int:
    """Give the number of the first line that holds `part`."""
    return next(n for n, line in enumerate(text.splitlines(), start=1) if part in line)
