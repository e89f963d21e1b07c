"""Faults for the rendered procedures: by name, the same ones in each dialect."""

from __future__ import annotations

from collections.abc import Mapping

#: Name -> what is replaced in the rendered procedures, and by what.
Faults = Mapping[str, tuple[str, str]]

POSTGRES: Faults = {
    "an equal version is applied twice": (
        "WHEN d.last_event_version < e._version THEN 'applied'",
        "WHEN d.last_event_version <= e._version THEN 'applied'",
    ),
    "an older version wins": (
        "WHEN d.last_event_version < e._version THEN 'applied'",
        "WHEN d.last_event_version <> e._version THEN 'applied'",
    ),
    "the oldest of a batch wins": (
        "ORDER BY a._version DESC, a._origin IN",
        "ORDER BY a._version, a._origin IN",
    ),
    "a dual write comes before an observation": (
        "a._origin IN ('dual-write', 'repair'), a._n",
        "a._origin NOT IN ('dual-write', 'repair'), a._n",
    ),
    "a tombstone is dropped": (
        'LEFT JOIN "storemirror"."dm_message" AS d\n                    ON d.',
        'LEFT JOIN "storemirror"."dm_message" AS d\n'
        "                    ON d.row_state <> 'tombstone' AND d.",
    ),
    "a tombstone keeps its contents": (
        '"body" = EXCLUDED."body"',
        '"body" = COALESCE(EXCLUDED."body", d."body")',
    ),
    "a count is added twice": ("+ c._delta", "+ 2 * c._delta"),
    "a deletion is not counted": (
        "sum(CASE WHEN p_is_deleted THEN 0 ELSE 1 END - k._was_live::integer)",
        "sum(CASE WHEN p_is_deleted OR k._was_live THEN 0 ELSE 1 END)",
    ),
    "a repair counts by delta": (
        "bool_or(k.outcome = 'repaired') AS _is_recounted",
        "false AS _is_recounted",
    ),
    "a stub is no row": (
        "WHEN d.row_state IS NULL OR d.row_state = 'stub' THEN",
        "WHEN d.row_state = 'stub' THEN 'stale' WHEN d.row_state IS NULL THEN",
    ),
    "a stub's aggregates are lost": (
        'lossy_fields = EXCLUDED.lossy_fields,\n            "title"',
        'lossy_fields = EXCLUDED.lossy_fields, message_count = 0,\n            "title"',
    ),
    "the audit is skipped": (
        "ON CONFLICT DO NOTHING;\n\n        -- Roll up",
        "ON CONFLICT DO NOTHING;\n"
        "        DELETE FROM storemirror.dm_message_audit WHERE p_is_deleted;\n\n"
        "        -- Roll up",
    ),
    "only what is applied is audited": (
        "last_event_type text, last_event_time timestamptz\n        )\n        ON CONFLICT",
        "last_event_type text, last_event_time timestamptz\n        )\n"
        "        WHERE 'stale' <> ALL (v_outcomes)\n        ON CONFLICT",
    ),
    "the latest is not looked up on a deletion": (
        "(c._delta <> 0 OR c._is_recounted",
        "NOT p_is_deleted AND (c._delta <> 0 OR c._is_recounted",
    ),
    "the latest may be a tombstone": (
        "AND m.row_state = 'live'\n            ORDER BY m.\"sent_at\" DESC",
        "AND m.row_state <> 'stub'\n            ORDER BY m.\"sent_at\" DESC NULLS LAST",
    ),
    "ties of the latest go to the lowest id": (
        'ORDER BY m."sent_at" DESC, m."message_id" DESC',
        'ORDER BY m."sent_at" DESC, m."message_id"',
    ),
    "the latest of an unchanged count is kept": (
        "\n                OR ROW(",
        "\n                AND ROW(",
    ),
    "child rows are not removed": (
        "WHERE e.outcome IN ('applied', 'repaired')\n            AND c.",
        "WHERE false\n            AND c.",
    ),
    "child rows are not changed": (
        '"last_read_at" = EXCLUDED."last_read_at"',
        '"last_read_at" = c."last_read_at"',
    ),
    "what waits for a round is forgotten": (
        "WHERE r.outcome IS NULL;",
        "WHERE r.outcome IS NULL AND false;",
    ),
    "an expired event is applied": (
        "CASE WHEN e.observed_at <= v_horizon THEN 'expired' ELSE 'applied' END",
        "'applied'",
    ),
}

