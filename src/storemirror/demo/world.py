"""
What the demo's people do: who talks to whom, follows, blocks, edits, deletes and comes back.

Decisions follow from the seed alone; the time is handed in.  No I/O.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from storemirror.clock import datetime_from_us
from storemirror.demo.texts import any_attachments, any_body, any_title
from storemirror.event.value import encode_fields
from storemirror.source.port import Precondition, Write

#: A document as Python values, before it is encoded.
Contents = dict[str, object]

PERSON_COUNT: Final = 40
#: Most conversations, and messages, that are remembered; a forgotten one is never touched again.
REMEMBERED_COUNT: Final = 2_000
_MOST_PARTICIPANTS: Final = 6
_MOST_CLEARED: Final = 5
#: Tries to find two people who have nothing to do with each other yet.
_PAIR_TRIES: Final = 20
_LETTERS: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAction:
    """What one person did, as one commit."""

    #: One of `SocialWorld.kinds`: "send", "delete_message", …
    kind: str
    #: Each changes something; guarded, so that nothing is written over that is not the app's.
    writes: tuple[Write, ...]
    #: How many of the writes bring back a document that had been deleted.
    recreated_count: int = 0

    @property
    def deleted_count(self) -> int:
        """Tell how many of the writes are deletes."""
        return sum(write.fields is None for write in self.writes)


class Shelf:
    """Documents of one kind by path, drawn at random; forgets some when there are too many."""

    def __init__(self, rng: random.Random, max_count: int) -> None:
        """Hold at most `max_count` documents."""
        self._rng = rng
        self._max_count = max_count
        self._paths: list[str] = []
        self._places: dict[str, int] = {}
        self._contents: dict[str, Contents] = {}

    def __len__(self) -> int:
        """Count the documents."""
        return len(self._paths)

    def __contains__(self, path: str) -> bool:
        """Tell whether the document is here."""
        return path in self._places

    def __getitem__(self, path: str) -> Contents:
        """Give a document's contents."""
        return self._contents[path]

    def put(self, path: str, contents: Contents) -> None:
        """Set a document; a random one is forgotten when there is no room."""
        if path not in self._places:
            if len(self._paths) >= self._max_count:
                self.take(self.any_path())
            self._places[path] = len(self._paths)
            self._paths.append(path)
        self._contents[path] = contents

    def take(self, path: str) -> Contents:
        """Remove a document and give its contents."""
        place = self._places.pop(path)
        last = self._paths.pop()
        if last != path:
            self._paths[place] = last
            self._places[last] = place
        return self._contents.pop(path)

    def any_path(self) -> str:
        """Give one of the documents; there must be one."""
        return self._rng.choice(self._paths)

    def below(self, parent: str, max_count: int) -> list[str]:
        """Give some of the documents under a parent document."""
        found = [path for path in self._paths if path.startswith(f"{parent}/")]
        return found[:max_count]


