"""The table of callables is a contract: the names, what each takes, and who may call."""

from __future__ import annotations

import inspect

import msgspec

from storemirror.gateway.callables import CALLABLES, CallKind, Handlers
from storemirror.gateway.wire import Request, Result

#: By these names every installed app calls.
NAMES = {
    "sqlGatewayDmListConversations",
    "sqlGatewayDmListMessages",
    "sqlGatewayDmOpenConversation",
    "sqlGatewayDmSend",
    "sqlGatewayDmEdit",
    "sqlGatewayDmDelete",
    "sqlGatewayDmMarkRead",
    "sqlGatewayFollowGetRelationship",
    "sqlGatewayFollowEdgeUpsert",
    "sqlGatewayFollowEdgeDelete",
    "sqlGatewayBlockUpsert",
    "sqlGatewayBlockDelete",
}


class Named:
    """Stands in for handlers where only the choice of the method is looked at."""

    def __getattr__(self, name: str) -> str:
        return name


def test_the_names_are_those_that_apps_call() -> None:
    """A renamed callable is NOT_FOUND in every app that is installed."""
    assert set(CALLABLES) == NAMES


def test_every_handler_answers_one_callable() -> None:
    """Two callables with one handler would be a slip of the pen."""
    methods = {name for name, _ in inspect.getmembers(Handlers, inspect.isfunction)}
    answering = [spec.answering(Named()) for spec in CALLABLES.values()]  # type: ignore[arg-type]
    assert sorted(map(str, answering)) == sorted(name for name in methods if name[0] != "_")


def test_services_may_only_ask_for_relationships() -> None:
    """They act for nobody: what a user may do is for users."""
    open_to_services = [name for name, spec in CALLABLES.items() if spec.takes_services]
    assert open_to_services == ["sqlGatewayFollowGetRelationship"]


def test_reads_say_where_from_and_writes_give_a_token() -> None:
    """Whatever is added keeps to it."""
    for spec in CALLABLES.values():
        fields = set(spec.result.__struct_encode_fields__)
        is_read = spec.kind is CallKind.READ
        assert fields >= ({"source", "asOf"} if is_read else {"mirrored", "token"}), spec.name
        assert ("after" in spec.request.__struct_encode_fields__) is is_read, spec.name


def test_requests_are_strict_and_answers_are_not() -> None:
    """A client sends what we know; a later gateway may say more than a client knows."""
    for spec in CALLABLES.values():
        assert issubclass(spec.request, Request)
        assert issubclass(spec.result, Result)
        assert spec.request.__struct_config__.forbid_unknown_fields, spec.name
        assert not spec.result.__struct_config__.forbid_unknown_fields, spec.name
        assert msgspec.json.schema(spec.request)
        assert msgspec.json.schema(spec.result)