SQLSERVER: Faults = {
    "an equal version is applied twice": (
        "WHEN d._Version < e.LastEventVersion THEN N'applied'",
        "WHEN d._Version <= e.LastEventVersion THEN N'applied'",
    ),
    "an older version wins": (
        "WHEN d._Version < e.LastEventVersion THEN N'applied'",
        "WHEN d._Version <> e.LastEventVersion THEN N'applied'",
    ),
    "the oldest of a batch wins": (
        "ORDER BY a.LastEventVersion DESC, CASE",
        "ORDER BY a.LastEventVersion, CASE",
    ),
    "a dual write comes before an observation": (
        "a.LastEventOrigin IN (N'dual-write', N'repair') THEN 1",
        "a.LastEventOrigin NOT IN (N'dual-write', N'repair') THEN 1",
    ),
    "a tombstone is dropped": (
        "d._State IS NULL OR d._State = N'stub' THEN",
        "d._State IS NULL OR d._State IN (N'stub', N'tombstone') THEN",
    ),
    "a tombstone keeps its contents": (
        "[Body] = e.[Body]",
        "[Body] = COALESCE(e.[Body], d.[Body])",
    ),
    "a count is added twice": ("+ c._Delta", "+ 2 * c._Delta"),
    "a deletion is not counted": (
        "SUM(CASE WHEN @IsDeleted = 1 THEN 0 ELSE 1 END - e._WasLive)",
        "SUM(CASE WHEN @IsDeleted = 1 OR e._WasLive = 1 THEN 0 ELSE 1 END)",
    ),
    "a repair counts by delta": (
        "MAX(CASE WHEN e._Outcome = N'repaired' THEN 1 ELSE 0 END) AS _IsRecounted",
        "0 AS _IsRecounted",
    ),
    "a stub is no row": (
        "WHEN d._State IS NULL OR d._State = N'stub' THEN",
        "WHEN d._State = N'stub' THEN N'stale' WHEN d._State IS NULL THEN",
    ),
    "a stub's aggregates are lost": (
        "[Title] = e.[Title],",
        "[Title] = e.[Title], [MessageCount] = 0,",
    ),
    "the audit is skipped": (
        "WHERE h.LastEventVersion IS NULL\n",
        "WHERE h.LastEventVersion IS NULL AND @IsDeleted = 0\n",
    ),
    "only what is applied is audited": (
        "FROM #Event AS e\n            GROUP BY e.[ConversationId], e.[MessageId]",
        "FROM #Event AS e WHERE e._Outcome = N'applied'\n"
        "            GROUP BY e.[ConversationId], e.[MessageId]",
    ),
    "the latest is not looked up on a deletion": (
        "END, l.[LastMessageId],",
        "END, CASE WHEN @IsDeleted = 1 THEN f.[LastMessageId] ELSE l.[LastMessageId] END,",
    ),
    "the latest may be a tombstone": (
        "WITH (INDEX ([IX_DmMessage_Latest]), FORCESEEK)\n"
        "            WHERE m.[ConversationId] = c.[ConversationId] AND m.RowState = N'live'",
        "\n            WHERE m.[ConversationId] = c.[ConversationId] AND m.RowState <> N'stub'",
    ),
    "ties of the latest go to the lowest id": (
        "ORDER BY m.[SentAt] DESC, m.[MessageId] DESC",
        "ORDER BY m.[SentAt] DESC, m.[MessageId]",
    ),
    "the latest of an unchanged count is kept": (
        "\n            OR (p.[LastMessage",
        "\n            AND (p.[LastMessage",
    ),
    "child rows are not removed": (
        "WHERE w._Winner IS NOT NULL AND x._Row IS NULL",
        "WHERE 1 = 0",
    ),
    "child rows are not changed": (
        "[LastReadAt] = x.[LastReadAt]",
        "[LastReadAt] = c.[LastReadAt]",
    ),
    "what waits for a round is forgotten": (
        "WHILE EXISTS (SELECT 1 FROM #Event AS e WHERE e._Outcome IS NULL)",
        "WHILE NOT EXISTS (SELECT 1 FROM #Event AS e WHERE e._Outcome IS NOT NULL)",
    ),
    "an expired event is applied": (
        "CASE WHEN e.ObservedAt <= @Horizon THEN N'expired' ELSE N'applied' END",
        "N'applied'",
    ),
}

#: Dialect -> its faults.
FAULTS = {"postgres": POSTGRES, "sqlserver": SQLSERVER}
