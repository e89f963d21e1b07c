"""Google's own client of an emulator: what an app writes with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from tests.support.mirrors import PROJECT


@contextlib.contextmanager
def googles_client(host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[firestore.Client]:
    """Lend a client of the tests' project; `host` is the emulator's host:port."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", host)
    opened = firestore.Client(project=PROJECT, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    yield opened
    opened.close()  # type: ignore[no-untyped-call]
