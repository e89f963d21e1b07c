"""What Azure's libraries raise, as errors of ours that a person understands."""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    ServiceBusServerBusyError,
)

from storemirror.errors import BusRefused, BusUnavailable, MessageRefused

#: What of an answer of the management interface is for people.
_DETAIL: Final = re.compile(r"<Detail>(.*?)</Detail>", re.DOTALL)


class Role(enum.StrEnum):
    """The least role that an operation needs, as Azure names it, and its claim."""

    SEND = "Azure Service Bus Data Sender (in a shared access policy: Send)"
    LISTEN = "Azure Service Bus Data Receiver (in a shared access policy: Listen)"
    MANAGE = "Azure Service Bus Data Owner (in a shared access policy: Manage)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is being done, for the words of an error."""

    #: "publish to the topic 'realtime-mirror'".
    what: str
    #: Host name of the namespace.
    namespace: str
    role: Role


@contextlib.contextmanager
def translated_errors(operation: Operation) -> Iterator[None]:
    """Turn Azure's errors into ours.  The original stays as `__cause__`."""
    try:
        yield
    except (AzureError, OSError) as exc:
        raise translated(exc, operation) from exc


def translated(exc: Exception, operation: Operation) -> BusRefused | BusUnavailable:
    """Give our error for one of Azure's."""
    cannot = f"cannot {operation.what} in {operation.namespace}"
    refusal = _refusal(exc, operation)
    if refusal is not None:
        refused = MessageRefused if isinstance(exc, MessageSizeExceededError) else BusRefused
        # The SDK's words for an entity that is not there call the topic a subscription.
        words = "" if isinstance(exc, ResourceNotFoundError) else f" ({described(exc)})"
        return refused(f"{cannot}: {refusal}{words}")
    if isinstance(exc, ServiceBusServerBusyError):
        trouble = "Service Bus is busy; where that lasts, the namespace's tier is too small"
    else:
        trouble = "Service Bus did not answer"
    return BusUnavailable(f"{cannot}: {trouble} ({described(exc)})")


def _refusal(exc: Exception, operation: Operation) -> str | None:
    """Say what must be mended; None when waiting may help."""
    status = exc.status_code if isinstance(exc, HttpResponseError) else None
    no_right = f"the identity has no right to it; the least role is {operation.role}"
    match exc:
        case MessageSizeExceededError():
            return (
                "the message is larger than the namespace's tier takes: 256 KB on Standard, more "
                "on Premium"
            )
        case MessagingEntityNotFoundError() | ResourceNotFoundError():
            return "there is no such topic or subscription: run `storemirror bus provision` first"
        case MessagingEntityDisabledError():
            return "it is disabled: enable it in the Azure portal"
        case ServiceBusQuotaExceededError():
            return (
                "the quota is used up: let the writer drain the topic, or raise its size or the "
                "namespace's tier"
            )
        case ServiceBusAuthorizationError():
            return no_right
        case ClientAuthenticationError() if status is None:
            return (
                "no identity of Azure's was found here: give the machine a managed one, set the "
                "variables of a federated one, or run `az login`"
            )
    if status == 403 or (status == 401 and "claim" in str(exc)):
        return no_right
    if status == 401 or isinstance(exc, ServiceBusAuthenticationError):
        return (
            "the namespace did not accept the credential: see that key or identity are this "
            f"namespace's, not replaced since, and that it has the role {operation.role}"
        )
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return "the namespace refused it"
    return None


def described(exc: Exception) -> str:
    r"""
    Give the words of an error on one line, without what is for machines.

    >>> described(ValueError("no\nsuch host"))
    'ValueError: no such host'
    >>> described(ValueError("status <Error><Code>401</Code><Detail>no such key</Detail></Error>"))
    'ValueError: no such key'
    """
    words = str(exc.message if isinstance(exc, ServiceBusError) else exc)
    detail = _DETAIL.search(words)
    said = words if detail is None else detail[1]
    return f"{type(exc).__name__}: {' '.join(said.split())}"[:500]