class SocialWorld:
    """
    The people and what exists between them.

    Actions are drawn like cards from a shuffled round, so that every kind happens as often as the
    round has it, whatever the seed.
    """

    def __init__(self, seed: int, *, person_count: int = PERSON_COUNT) -> None:
        """
        Let a world begin; the same seed gives the same decisions.

        Args:
            seed: any integer.
            person_count: how many people live in it; more than a conversation's most.
        """
        self._rng = random.Random(seed)  # noqa: S311 -- a simulation, not a secret
        self._now_us = 0
        self._people = [self._any_id(28) for _ in range(person_count)]
        self._conversations, self._gone_conversations = self._shelves(REMEMBERED_COUNT)
        self._messages, self._gone_messages = self._shelves(REMEMBERED_COUNT)
        # All pairs find room: an edge that were forgotten would be met again as another's.
        pair_count = person_count * (person_count - 1)
        edges = {kind: self._shelves(pair_count) for kind in ("following", "blocks")}
        self._edges: Mapping[str, tuple[Shelf, Shelf]] = edges
        self._round: list[str] = []
        self._kinds: Mapping[str, tuple[int, Callable[[], UserAction | None]]] = {
            "open": (2, self._open),
            "send": (14, self._send),
            "edit": (4, self._edit),
            "mark_read": (4, self._mark_read),
            "change_participants": (1, self._change_participants),
            "delete_message": (3, self._delete_message),
            "recreate_message": (2, self._recreate_message),
            "clear_history": (1, self._clear_history),
            "delete_conversation": (1, self._delete_conversation),
            "recreate_conversation": (1, self._recreate_conversation),
            "follow": (3, lambda: self._connect("follow", "following")),
            "unfollow": (3, lambda: self._disconnect("unfollow", "following")),
            "refollow": (1, lambda: self._reconnect("refollow", "following")),
            "block": (2, lambda: self._connect("block", "blocks")),
            "unblock": (2, lambda: self._disconnect("unblock", "blocks")),
            "reblock": (1, lambda: self._reconnect("reblock", "blocks")),
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """Name everything that people do."""
        return tuple(self._kinds)

    def next_action(self, now_us: int) -> UserAction:
        """
        Let somebody do something.  The world goes on as if it had been written.

        Args:
            now_us: the time, microseconds since the Unix epoch; goes into documents, and a little
                later if it did not move, so that every write changes something.
        """
        self._now_us = max(now_us, self._now_us + 1)
        if not self._round:
            self._round = [kind for kind, (count, _) in self._kinds.items() for _ in range(count)]
            self._rng.shuffle(self._round)
        _, act = self._kinds[self._round.pop()]
        return act() or self._send()

    def _open(self) -> UserAction:
        path = f"conversations/{self._any_id(20)}"
        conversation = self._new_conversation()
        self._conversations.put(path, conversation)
        message_path = f"{path}/messages/{self._any_id(20)}"
        message = self._new_message(path)
        self._messages.put(message_path, message)
        return UserAction(
            kind="open", writes=(_created(path, conversation), _created(message_path, message))
        )

    def _send(self) -> UserAction:
        if not self._conversations:
            return self._open()
        parent = self._conversations.any_path()
        path = f"{parent}/messages/{self._any_id(20)}"
        message = self._new_message(parent)
        self._messages.put(path, message)
        return UserAction(kind="send", writes=(_created(path, message),))

    def _edit(self) -> UserAction | None:
        if not self._messages:
            return None
        path = self._messages.any_path()
        news: Contents = {"body": any_body(self._rng), "editedAt": self._now()}
        return self._changed("edit", self._messages, path, news)

    def _mark_read(self) -> UserAction | None:
        if not self._conversations:
            return None
        path = self._conversations.any_path()
        conversation = self._conversations[path]
        read_at = cast("Contents", conversation["lastReadAt"])
        reader = self._rng.choice(_participants(conversation))
        news: Contents = {"lastReadAt": {**read_at, reader: self._now()}}
        return self._changed("mark_read", self._conversations, path, news)

    def _change_participants(self) -> UserAction | None:
        """Let somebody join, or when it is crowded leave; what they read stays behind."""
        if not self._conversations:
            return None
        path = self._conversations.any_path()
        inside = _participants(self._conversations[path])
        outside = [person for person in self._people if person not in inside]
        if len(inside) < _MOST_PARTICIPANTS:
            now_inside = [*inside, self._rng.choice(outside)]
        else:
            leaver = self._rng.choice(inside)
            now_inside = [person for person in inside if person != leaver]
        news: Contents = {"participantIds": now_inside}
        return self._changed("change_participants", self._conversations, path, news)

    def _delete_message(self) -> UserAction | None:
        if not self._messages:
            return None
        writes = (_removed(self._messages.any_path(), self._messages, self._gone_messages),)
        return UserAction(kind="delete_message", writes=writes)

    def _recreate_message(self) -> UserAction | None:
        """Bring a message back, in a conversation that may be gone itself."""
        if not self._gone_messages:
            return None
        path = self._gone_messages.any_path()
        message = {**self._gone_messages.take(path), "sentAt": self._now()}
        self._messages.put(path, message)
        return _recreation("recreate_message", path, message)

    def _clear_history(self) -> UserAction | None:
        """Delete several messages of one conversation in one commit."""
        if not self._messages:
            return None
        parent = self._messages.any_path().rsplit("/", 2)[0]
        paths = self._messages.below(parent, _MOST_CLEARED)
        writes = tuple(_removed(path, self._messages, self._gone_messages) for path in paths)
        return UserAction(kind="clear_history", writes=writes)

    def _delete_conversation(self) -> UserAction | None:
        """Delete a conversation; as in Firestore, its messages stay."""
        if not self._conversations:
            return None
        path = self._conversations.any_path()
        writes = (_removed(path, self._conversations, self._gone_conversations),)
        return UserAction(kind="delete_conversation", writes=writes)

    def _recreate_conversation(self) -> UserAction | None:
        if not self._gone_conversations:
            return None
        path = self._gone_conversations.any_path()
        self._gone_conversations.take(path)
        conversation = self._new_conversation()
        self._conversations.put(path, conversation)
        return _recreation("recreate_conversation", path, conversation)

    def _connect(self, kind: str, collection: str) -> UserAction | None:
        living, gone = self._edges[collection]
        for _ in range(_PAIR_TRIES):
            one, other = self._rng.sample(self._people, 2)
            path = f"users/{one}/{collection}/{other}"
            if path not in living and path not in gone:
                edge: Contents = {"createdAt": self._now()}
                living.put(path, edge)
                return UserAction(kind=kind, writes=(_created(path, edge),))
        return None

    def _disconnect(self, kind: str, collection: str) -> UserAction | None:
        living, gone = self._edges[collection]
        if not living:
            return None
        return UserAction(kind=kind, writes=(_removed(living.any_path(), living, gone),))

    def _reconnect(self, kind: str, collection: str) -> UserAction | None:
        living, gone = self._edges[collection]
        if not gone:
            return None
        path = gone.any_path()
        gone.take(path)
        edge: Contents = {"createdAt": self._now()}
        living.put(path, edge)
        return _recreation(kind, path, edge)

    def _changed(self, kind: str, shelf: Shelf, path: str, news: Contents) -> UserAction:
        """Write a living document anew, with some fields changed."""
        contents = {**shelf[path], **news}
        shelf.put(path, contents)
        write = Write(path=path, fields=encode_fields(contents), precondition=Precondition.EXISTS)
        return UserAction(kind=kind, writes=(write,))

    def _new_conversation(self) -> Contents:
        """Most have no title: the field is missing, or there and null."""
        people = self._rng.sample(self._people, self._rng.choice((2, 2, 2, 3, 5)))
        conversation: Contents = {
            "participantIds": people,
            "lastReadAt": {people[0]: self._now()},
            "createdAt": self._now(),
        }
        title = any_title(self._rng)
        if title is not None or self._rng.random() < 0.3:
            conversation["title"] = title
        return conversation

    def _new_message(self, parent: str) -> Contents:
        message: Contents = {
            "senderId": self._rng.choice(_participants(self._conversations[parent])),
            "body": any_body(self._rng),
            "sentAt": self._now(),
        }
        attachments = any_attachments(self._rng)
        if attachments or self._rng.random() < 0.5:
            message["attachments"] = attachments
        return message

    def _shelves(self, max_count: int) -> tuple[Shelf, Shelf]:
        return Shelf(self._rng, max_count), Shelf(self._rng, max_count)

    def _now(self) -> object:
        return datetime_from_us(self._now_us)

    def _any_id(self, length: int) -> str:
        """Give an id as Firebase draws them: 20 letters and digits a document, 28 a person."""
        return "".join(self._rng.choices(_LETTERS, k=length))


def _participants(conversation: Contents) -> list[str]:
    return cast("list[str]", conversation["participantIds"])


def _created(path: str, contents: Contents) -> Write:
    return Write(path=path, fields=encode_fields(contents), precondition=Precondition.ABSENT)


def _recreation(kind: str, path: str, contents: Contents) -> UserAction:
    return UserAction(kind=kind, writes=(_created(path, contents),), recreated_count=1)


def _removed(path: str, living: Shelf, gone: Shelf) -> Write:
    """Move a document to the deleted ones, and give the write that does it."""
    gone.put(path, living.take(path))
    return Write(path=path, fields=None, precondition=Precondition.EXISTS)
