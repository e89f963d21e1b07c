"""
The settings of the functions.

They come from `storemirror.toml` in the folder that is deployed, and from the environment, which
Firebase makes of `.env` files and secrets.

Read twice: by `firebase deploy` on the developer's machine, to learn what there is to deploy, when
there is no secret yet; and by every instance when it starts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from storemirror.config import Settings, load_settings
from storemirror.config.load import DEFAULT_FILE, FILE_VARIABLE

_FOLDER: Final = Path(__file__).parents[1]
#: Variables in which Firebase and Google's runtime name the project that the functions are of.
_PROJECT_VARIABLES: Final = ("GCLOUD_PROJECT", "GOOGLE_CLOUD_PROJECT")


@functools.cache
def load() -> Settings:
    """Give the settings; ConfigError lists all that is wrong, and nothing is deployed."""
    return settings_of(os.environ, _FOLDER)


def settings_of(environ: Mapping[str, str], folder: Path) -> Settings:
    """
    Give the settings of a deployment.

    The documents are Firestore's, and the project is the one in which the functions run, unless
    the environment names another one: what triggers here is of no other.

    Args:
        environ: environment variables.
        folder: where `storemirror.toml` may be.
    """
    given = {name: value for name, value in environ.items() if value.strip()}
    projects = [given[name] for name in _PROJECT_VARIABLES if name in given]
    if projects:
        given.setdefault("STOREMIRROR_FIRESTORE_PROJECT", projects[0])
    given["STOREMIRROR_DOCUMENTS_KIND"] = "firestore"
    file = folder / DEFAULT_FILE
    is_taken = file.is_file() and FILE_VARIABLE not in given
    return load_settings(file if is_taken else None, given)
