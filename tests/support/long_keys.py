"""The built-in entities, declared with keys that may be longer than 128 characters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from storemirror.model import social

#: Longest ids, in characters: all parts of a key together have 600 at most.
CONVERSATION_LENGTH: Final = 300
MESSAGE_LENGTH: Final = 250
USER_LENGTH: Final = 290
_LENGTHS: Final = {
    "conversationId": CONVERSATION_LENGTH,
    "messageId": MESSAGE_LENGTH,
    "followerId": USER_LENGTH,
    "followeeId": USER_LENGTH,
    "blockerId": USER_LENGTH,
    "blockedId": USER_LENGTH,
}


def declared_with_long_keys(folder: Path) -> Path:
    """Write the declarations into a folder; gives the file."""

    def with_lengths(path: re.Match[str]) -> str:
        names = re.findall(r"\{(\w+)\}", path[0])
        lengths = ", ".join(f"{name} = {_LENGTHS[name]}" for name in names)
        return f"{path[0]}\nkey_length = {{ {lengths} }}"

    builtin = Path(social.__file__).with_name("social.toml").read_text(encoding="utf-8")
    file = folder / "long.toml"
    file.write_text(re.sub(r"(?m)^path .*$", with_lengths, builtin), encoding="utf-8")
    return file
