"""The gateway's parts, put together as the settings say."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from storemirror.clock import Clock
from storemirror.config.gateway_settings import GatewaySettings
from storemirror.errors import ConfigError
from storemirror.gateway.app import GatewayApp, serve
from storemirror.gateway.app_check import AppCheck
from storemirror.gateway.auth import Identity, identity_rules
from storemirror.gateway.callables import OPEN_CONVERSATION, SEND_MESSAGE
from storemirror.gateway.calls import CallLimits, Calls
from storemirror.gateway.cors import Origins
from storemirror.gateway.document_reader import DocumentFollowReader, DocumentMessagesReader
from storemirror.gateway.dual_write import DualWrite
from storemirror.gateway.flags import FixedFlags, FlagNames, TemplateFlags
from storemirror.gateway.follow import FollowService
from storemirror.gateway.handlers import GatewayHandlers, PageSizes, Readers
from storemirror.gateway.lag import LagWatch, OldestAge
from storemirror.gateway.latency import LatencyObserver
from storemirror.gateway.messages import DirectMessageService
from storemirror.gateway.mirroring import MirrorWriter
from storemirror.gateway.port import Cohort, CohortFlags, Feature, ReadMode
from storemirror.gateway.rate import Rate
from storemirror.gateway.remote_config import FetchedTemplates, FileTemplates
from storemirror.gateway.routing import Limits, ReadRouter
from storemirror.gateway.schema_watch import SchemaWatch, verify_mirror
from storemirror.gateway.shadow import ShadowReads
from storemirror.gateway.shown import ShownWrites
from storemirror.gateway.social import DirectMessages, FollowGraph
from storemirror.gateway.sql_reader import SqlFollowReader, SqlMessagesReader
from storemirror.sql.port import SqlMirror
from storemirror.wiring.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The gateway, open."""

    #: Answers calls, however HTTP is served.
    calls: Calls
    #: Counts and latencies, as values that JSON can carry.
    status: Callable[[], Mapping[str, object]]


def gateway_settings(parts: Parts) -> tuple[str, ...]:
    """Name the settings that the gateway needs, beside the project."""
    return (*parts.store_settings, *parts.bus_settings, "sql.dsn")


def check_gateway(parts: Parts) -> None:
    """
    See that the gateway could be opened, as far as that shows without opening anything.

    Raises:
        ConfigError: a setting is missing or wrong, or what the gateway serves is not declared.
    """
    parts.require(*gateway_settings(parts))
    _identity(parts)
    _flags(parts)
    DirectMessages.of(parts.model)
    FollowGraph.of(parts.model)


@contextlib.asynccontextmanager
async def opened_gateway(parts: Parts) -> AsyncIterator[Gateway]:
    """
    Lend the gateway.

    Raises:
        ConfigError: see `check_gateway`; nothing was opened.
    """
    check_gateway(parts)
    settings, clock = parts.settings.gateway, parts.clock
    store, mirror, reads = await parts.store(), await parts.mirror(), await parts.sql_reads()
    declared = DirectMessages.of(parts.model, mirror.limits)
    graph = FollowGraph.of(parts.model, mirror.limits)
    sql = Readers(messages=SqlMessagesReader(reads), follow=SqlFollowReader(reads))
    firestore = Readers(
        messages=DocumentMessagesReader(store, declared), follow=DocumentFollowReader(store, graph)
    )
    flags = _flags(parts)
    shadow = ShadowReads(settings.shadow_sample_rate, random.Random())  # noqa: S311 - a sample
    schema = SchemaWatch(lambda: verify_mirror(mirror), clock)
    lag = LagWatch(await _oldest_age(parts), clock)
    router = _router(parts, schema, lag, shadow)
    writes = DualWrite(store, _mirror_writer(parts, mirror, schema), flags)
    messages = DirectMessageService(store, declared, graph, writes, clock)
    handlers = GatewayHandlers(
        sql=sql,
        firestore=firestore,
        shown=ShownWrites(reads.version_of, sql.messages, parts.model, clock),
        item_of=messages.item_of,
        router=router,
        shadow=shadow,
        flags=flags,
        direct_messages=messages,
        follows=FollowService(declared, graph, writes, clock),
        page_sizes=PageSizes(default=settings.page_size, most=settings.page_max_size),
    )
    latency = LatencyObserver()
    calls = Calls(
        handlers,
        identity=_identity(parts),
        rate=_rate(settings, clock),
        origins=Origins(settings.allowed_origins),
        limits=_call_limits(settings),
        clock=clock,
        observer=latency,
    )

    def status() -> Mapping[str, object]:
        return {
            "latency": latency.tracker.snapshot(),
            "shadow": dict(shadow.counts),
            "fallbacks": dict(router.fallbacks),
        }

    try:
        yield Gateway(calls=calls, status=status)
    finally:
        for watch in (shadow, lag, schema):
            await watch.aclose()
        if isinstance(flags, TemplateFlags):
            await flags.aclose()


