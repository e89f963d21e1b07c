"""
Remote Config's server templates, evaluated by Firebase's own SDK.

So percentages and conditions mean what they mean in Firebase's console, and a caller is in the same
percentile as every other server of the team finds it in.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import itertools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import firebase_admin
from firebase_admin import credentials, exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError

from storemirror.errors import SourceUnavailable
from storemirror.gateway.flags import Evaluated, Signal

#: Most bytes of a template file; Firebase takes templates of 1,000,000 characters.
TEMPLATE_MAX_BYTES: Final = 4_000_000

# What the SDK's evaluation raises where a template is not shaped as it should be.
_BROKEN: Final = (AttributeError, TypeError, ValueError, LookupError, RecursionError, re.error)
_NUMBERS = itertools.count(1)


class RemoteTemplate:
    """A template in the SDK's hands."""

    def __init__(self, template: Any) -> None:
        """
        Take it, and evaluate it once.

        Raises:
            ValueError: it is broken.
        """
        self._template = template
        self.evaluate("", {})

    def evaluate(self, uid: str, signals: Mapping[str, Signal]) -> Evaluated:
        """See `Template.evaluate`."""
        # A claim of the same name must not choose somebody's percentile.
        context = {**signals, "randomization_id": uid}
        try:
            return _Values(self._template.evaluate(context))
        except _BROKEN as exc:
            raise ValueError(
                f"the template cannot be evaluated: {type(exc).__name__}: {exc}"
            ) from exc


class _Values:
    """A template's values for one caller."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def text(self, key: str) -> str:
        """See `Evaluated.text`."""
        return str(self._config.get_string(key) or "")

    def is_on(self, key: str) -> bool:
        """See `Evaluated.is_on`."""
        return bool(self._config.get_boolean(key))


class FileTemplates:
    """Reads the template from a file, as Firebase's console or its command line exports it."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._app = _app_of_nobody()

    async def read(self) -> RemoteTemplate:
        """See `TemplateReader.read`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> RemoteTemplate:
        try:
            if self._path.stat().st_size > TEMPLATE_MAX_BYTES:
                raise ValueError(f"{self._path} has more than {TEMPLATE_MAX_BYTES} bytes")
            content = self._path.read_bytes()
        except OSError as exc:
            raise SourceUnavailable(f"{self._path}: {exc.strerror}") from exc
        try:
            template = remote_config().init_server_template(
                app=self._app, template_data_json=content.decode()
            )
        except _BROKEN as exc:
            raise ValueError(f"{self._path} is no template of Remote Config: {exc}") from exc
        return RemoteTemplate(template)


class FetchedTemplates:
    """Fetches the template from Firebase, with Google's application default credentials."""

    def __init__(self, project: str) -> None:
        """
        Fetch nothing yet.

        Args:
            project: the Firebase project's id.
        """
        self._project = project
        self._app: Any = None

    async def read(self) -> RemoteTemplate:
        """See `TemplateReader.read`."""
        if self._app is None:
            # Not before it is needed: the SDK keeps every app that was ever made.
            self._app = _app(credentials.ApplicationDefault(), project=self._project)
        try:
            # In a thread: the first time it looks for credentials, and may ask Google's machine.
            template = await asyncio.to_thread(remote_config().init_server_template, app=self._app)
            await template.load()
        except (exceptions.FirebaseError, GoogleAuthError) as exc:
            raise SourceUnavailable(f"Remote Config: {exc}") from exc
        except _BROKEN as exc:
            raise ValueError(f"Remote Config gave no template: {exc}") from exc
        return RemoteTemplate(template)


class _Anonymous(credentials.Base):  # type: ignore[misc]
    """No credential: a file is evaluated without a word to Firebase."""

    def get_credential(self) -> Any:
        """Give Google's credential of nobody."""
        return AnonymousCredentials()  # type: ignore[no-untyped-call]


def _app(credential: Any, *, project: str | None) -> Any:
    """Make an app of the SDK, by a name of its own: others in the process may have theirs."""
    options = {} if project is None else {"projectId": project}
    return firebase_admin.initialize_app(credential, options, name=f"storemirror-{next(_NUMBERS)}")


@functools.cache
def _app_of_nobody() -> Any:
    """Give the app that files are evaluated with."""
    return _app(_Anonymous(), project=None)


@functools.cache
def remote_config() -> Any:
    """Give the SDK's module, which would switch on the root logger when it is loaded."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    module = importlib.import_module("firebase_admin.remote_config")
    root.handlers[:] = handlers
    root.setLevel(level)
    # It warns of every caller to whom a condition does not apply.
    logging.getLogger(module.__name__).setLevel(logging.ERROR)
    return module
