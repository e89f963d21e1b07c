"""
Azure Service Bus as far as the official SDK can tell: AMQP 1.0 and the management interface.

Topics with duplicate detection, subscriptions with filters, peek-lock, dead letters, browsing,
renewal, rights; and faults on request.  In memory, one loop; its clock can be put forward.
What the real service does beyond that (sessions, scheduling, deferral, quotas) is not here.
"""

from tests.standins.servicebus.standin import StandIn, running_standin

__all__ = ["StandIn", "running_standin"]
