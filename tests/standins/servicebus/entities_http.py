"""The management interface over HTTP: entities as Atom XML, as the administration client asks."""

from __future__ import annotations

import datetime as dt
import re
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from aiohttp import web

from tests.standins.servicebus.management import rights_of
from tests.standins.servicebus.message import AmqpError
from tests.standins.servicebus.store import Queue, Topic

if TYPE_CHECKING:
    from tests.standins.servicebus.standin import StandIn

_SERVICE: Final = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_COUNTS: Final = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"
_EMPTY_FEED: Final = (
    '<feed xmlns="http://www.w3.org/2005/Atom">'
    '<title type="text">Publicly Listed Services</title></feed>'
)
_DURATION: Final = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>[\d.]+)S)?)?"
)
#: What the service lets nobody change once the entity is there.
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FIXED: Final = (
    "RequiresDuplicateDetection",
    "DuplicateDetectionHistoryTimeWindow",
    "RequiresSession",
    "EnablePartitioning",
)


def seconds_of(duration: str) -> float:
    """
    Read an ISO 8601 duration of days and less.

    >>> seconds_of("P1DT1M2.5S")
    86462.5
    """
    matched = _DURATION.fullmatch(duration)
    if matched is None:
        raise AmqpError("400", f"no duration: {duration!r}", 400)
    parts = {name: float(value) for name, value in matched.groupdict().items() if value}
    return dt.timedelta(**parts).total_seconds()


def description_of(body: str) -> tuple[dict[str, str], str]:
    """Give the fields of the description in an entry, and its filter's SQL."""
    fields: dict[str, str] = {}
    expression = ""
    for element in ET.fromstring(body).iter():
        name = element.tag.rpartition("}")[2]
        if name == "SqlExpression":
            expression = element.text or ""
        elif len(element) == 0 and element.text:
            fields[name] = element.text
    return fields, expression


def entry(title: str, kind: str, fields: Mapping[str, str], inner: str = "") -> str:
    """Write an entry."""
    written = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return (
        f'<entry xmlns="http://www.w3.org/2005/Atom"><title type="text">{escape(title)}</title>'
        f'<content type="application/xml"><{kind} xmlns="{_SERVICE}" xmlns:i="{_INSTANCE}">'
        f"{written}{inner}</{kind}></content></entry>"
    )


