"""
The trigger functions: one for each declared entity, all alike.

What is deployed is described by the SDK's own decorator; what is called takes the raw request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import functions_framework
from firebase_functions import firestore_fn
from flask import Request
from flask.typing import ResponseReturnValue

from realtime_mirror.deployment import options_of
from realtime_mirror.publisher import PUBLISHER
from realtime_mirror.settings import load
from storemirror.config import Settings
from storemirror.source.triggers import Trigger, triggers_of
from storemirror.wiring import Parts

TriggerFunction = Callable[[Request], ResponseReturnValue]


def trigger_functions() -> Mapping[str, TriggerFunction]:
    """Give every trigger function, by the name under which it is deployed."""
    parts = Parts(load())
    return {
        name: _function(trigger, parts.settings, needed=parts.publishing_settings)
        for name, trigger in triggers_of(parts.model).items()
    }


def _function(trigger: Trigger, settings: Settings, *, needed: tuple[str, ...]) -> TriggerFunction:
    """Make one entity's function, with what `firebase deploy` reads of it."""

    def take(request: Request) -> ResponseReturnValue:
        return PUBLISHER.answer(request)

    # The framework knows a function's kind by its name; for Cloud Run it is an HTTP server.
    take.__name__ = take.__qualname__ = trigger.name
    function: Any = functions_framework.http(take)
    function.__firebase_endpoint__ = _endpoint(trigger, settings, needed=needed)
    named: TriggerFunction = function
    return named


def _endpoint(trigger: Trigger, settings: Settings, *, needed: tuple[str, ...]) -> Any:
    """Describe one function for `firebase deploy`: a document was written, repeated on failure."""

    def described(_: object) -> None:
        """Lend the decorator a name; never called."""

    described.__name__ = trigger.name
    decorated: Any = firestore_fn.on_document_written(
        document=trigger.entity.pattern,
        database=settings.firestore.database,
        concurrency=settings.functions.concurrency,
        min_instances=settings.functions.min_instances,
        max_instances=settings.functions.max_instances,
        **options_of(settings, needed=needed),
    )(described)
    endpoint = decorated.__firebase_endpoint__
    # The SDK has no option for it, and without it one outage of the bus loses events.
    return dataclasses.replace(endpoint, eventTrigger={**endpoint.eventTrigger, "retry": True})
