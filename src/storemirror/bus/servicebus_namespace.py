"""Where the bus is, who we are there, and the clients for it.  See `storemirror.bus.servicebus`."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Any, Final

from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import DefaultAzureCredential
from azure.servicebus import parse_connection_string
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from storemirror.bus.servicebus_errors import Operation, Role
from storemirror.errors import ConfigError

#: One further try of requests for entities; whoever calls us has a backoff of its own.
_HTTP_RETRIES: Final[dict[str, Any]] = {"retry_total": 1, "retry_backoff_factor": 0.1}
_ENDPOINT: Final = re.compile(r"(?i)(^|;)\s*endpoint=[^;]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBusAddress:
    """A namespace, and how to prove who we are: a connection string, or an identity of Azure's."""

    #: A secret.
    connection_string: str | None = field(default=None, repr=False)
    #: "contoso.servicebus.windows.net"; with Azure's identity.
    namespace: str | None = None
    #: host:port of an emulator's management interface; None in production.
    emulator_management: str | None = None


class Namespace:
    """Makes clients for one namespace; nothing is opened before they are used."""

    def __init__(self, address: ServiceBusAddress) -> None:
        """
        Check the address.

        Raises:
            ConfigError: it is no connection string, or neither is given.
        """
        # The SDK logs, with traceback, each error that it raises; we raise it translated.
        for library in ("azure.servicebus", "azure.identity"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self._address = address
        self._credential: DefaultAzureCredential | None = None
        if address.connection_string is None and address.namespace is None:
            raise ConfigError(
                "set SERVICEBUS_CONNECTION_STRING, or bus.namespace for Azure's identity"
            )
        self.host, self._only_topic = _host_and_entity_of(address)

    def refuse_other_topic(self, topic: str) -> None:
        """
        See that the connection string is not another topic's.

        Raises:
            ConfigError: it is; the SDK would say so in words of its own, at the first use.
        """
        if self._only_topic not in (None, topic):
            raise ConfigError(
                f"SERVICEBUS_CONNECTION_STRING is for {self._only_topic!r} alone (EntityPath), and "
                f"the topic is {topic!r}: copy it from a policy of the namespace, or set "
                "SERVICEBUS_TOPIC_REALTIME_MIRROR"
            )

    def operation(self, what: str, role: Role) -> Operation:
        """Name what is about to be done, for the words of an error."""
        return Operation(what=what, namespace=self.host, role=role)

    def client(self) -> ServiceBusClient:
        """Make a client for senders and receivers.

        It does not retry: it would open another connection behind our back, and leave the socket
        of the first one open.
        """
        if self._address.connection_string is not None:
            return ServiceBusClient.from_connection_string(
                self._address.connection_string, retry_total=0
            )
        return ServiceBusClient(self.host, self._identity(), retry_total=0)

    def administration_client(self) -> ServiceBusAdministrationClient:
        """Make a client for entities and their counts."""
        text = self._address.connection_string
        if text is None:
            return ServiceBusAdministrationClient(self.host, self._identity(), **_HTTP_RETRIES)
        emulator = self._address.emulator_management
        if emulator is None:
            return ServiceBusAdministrationClient.from_connection_string(text, **_HTTP_RETRIES)
        return ServiceBusAdministrationClient.from_connection_string(
            _ENDPOINT.sub(rf"\1Endpoint=sb://{emulator}", text),
            transport=PlainHttpTransport(),
            **_HTTP_RETRIES,
        )

    def _identity(self) -> DefaultAzureCredential:
        """Give Azure's identity: managed, federated with a workload, or a developer's own."""
        if self._credential is None:
            self._credential = DefaultAzureCredential()
        return self._credential

    async def aclose(self) -> None:
        """Let go of the identity."""
        if self._credential is not None:
            await self._credential.close()
            self._credential = None


class PlainHttpTransport(AioHttpTransport):  # type: ignore[misc]
    """Speaks HTTP without TLS, which an emulator has not: the SDK writes `https` everywhere."""

    async def send(self, request: Any, **config: Any) -> Any:
        """See `AsyncHttpTransport.send`."""
        request.url = request.url.replace("https://", "http://", 1)
        return await super().send(request, **config)


def _host_and_entity_of(address: ServiceBusAddress) -> tuple[str, str | None]:
    """Give the namespace's host name, and the one entity that a connection string is for."""
    if address.connection_string is None:
        assert address.namespace is not None
        return address.namespace.removeprefix("sb://").strip("/"), None
    try:
        parsed = parse_connection_string(address.connection_string)
    except ValueError as exc:
        # The SDK's words quote nothing of the string, which is a secret.
        raise ConfigError(
            f"SERVICEBUS_CONNECTION_STRING is no connection string: {exc}  Copy it whole from the "
            "namespace's shared access policies: Endpoint=sb://...;SharedAccessKeyName=...;"
            "SharedAccessKey=..."
        ) from None
    return str(parsed.fully_qualified_namespace), parsed.entity_path
