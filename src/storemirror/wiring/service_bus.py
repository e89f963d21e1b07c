"""Azure Service Bus, as the settings name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storemirror.config.settings import BusSettings
from storemirror.errors import ConfigError

if TYPE_CHECKING:
    from storemirror.bus.servicebus import ServiceBus


def open_service_bus(bus: BusSettings) -> ServiceBus:
    """
    Make the bus on Service Bus; nothing is opened before its first call.

    Raises:
        ConfigError: Azure's client is not installed, or the settings name two ways to sign in.
    """
    try:
        from storemirror.bus import servicebus  # noqa: PLC0415 - an extra, not always there
    except ImportError as exc:
        raise ConfigError(
            "bus.kind is servicebus, and Azure's client is not installed: "
            "pip install -e '.[servicebus]' in the checkout"
        ) from exc
    if bus.connection_string is not None and bus.namespace is not None:
        raise ConfigError(
            "bus.connection_string (SERVICEBUS_CONNECTION_STRING) and bus.namespace "
            "(SERVICEBUS_NAMESPACE) are both set: take one out; with bus.namespace Azure's "
            "identity is used"
        )
    return servicebus.ServiceBus(
        servicebus.ServiceBusAddress(
            connection_string=(
                None if bus.connection_string is None else bus.connection_string.get_secret_value()
            ),
            namespace=bus.namespace,
            emulator_management=bus.emulator_management,
        )
    )
