"""Declarations that have everything that can be declared, for what is rendered of them."""

from __future__ import annotations

from typing import Final

#: An entity whose latest row is found by a text, and its parent.
ROLLED_UP_BY_TEXT: Final = """
[[entity]]
name     = "Whole"
check    = "wholes"
path     = "wholes/{wholeId}"
category = "sqlMirror"
[[entity]]
name     = "Part"
check    = "parts"
path     = "wholes/{wholeId}/parts/{partId}"
category = "sqlMirror"
[entity.columns]
rank = { type = "string", required = true }
[entity.rollup]
into   = "Whole"
latest = { by = "rank", set = { lastRank = "rank" } }
"""

#: Every type, in columns and in children, words of SQL as names, long names and keys, the raw
#: document, and roll-ups of every type.
EVERY_KIND: Final = """[[entity]]
name     = "Every"
check    = "every"
path     = "tenants/{tenantId}/every/{everyId}"
category = "sqlMirror"
audit    = true
raw      = true
[entity.columns]
text1 = { type = "text", required = true }
order = { type = "string" }
another = { type = "string" }
position = { type = "integer" }
score = { type = "double" }
isOpen = { type = "boolean" }
select = { type = "timestamp" }
blob = { type = "bytes" }
ref = { type = "reference" }
place = { type = "geopoint" }
anything = { type = "json" }
[[entity.children]]
name = "EveryTag"
key  = "tag"
from = "tags"
[[entity.children]]
name = "EveryMember"
key  = "memberId"
from = "members"
[entity.children.columns]
note = { type = "text", from_map = "notes" }
blob = { type = "bytes", from_map = "blobs" }
at = { type = "timestamp", from_map = "ats" }
score = { type = "double", from_map = "scores" }
isOn = { type = "boolean", from_map = "ons" }
place = { type = "geopoint", from_map = "places" }
anything = { type = "json", from_map = "things" }
count = { type = "integer", from_map = "counts" }
[entity.derived]
first = { first_of = ["order", "another"] }
[[entity]]
name     = "EveryPart"
check    = "parts"
path     = "tenants/{tenantId}/every/{everyId}/parts/{partId}"
category = "sqlMirror"
[entity.columns]
rank = { type = "string", required = true }
body = { type = "text" }
blob = { type = "bytes" }
[entity.rollup]
into   = "Every"
count  = "partCount"
[entity.rollup.latest]
by = "rank"
set = { lastPart = "partId", lastRank = "rank", lastBody = "body:7", lastBlob = "blob" }
[[entity]]
name     = "LoooooooooooooooooooooooooooooooooongNameWide"
check    = "wide"
path     = "a/{a1}/b/{b1}/c/{c1}/d/{d1}"
category = "sqlMirror"
key_length = { a1 = 200, b1 = 200, c1 = 100, d1 = 100 }
audit = true
[entity.columns]
x = { type = "string" }
"""