async def serve_gateway(
    parts: Parts, stop: asyncio.Event, *, on_listening: Callable[[int], None]
) -> Mapping[str, object]:
    """
    Answer callables until `stop` is set, and give what was counted.

    Raises:
        ConfigError: see `check_gateway`, or the address cannot be listened on.
    """
    settings = parts.settings.gateway
    async with opened_gateway(parts) as gateway:
        app = GatewayApp(gateway.calls, status=gateway.status)
        await serve(app, settings.host, settings.port, stop, on_listening=on_listening)
        return gateway.status()


async def _oldest_age(parts: Parts) -> OldestAge:
    """Give what tells the age of the oldest event that nobody has applied."""
    admin = await parts.bus_admin()

    async def oldest_age_s() -> float | None:
        # Not by its counts, which Service Bus tells to owners alone.
        return await admin.oldest_age_s(parts.subscription)

    return oldest_age_s


def _identity(parts: Parts) -> Identity:
    settings = parts.settings.gateway
    rules = identity_rules(
        project=parts.settings.text_of("firestore.project"),
        keys_url=settings.auth_keys_url,
        emulator_host=settings.auth_emulator_host,
        service_audience=settings.service_audience,
        service_accounts=settings.service_accounts,
        service_certs_url=settings.service_certs_url,
    )
    number = settings.app_check_project_number
    app_check = number and AppCheck(
        project_number=number, keys_url=settings.app_check_keys_url, clock=parts.clock
    )
    return Identity(rules, parts.clock, app_check=app_check or None)


def _flags(parts: Parts) -> CohortFlags:
    """Give who tells cohorts: a template, or the same for everybody."""
    settings, is_mirror_on = parts.settings.gateway, parts.settings.is_mirror_on
    if settings.template_file is None and not settings.fetch_template:
        return FixedFlags(
            Cohort(
                read_mode=ReadMode(settings.read_mode),
                is_dual_write_on=settings.dual_write and is_mirror_on,
            )
        )
    if settings.template_file is not None and settings.fetch_template:
        raise ConfigError(
            "gateway.template_file and gateway.fetch_template are both set: take one out"
        )
    return TemplateFlags(
        FetchedTemplates(parts.settings.text_of("firestore.project"))
        if settings.template_file is None
        else FileTemplates(settings.template_file),
        names={
            Feature.MESSAGING: FlagNames(
                read_mode=settings.messaging_read_mode_parameter,
                dual_write=settings.messaging_dual_write_parameter,
            ),
            Feature.FOLLOW: FlagNames(
                read_mode=settings.follow_read_mode_parameter,
                dual_write=settings.follow_dual_write_parameter,
            ),
        },
        is_mirror_on=is_mirror_on,
        refresh_s=settings.template_refresh_s,
        clock=parts.clock,
    )


def _rate(settings: GatewaySettings, clock: Clock) -> Rate:
    by_callable = {OPEN_CONVERSATION: settings.opens_per_minute}
    if settings.sends_per_minute is not None:
        by_callable[SEND_MESSAGE] = settings.sends_per_minute
    return Rate(
        settings.calls_per_minute,
        clock,
        service_calls_per_minute=settings.service_calls_per_minute,
        by_callable=by_callable,
    )


def _mirror_writer(parts: Parts, mirror: SqlMirror, schema: SchemaWatch) -> MirrorWriter:
    return MirrorWriter(
        mirror,
        schema,
        parts.model,
        source=parts.source,
        timeout_s=parts.settings.gateway.mirror_timeout_s,
        clock=parts.clock,
    )


def _router(parts: Parts, schema: SchemaWatch, lag: LagWatch, shadow: ShadowReads) -> ReadRouter:
    settings = parts.settings.gateway
    limits = Limits(
        sql_timeout_s=settings.sql_timeout_s,
        firestore_timeout_s=settings.firestore_timeout_s,
        max_lag_s=settings.max_lag_s or None,
        write_wait_s=settings.write_wait_s,
    )
    return ReadRouter(
        schema=schema, lag=lag, background=shadow.run, limits=limits, clock=parts.clock
    )


def _call_limits(settings: GatewaySettings) -> CallLimits:
    return CallLimits(
        body_max_bytes=settings.body_max_bytes,
        calls_max_count=settings.calls_max_count,
        user_calls_max_count=settings.user_calls_max_count,
        read_deadline_s=settings.read_deadline_s,
        write_deadline_s=settings.write_deadline_s,
    )
