"""
Which web apps may call: cross-origin resource sharing, closed unless origins are named.

Written here and not by a framework's middleware, since the callables are served in two ways, and
must answer a browser alike.  Tokens travel in a header that no browser adds by itself, so no
credentials are shared.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from storemirror.gateway.protocol import Answer

#: Stands for every origin.
ANY: Final = "*"
#: How long a browser may keep what it was told.
PREFLIGHT_MAX_AGE_S: Final = 3_600

_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9, -]{1,1024}")


class Origins:
    """The origins whose web apps may call."""

    def __init__(self, allowed: Collection[str]) -> None:
        """
        Take the origins.

        Args:
            allowed: as in "https://app.example.com"; `ANY` among them allows all; empty: none.
        """
        self._allowed = frozenset(allowed)

    def headers_for(self, origin: str) -> Mapping[str, str]:
        """
        Give what every answer to this origin carries.

        Args:
            origin: the request's header; empty when there is none.

        >>> Origins(["https://a.example"]).headers_for("https://a.example")
        {'vary': 'origin', 'access-control-allow-origin': 'https://a.example'}
        >>> Origins(["https://a.example"]).headers_for("https://b.example")
        {'vary': 'origin'}
        >>> Origins([]).headers_for("https://a.example")
        {}
        """
        if not self._allowed:
            return {}
        if ANY in self._allowed:
            return {"access-control-allow-origin": ANY}
        if origin not in self._allowed:
            return {"vary": "origin"}
        return {"vary": "origin", "access-control-allow-origin": origin}

    def preflight(self, headers: Mapping[str, str]) -> Answer:
        """
        Answer what a browser asks before it calls: POST is allowed, with the headers it names.

        Args:
            headers: of the request, names in lower case.
        """
        shared = dict(self.headers_for(headers.get("origin", "")))
        if "access-control-allow-origin" in shared:
            named = headers.get("access-control-request-headers", "")
            shared["access-control-allow-methods"] = "POST"
            shared["access-control-max-age"] = str(PREFLIGHT_MAX_AGE_S)
            if _HEADER_NAMES.fullmatch(named):
                shared["access-control-allow-headers"] = named
        return Answer(status=204, headers=shared)
