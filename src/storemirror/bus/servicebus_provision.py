"""Making a topic and its subscriptions on Service Bus.  See `storemirror.bus.servicebus`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.management import SqlRuleFilter

from storemirror.bus.port import ExpiryAction, SubscriptionSpec, TopicSpec
from storemirror.bus.servicebus_message import ONLY_FOR
from storemirror.errors import BusRefused

#: What Service Bus takes; outside of it it refuses with words of its own that name no setting.
_WINDOW_S: Final = (20.0, 7 * 86_400.0)
_LOCK_S: Final = (5.0, 300.0)
_MAX_NAME_LENGTH: Final = 50
#: For ever, as the service writes it.
_FOR_EVER: Final = timedelta.max
_RULE: Final = "$Default"
_ACKNOWLEDGED: Final = "-acknowledged"

Found = TypeVar("Found")


def acknowledged_name(subscription: str) -> str:
    """Give the name of the subscription that keeps what was acknowledged of another."""
    return subscription + _ACKNOWLEDGED


async def provision(client: ServiceBusAdministrationClient, spec: TopicSpec) -> list[str]:
    """
    Make a topic and its subscriptions, or bring existing ones to `spec`.

    Returns:
        What differs and cannot be changed, one line each.

    Raises:
        BusRefused: Service Bus takes no such value; nothing was changed.
        AzureError: the service did not answer, or said no.
    """
    _refuse_what_is_out_of_range(spec)
    differences = await _provision_topic(client, spec)
    for subscription in spec.subscriptions:
        differences += await _provision_subscription(client, spec.name, subscription)
    return differences


def _refuse_what_is_out_of_range(spec: TopicSpec) -> None:
    problems = []
    if not _WINDOW_S[0] <= spec.duplicate_window_s <= _WINDOW_S[1]:
        problems.append("the duplicate window is 20 seconds to 7 days")
    for subscription in spec.subscriptions:
        if not _LOCK_S[0] <= subscription.lock_duration_s <= _LOCK_S[1]:
            problems.append(f"{subscription.name}: a lock lasts 5 seconds to 5 minutes")
        if len(acknowledged_name(subscription.name)) > _MAX_NAME_LENGTH:
            longest = _MAX_NAME_LENGTH - len(_ACKNOWLEDGED)
            problems.append(f"{subscription.name}: a name has at most {longest} characters")
    if problems:
        raise BusRefused(f"on Service Bus {'; '.join(problems)}; nothing was changed")


async def _found(call: Callable[[], Awaitable[Found]]) -> Found | None:
    try:
        return await call()
    except ResourceNotFoundError:
        return None


async def _provision_topic(client: ServiceBusAdministrationClient, spec: TopicSpec) -> list[str]:
    window = timedelta(seconds=spec.duplicate_window_s)
    topic = await _found(lambda: client.get_topic(spec.name))
    if topic is None:
        await client.create_topic(
            spec.name,
            requires_duplicate_detection=True,
            duplicate_detection_history_time_window=window,
        )
        return []
    if not topic.requires_duplicate_detection:
        return [f"topic {spec.name}: duplicate detection is off, and must be on"]
    there = topic.duplicate_detection_history_time_window
    if there == window:
        return []
    topic.duplicate_detection_history_time_window = window
    try:
        await client.update_topic(topic)
    except HttpResponseError as exc:
        if exc.status_code != 400:
            raise
        return [f"topic {spec.name}: the duplicate window is {there}, and should be {window}"]
    return []


async def _provision_subscription(
    client: ServiceBusAdministrationClient, topic: str, spec: SubscriptionSpec
) -> list[str]:
    is_dead_lettered = spec.on_expiry is ExpiryAction.DEAD_LETTER
    wanted: dict[str, Any] = {
        "lock_duration": timedelta(seconds=spec.lock_duration_s),
        "max_delivery_count": spec.max_delivery_count,
        "default_message_time_to_live": (
            _FOR_EVER if spec.time_to_live_s is None else timedelta(seconds=spec.time_to_live_s)
        ),
        "dead_lettering_on_message_expiration": is_dead_lettered,
    }
    differences = await _put_subscription(client, topic, spec.name, wanted)
    name = spec.name
    await _put_rule(client, topic, name, f"NOT EXISTS({ONLY_FOR}) OR {ONLY_FOR} = '{name}'")
    if is_dead_lettered:
        companion = acknowledged_name(name)
        kept = {"default_message_time_to_live": _FOR_EVER, "max_delivery_count": 2_000}
        differences += await _put_subscription(client, topic, companion, kept)
        await _put_rule(client, topic, companion, f"{ONLY_FOR} = '{companion}'")
    return differences


async def _put_subscription(
    client: ServiceBusAdministrationClient, topic: str, name: str, wanted: dict[str, Any]
) -> list[str]:
    there = await _found(lambda: client.get_subscription(topic, name))
    if there is None:
        await client.create_subscription(topic, name, **wanted)
        return []
    if any(not _is_same(getattr(there, key), value) for key, value in wanted.items()):
        for key, value in wanted.items():
            setattr(there, key, value)
        await client.update_subscription(topic, there)
    if there.requires_session:
        return [f"subscription {name}: it has sessions, and must have none"]
    return []


def _is_same(there: object, wanted: object) -> bool:
    """Compare a setting; the service's longest time to live differs from Python's by a fraction."""
    if isinstance(there, timedelta) and isinstance(wanted, timedelta):
        return abs(there - wanted) < timedelta(seconds=1)
    return there == wanted


async def _put_rule(
    client: ServiceBusAdministrationClient, topic: str, subscription: str, expression: str
) -> None:
    """Let a subscription take what is for everyone, and what is for it alone."""
    there = await _found(lambda: client.get_rule(topic, subscription, _RULE))
    sql_filter = SqlRuleFilter(expression)
    if there is None:
        await client.create_rule(topic, subscription, _RULE, filter=sql_filter)
    elif getattr(there.filter, "sql_expression", None) != expression:
        there.filter = sql_filter
        await client.update_rule(topic, subscription, there)