class EntitiesHttp:
    """Answers for one stand-in."""

    def __init__(self, standin: StandIn) -> None:
        self._standin = standin
        self._topic_fields: dict[str, dict[str, str]] = {}
        self._subscription_fields: dict[str, dict[str, str]] = {}

    def app(self) -> web.Application:
        """Make the application."""
        app = web.Application(middlewares=[self._guard])
        for subscriptions in ("subscriptions", "Subscriptions"):
            place = "/{topic}/" + subscriptions + "/{name}"
            app.router.add_get(place, self._get_subscription)
            app.router.add_put(place, self._put_subscription)
            app.router.add_get(place + "/rules/{rule}", self._get_rule)
            app.router.add_put(place + "/rules/{rule}", self._put_rule)
        app.router.add_get("/{topic}", self._get_topic)
        app.router.add_put("/{topic}", self._put_topic)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn refusals into the service's answers, and see that the caller may manage."""
        try:
            rights = rights_of(request.headers.get("Authorization", ""), self._standin.policies)
            if "Manage" not in rights:
                raise AmqpError("401", "Manage,EntityRead claims required for this operation.", 401)
            response: web.StreamResponse = await handler(request)
        except AmqpError as error:
            body = (
                f"<Error><Code>{error.status}</Code><Detail>{escape(error.text)}</Detail></Error>"
            )
            return web.Response(status=error.status, text=body, content_type="application/xml")
        return response

    @staticmethod
    def _atom(text: str, status: int = 200) -> web.Response:
        return web.Response(status=status, text=text, content_type="application/atom+xml")

    def _topic(self, request: web.Request) -> Topic | None:
        return self._standin.topics.get(request.match_info["topic"].lower())

    def _queue(self, request: web.Request) -> Queue | None:
        topic = self._topic(request)
        return None if topic is None else topic.subscriptions.get(request.match_info["name"])

    @staticmethod
    def _refuse_change(
        known: dict[str, str] | None, asked: dict[str, str], is_update: bool
    ) -> None:
        if known is None:
            return
        if not is_update:
            raise AmqpError("409", "SubCode=40900. Conflict: the entity exists.", 409)
        for name in _FIXED:
            if name in asked and asked[name] != known.get(name, asked[name]):
                text = (
                    f"SubCode=40000. The value of {name} of an existing entity cannot be changed."
                )
                raise AmqpError("400", text, 400)

    async def _get_topic(self, request: web.Request) -> web.Response:
        topic = self._topic(request)
        if topic is None:
            return self._atom(_EMPTY_FEED)
        return self._atom(entry(topic.path, "TopicDescription", self._topic_fields[topic.path]))

    async def _put_topic(self, request: web.Request) -> web.Response:
        fields, _ = description_of(await request.text())
        topic = self._topic(request)
        known = None if topic is None else self._topic_fields[topic.path]
        self._refuse_change(known, fields, "If-Match" in request.headers)
        if topic is None:
            topic = self._standin.add_topic(request.match_info["topic"])
        self._topic_fields[topic.path] = (known or {}) | fields
        if fields.get("RequiresDuplicateDetection") == "true":
            window = fields.get("DuplicateDetectionHistoryTimeWindow", "PT10M")
            topic.duplicate_window_s = seconds_of(window)
        text = entry(topic.path, "TopicDescription", self._topic_fields[topic.path])
        return self._atom(text, 200 if known is not None else 201)

    async def _get_subscription(self, request: web.Request) -> web.Response:
        queue = self._queue(request)
        return self._atom(_EMPTY_FEED if queue is None else self._described(request, queue))

    def _described(self, request: web.Request, queue: Queue) -> str:
        assert queue.dead_letters is not None
        queue.sweep()
        dead = queue.dead_letters.depth
        counts = {"ActiveMessageCount": queue.depth, "DeadLetterMessageCount": dead}
        counts |= dict.fromkeys(
            ("ScheduledMessageCount", "TransferMessageCount", "TransferDeadLetterMessageCount"), 0
        )
        inner = "".join(
            f'<d2p1:{name} xmlns:d2p1="{_COUNTS}">{count}</d2p1:{name}>'
            for name, count in counts.items()
        )
        moments = dict.fromkeys(("CreatedAt", "UpdatedAt", "AccessedAt"), "2026-01-01T00:00:00Z")
        return entry(
            request.match_info["name"],
            "SubscriptionDescription",
            self._subscription_fields[queue.path]
            | {"MessageCount": str(queue.depth + dead)}
            | moments,
            f"<CountDetails>{inner}</CountDetails>",
        )

    async def _put_subscription(self, request: web.Request) -> web.Response:
        fields, _ = description_of(await request.text())
        topic = self._topic(request)
        if topic is None:
            raise AmqpError("404", "SubCode=40400. Not Found. The topic does not exist.", 404)
        queue = self._queue(request)
        known = None if queue is None else self._subscription_fields[queue.path]
        self._refuse_change(known, fields, "If-Match" in request.headers)
        if queue is None:
            queue = topic.subscribe(request.match_info["name"])
        merged = self._subscription_fields[queue.path] = (known or {}) | fields
        queue.lock_s = seconds_of(merged.get("LockDuration", "PT1M"))
        queue.max_delivery_count = int(merged.get("MaxDeliveryCount", "10"))
        queue.is_expiry_dead_lettered = merged.get("DeadLetteringOnMessageExpiration") == "true"
        time_to_live = merged.get("DefaultMessageTimeToLive", "")
        queue.time_to_live_s = None
        if time_to_live and not time_to_live.startswith("P10675199D"):
            queue.time_to_live_s = seconds_of(time_to_live)
        return self._atom(self._described(request, queue), 200 if known is not None else 201)

    async def _get_rule(self, request: web.Request) -> web.Response:
        queue, name = self._queue(request), request.match_info["rule"]
        if queue is None or name not in queue.rules:
            return self._atom(_EMPTY_FEED)
        return self._atom(self._rule(name, queue.rules[name]))

    @staticmethod
    def _rule(name: str, expression: str) -> str:
        inner = (
            f'<Filter i:type="SqlFilter"><SqlExpression>{escape(expression)}</SqlExpression>'
            "<CompatibilityLevel>20</CompatibilityLevel></Filter>"
            f'<Action i:type="EmptyRuleAction"></Action><Name>{escape(name)}</Name>'
        )
        return entry(name, "RuleDescription", {}, inner)

    async def _put_rule(self, request: web.Request) -> web.Response:
        queue, name = self._queue(request), request.match_info["rule"]
        if queue is None:
            raise AmqpError("404", "SubCode=40400. Not Found.", 404)
        _, expression = description_of(await request.text())
        queue.rules[name] = expression
        return self._atom(self._rule(name, expression))
