"""What the demo's people write: short and long, in many scripts, with the traps of real text."""

from __future__ import annotations

import random
from typing import Final

_WORDS: Final = (
    "tea", "later", "yes", "no idea", "see you at six", "haha", "on my way", "really?",
    "Grüße", "déjà vu", "日本語", "привет", "שלום", "مرحبا", "สวัสดี", "नमस्ते", "한국어",
)  # fmt: skip
_ODDITIES: Final = (
    "\U0001f602",
    "\U0001f469\U0001f3fd\u200d\U0001f680",  # one sign of four code points
    "\U0001f1fa\U0001f1e6",  # a flag: two code points
    "e\u0301 is not \u00e9",  # the same to the eye, different bytes
    "\u202eright to left\u202c",
    "a\u200bb\ufeffc",  # characters of no width
    "line\nbreak\r\nand\ttab",
    "\u2028\u2029",
    "\"quotes\" 'and' \\backslashes\\ {braces} $1 %s ; -- ",
    "\U00020bb7\U0010ffff\uffff\ue000",
    " ",
    "",
)


def any_body(rng: random.Random) -> str:
    """Give a message's text: mostly a few words, sometimes thousands, sometimes nothing."""
    kind = rng.random()
    if kind < 0.7:
        return " ".join(rng.choices(_WORDS, k=rng.randint(1, 8)))
    if kind < 0.95:
        return rng.choice(_WORDS) + rng.choice(_ODDITIES) + rng.choice(_ODDITIES)
    if kind < 0.97:
        return ""
    return " ".join(rng.choices((*_WORDS, *_ODDITIES), k=rng.randint(200, 2_000)))


def any_title(rng: random.Random) -> str | None:
    """Give a conversation's title; most have none."""
    if rng.random() < 0.6:
        return None
    return f"{rng.choice(_WORDS)} {rng.choice(_ODDITIES)}"[:80]


def any_attachments(rng: random.Random) -> list[dict[str, object]]:
    """Give a message's attachments: few, of nested values, integers beyond 2^53 among them."""
    count = rng.choices((0, 1, 2, 5), weights=(80, 12, 6, 2))[0]
    return [_attachment(rng) for _ in range(count)]


def _attachment(rng: random.Random) -> dict[str, object]:
    return {
        "name": f"{rng.choice(_WORDS)}.jpg",
        "sizeBytes": rng.choice((0, rng.randrange(10**7), 2**53 + 1, 2**63 - 1, -(2**63))),
        "durationS": rng.choice((0.1 + 0.2, 1 / 3, 2.0, -1.5, rng.random() * 600)),
        "isAnimated": rng.random() < 0.3,
        "caption": None,
        "tags": rng.choices(_WORDS, k=rng.randint(0, 3)),
        "dimensions": {"width": rng.randrange(1, 8_000), "height": rng.randrange(1, 8_000)},
    }
