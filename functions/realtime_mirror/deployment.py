"""What all functions are deployed with: place, size, and the secrets that each needs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from firebase_functions.params import SecretParam

from storemirror.config import Settings, settings_reference


def options_of(settings: Settings, *, needed: Sequence[str]) -> dict[str, Any]:
    """
    Give the options that functions have in common.

    Args:
        settings: where and how they run.
        needed: settings without which the function cannot work, as in "bus.dsn"; those that are
            secrets are bound to it.
    """
    functions = settings.functions
    return {
        "region": functions.region,
        "memory": functions.memory_mb,
        "vpc_connector": functions.vpc_connector,
        "service_account": functions.service_account,
        "secrets": [
            secret_param(doc.variable, doc.what)
            for doc in settings_reference()
            if doc.is_secret and doc.name in needed
        ],
    }


@functools.cache
def secret_param(variable: str, what: str) -> SecretParam:
    """Declare a secret, once: the SDK loads `main.py` each time it is asked, and refuses two."""
    return SecretParam(variable, description=what)
