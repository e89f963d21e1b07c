-- The whole deployment, for `psql`:
--
--     psql -v ON_ERROR_STOP=1 -v project=my-project -v database='(default)' -f deploy_realtime_mirror.sql
--
-- It is one transaction, but for an index that is to take the place of one: that is built before,
-- beside it.  `storemirror schema apply` does the same through the driver.  Idempotent; no table is
-- dropped.  Rendered from the declarations by `storemirror schema render`; do not edit.

-- Two deployments at once would meet in the catalogue, and one would fail.  Not waited for: an index
-- that the other one builds would wait for whoever does, and so both for each other.
DO $do$
BEGIN
    IF NOT pg_try_advisory_lock(1493801829) THEN
        RAISE EXCEPTION 'another deployment into this schema is under way; nothing was changed'
            USING HINT = 'Run this again once it has ended.', ERRCODE = 'lock_not_available';
    END IF;
END;
$do$;

-- For older transactions to end: of this wait nobody notices anything, and giving up costs the build.
SET lock_timeout = 3600000;
-- What builds, beside an index of other columns, the one that takes its place: a statement a row.
-- Each runs by itself, outside a transaction, and locks no reader and no writer out.  What a build
-- that failed has left (it is not valid) goes first; what somebody has built already stays.
SELECT s.statement
FROM (
    SELECT
        ARRAY(
            SELECT CASE WHEN k.place > x.indnkeyatts THEN '+' ELSE '' END || a.attname
            FROM pg_index AS x
            CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
            WHERE x.indrelid = to_regclass('"storemirror"."dm_message"')
                AND x.indexrelid = to_regclass('"storemirror"."dm_message_latest"')
            ORDER BY k.place
        ) AS now,
        ARRAY(
            SELECT CASE WHEN k.place > x.indnkeyatts THEN '+' ELSE '' END || a.attname
            FROM pg_index AS x
            CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
            WHERE x.indrelid = to_regclass('"storemirror"."dm_message"')
                AND x.indexrelid = to_regclass('"storemirror"."dm_message_latest_next"') AND x.indisvalid AND x.indpred IS NOT NULL
            ORDER BY k.place
        ) AS next,
        '{"conversation_id","sent_at","message_id","+sender_id"}'::text[] AS wanted
) AS i
CROSS JOIN LATERAL (VALUES
    ($sql$DROP INDEX CONCURRENTLY IF EXISTS "storemirror"."dm_message_latest_next"$sql$,
        to_regclass('"storemirror"."dm_message_latest_next"') IS NOT NULL),
    ($sql$CREATE INDEX CONCURRENTLY "dm_message_latest_next" ON "storemirror"."dm_message" ("conversation_id", "sent_at" DESC, "message_id" DESC) INCLUDE ("sender_id") WHERE row_state = 'live'$sql$, true)
) AS s (statement, is_needed)
WHERE s.is_needed AND i.now NOT IN ('{}', i.wanted) AND i.next <> i.wanted
    -- While a column is still to come, the index is made after it.
    AND NOT EXISTS (
        SELECT 1 FROM unnest(i.wanted) AS w (name)
        WHERE NOT EXISTS (
            SELECT 1 FROM pg_attribute AS a
            WHERE a.attrelid = to_regclass('"storemirror"."dm_message"') AND a.attname = ltrim(w.name, '+') AND NOT a.attisdropped
        )
    )
\gexec
RESET lock_timeout;

BEGIN;
SET LOCAL client_min_messages = warning;
-- Whoever waits for a table has everybody queue behind it who comes later.
SET LOCAL lock_timeout = 2000;
DO $do$
DECLARE
    v_tables text;
    v_holders text;
BEGIN
    FOR v_try IN 1 .. 10 LOOP
        BEGIN
            -- Writers hold it shared: without it they and the tables' locks could deadlock.
            PERFORM pg_advisory_xact_lock(2686687166);
            SELECT string_agg(t.name, ', ' ORDER BY t.place) INTO v_tables
            FROM unnest(ARRAY['"storemirror"."dm_conversation"', '"storemirror"."dm_participant"', '"storemirror"."dm_message"', '"storemirror"."dm_message_audit"', '"storemirror"."follow_edge"', '"storemirror"."user_block"']::text[]) WITH ORDINALITY AS t (name, place)
            WHERE to_regclass(t.name) IS NOT NULL;
            IF v_tables IS NOT NULL THEN
                EXECUTE 'LOCK TABLE ' || v_tables || ' IN ACCESS EXCLUSIVE MODE';
            END IF;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF v_try = 10 THEN
                SELECT string_agg(format('session %s (%s)', h.pid, h.name), ', ') INTO v_holders FROM (
                    SELECT a.pid, COALESCE(NULLIF(a.application_name, ''), a.backend_type, '') AS name
                    FROM pg_stat_activity AS a
                    WHERE a.pid <> pg_backend_pid()
                        AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - 2000 * interval '1 ms')
                        AND EXISTS (
                            SELECT 1 FROM pg_locks AS l
                            LEFT JOIN pg_class AS c ON c.oid = l.relation AND l.locktype = 'relation'
                            LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
                            WHERE l.pid = a.pid AND l.granted
                                AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
                                AND (n.nspname = 'storemirror' OR (l.locktype = 'advisory' AND l.objsubid = 1
                                    AND (l.classid::bigint << 32) + l.objid::bigint = 2686687166))
                        )
                    ORDER BY a.xact_start NULLS LAST, a.pid
                    LIMIT 5
                ) AS h;
                RAISE EXCEPTION 'the schema is in use: a lock was not given in 2000 ms, at 10 tries; %; nothing was changed',
                    COALESCE('it is in the hands of ' || v_holders, 'whoever had it has let go by now')
                    USING HINT = 'Let the sessions named above end (a dump, a report, a transaction left open), or end them, then run this again.',
                        ERRCODE = 'lock_not_available';
            END IF;
        END;
        -- What has queued behind it passes.
        PERFORM pg_sleep(4.0);
    END LOOP;
END;
$do$;

-- Indexes that an earlier release made of other columns: the one that was built beside it takes its
-- name.
DO $do$
DECLARE
    v_wanted CONSTANT text[] := '{"conversation_id","sent_at","message_id","+sender_id"}'::text[];
    v_found CONSTANT text[] := ARRAY(
        SELECT CASE WHEN k.place > x.indnkeyatts THEN '+' ELSE '' END || a.attname
        FROM pg_index AS x
        CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
        WHERE x.indrelid = to_regclass('"storemirror"."dm_message"')
            AND x.indexrelid = to_regclass('"storemirror"."dm_message_latest"')
        ORDER BY k.place
    );
BEGIN
    IF v_found NOT IN ('{}', v_wanted)
        AND ARRAY(
        SELECT CASE WHEN k.place > x.indnkeyatts THEN '+' ELSE '' END || a.attname
        FROM pg_index AS x
        CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
        WHERE x.indrelid = to_regclass('"storemirror"."dm_message"')
            AND x.indexrelid = to_regclass('"storemirror"."dm_message_latest_next"') AND x.indisvalid AND x.indpred IS NOT NULL
        ORDER BY k.place
    ) = v_wanted
    THEN
        DROP INDEX "storemirror"."dm_message_latest";
        ALTER INDEX "storemirror"."dm_message_latest_next" RENAME TO "dm_message_latest";
    END IF;
END;
$do$;

-- Tables of the mirror.  Idempotent: what is there stays, what is missing is added; no table and
-- no column is ever dropped.  Rendered from the declarations by `storemirror schema render`; do not edit.

-- IF NOT EXISTS would ask for the right to make one where an administrator has made it.
DO $do$
BEGIN
    IF to_regnamespace('"storemirror"') IS NULL THEN
        CREATE SCHEMA "storemirror";
    END IF;
END;
$do$;

-- One row: which Firestore this schema mirrors, and the version of what is installed.
CREATE TABLE IF NOT EXISTS "storemirror".schema_info (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    schema_version integer NOT NULL,
    project text NOT NULL,
    database text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every declaration that was ever installed; the newest revision of an entity is in force.
CREATE TABLE IF NOT EXISTS "storemirror".declaration (
    entity text NOT NULL,
    mapping_revision integer NOT NULL,
    digest text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (entity, mapping_revision)
);

-- Per entity: whatever was observed at or before this moment may be about a tombstone that is gone.
CREATE TABLE IF NOT EXISTS "storemirror".purge_horizon (
    entity text PRIMARY KEY,
    horizon_at timestamptz NOT NULL
);

-- One row a dead letter that a person removed: nobody has shown since that its document is right.
-- One row as well a conversation of which an event was set aside ('unfit:' and its id): users' reads
-- leave it out while its row is older.
-- path, entity, key and version as far as the dead letter told them; gone once a check or a newer
-- event has shown it.
CREATE TABLE IF NOT EXISTS "storemirror".unverified_document (
    message_id text COLLATE "C" PRIMARY KEY,
    reason text NOT NULL,
    path text,
    entity text,
    key text[],
    version bigint,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row, once commit times went backwards (a restore): the rebase under way, or the last one.
-- Whatever was observed at or before the mark is asked about again, row present or not; the mark
-- is by the clock of the document store.  See `RebaseStep` in sql/port.py for the steps.
CREATE TABLE IF NOT EXISTS "storemirror".rebase (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    run text NOT NULL,
    step text NOT NULL CHECK (step IN ('closed', 'purged', 'marked', 'opened', 'refilled', 'done')),
    is_closed boolean NOT NULL GENERATED ALWAYS AS (step IN ('closed', 'purged', 'marked')) STORED,
    mark_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- DmConversation: conversations/{conversationId}
CREATE TABLE IF NOT EXISTS "storemirror"."dm_conversation" (
    "conversation_id" text COLLATE "C" NOT NULL,
    row_state text NOT NULL CHECK (row_state IN ('live', 'tombstone', 'stub')),
    last_event_id text NOT NULL DEFAULT '',
    last_event_type text NOT NULL DEFAULT '',
    last_event_time timestamptz,
    last_event_version bigint NOT NULL DEFAULT 0,
    last_event_origin text NOT NULL DEFAULT '',
    last_event_digest text NOT NULL DEFAULT '',
    mapping_revision integer NOT NULL DEFAULT 0,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lossy_fields text[] NOT NULL DEFAULT '{}',
    CONSTRAINT "dm_conversation_pkey" PRIMARY KEY ("conversation_id")
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- A table that was there before is adopted: its rows are live, at version 0.  Constant defaults:
-- none of these rewrites the table.
ALTER TABLE "storemirror"."dm_conversation"
    ADD COLUMN IF NOT EXISTS row_state text NOT NULL DEFAULT 'live',
    ADD COLUMN IF NOT EXISTS last_event_id text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_type text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_time timestamptz,
    ADD COLUMN IF NOT EXISTS last_event_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_event_origin text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_digest text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS mapping_revision integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS applied_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS lossy_fields text[] NOT NULL DEFAULT '{}';
ALTER TABLE "storemirror"."dm_conversation"
    ALTER COLUMN row_state DROP DEFAULT,
    ALTER COLUMN applied_at SET DEFAULT clock_timestamp();
DO $do$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_constraint AS o
        JOIN pg_attribute AS a ON a.attrelid = o.conrelid AND o.conkey = ARRAY[a.attnum]
        WHERE o.conrelid = '"storemirror"."dm_conversation"'::regclass AND o.contype = 'c' AND a.attname = 'row_state'
    ) THEN
        -- NOT VALID: every row has just become live, and needs no look.
        ALTER TABLE "storemirror"."dm_conversation" ADD CONSTRAINT "dm_conversation_state"
            CHECK (row_state IN ('live', 'tombstone', 'stub')) NOT VALID;
    END IF;
END;
$do$;
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "title" text COLLATE "C";
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "created_at" timestamptz;
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "message_count" bigint NOT NULL DEFAULT 0;
ALTER TABLE "storemirror"."dm_conversation" ALTER COLUMN "message_count" SET DEFAULT 0;
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "last_message_id" text COLLATE "C";
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "last_message_at" timestamptz;
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "last_message_preview" text;
ALTER TABLE "storemirror"."dm_conversation" ADD COLUMN IF NOT EXISTS "last_activity_at" timestamptz
    GENERATED ALWAYS AS (COALESCE("last_message_at", "created_at")) STORED;
-- What a purge looks for.
CREATE INDEX IF NOT EXISTS "dm_conversation_purge" ON "storemirror"."dm_conversation" (applied_at) WHERE row_state <> 'live';

CREATE TABLE IF NOT EXISTS "storemirror"."dm_participant" (
    "conversation_id" text COLLATE "C" NOT NULL,
    "user_id" text COLLATE "C" NOT NULL,
    CONSTRAINT "dm_participant_pkey" PRIMARY KEY ("conversation_id", "user_id")
);
ALTER TABLE "storemirror"."dm_participant" ADD COLUMN IF NOT EXISTS "last_read_at" timestamptz;
-- From the element to its documents: an inbox is this index.
CREATE INDEX IF NOT EXISTS "dm_participant_by_user_id"
    ON "storemirror"."dm_participant" ("user_id", "conversation_id");

-- DmMessage: conversations/{conversationId}/messages/{messageId}
CREATE TABLE IF NOT EXISTS "storemirror"."dm_message" (
    "conversation_id" text COLLATE "C" NOT NULL,
    "message_id" text COLLATE "C" NOT NULL,
    row_state text NOT NULL CHECK (row_state IN ('live', 'tombstone', 'stub')),
    last_event_id text NOT NULL DEFAULT '',
    last_event_type text NOT NULL DEFAULT '',
    last_event_time timestamptz,
    last_event_version bigint NOT NULL DEFAULT 0,
    last_event_origin text NOT NULL DEFAULT '',
    last_event_digest text NOT NULL DEFAULT '',
    mapping_revision integer NOT NULL DEFAULT 0,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lossy_fields text[] NOT NULL DEFAULT '{}',
    CONSTRAINT "dm_message_pkey" PRIMARY KEY ("conversation_id", "message_id")
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- A table that was there before is adopted: its rows are live, at version 0.  Constant defaults:
-- none of these rewrites the table.
ALTER TABLE "storemirror"."dm_message"
    ADD COLUMN IF NOT EXISTS row_state text NOT NULL DEFAULT 'live',
    ADD COLUMN IF NOT EXISTS last_event_id text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_type text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_time timestamptz,
    ADD COLUMN IF NOT EXISTS last_event_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_event_origin text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_digest text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS mapping_revision integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS applied_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS lossy_fields text[] NOT NULL DEFAULT '{}';
ALTER TABLE "storemirror"."dm_message"
    ALTER COLUMN row_state DROP DEFAULT,
    ALTER COLUMN applied_at SET DEFAULT clock_timestamp();
DO $do$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_constraint AS o
        JOIN pg_attribute AS a ON a.attrelid = o.conrelid AND o.conkey = ARRAY[a.attnum]
        WHERE o.conrelid = '"storemirror"."dm_message"'::regclass AND o.contype = 'c' AND a.attname = 'row_state'
    ) THEN
        -- NOT VALID: every row has just become live, and needs no look.
        ALTER TABLE "storemirror"."dm_message" ADD CONSTRAINT "dm_message_state"
            CHECK (row_state IN ('live', 'tombstone', 'stub')) NOT VALID;
    END IF;
END;
$do$;
ALTER TABLE "storemirror"."dm_message" ADD COLUMN IF NOT EXISTS "sender_id" text COLLATE "C";
ALTER TABLE "storemirror"."dm_message" ADD COLUMN IF NOT EXISTS "body" text;
ALTER TABLE "storemirror"."dm_message" ADD COLUMN IF NOT EXISTS "sent_at" timestamptz;
ALTER TABLE "storemirror"."dm_message" ADD COLUMN IF NOT EXISTS "edited_at" timestamptz;
ALTER TABLE "storemirror"."dm_message" ADD COLUMN IF NOT EXISTS "attachments" jsonb;
-- What a purge looks for.
CREATE INDEX IF NOT EXISTS "dm_message_purge" ON "storemirror"."dm_message" (applied_at) WHERE row_state <> 'live';
-- The latest live row of a parent, in one step; with what an inbox counts by.
DO $do$
BEGIN
    -- Of other columns still: one of them has only come above.  The old one would answer nothing.
    IF ARRAY(
        SELECT CASE WHEN k.place > x.indnkeyatts THEN '+' ELSE '' END || a.attname
        FROM pg_index AS x
        CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
        WHERE x.indrelid = to_regclass('"storemirror"."dm_message"')
            AND x.indexrelid = to_regclass('"storemirror"."dm_message_latest"')
        ORDER BY k.place
    ) NOT IN ('{}', '{"conversation_id","sent_at","message_id","+sender_id"}'::text[]) THEN
        DROP INDEX "storemirror"."dm_message_latest";
    END IF;
END;
$do$;
CREATE INDEX IF NOT EXISTS "dm_message_latest"
    ON "storemirror"."dm_message" ("conversation_id", "sent_at" DESC, "message_id" DESC) INCLUDE ("sender_id") WHERE row_state = 'live';
-- Unread rows are the newest ones, and are counted in the index alone once a VACUUM has seen them:
-- after a fifth of the table, as PostgreSQL has it, they have long been read.
DO $do$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_class AS c CROSS JOIN LATERAL unnest(c.reloptions) AS o (setting)
        WHERE c.oid = '"storemirror"."dm_message"'::regclass AND o.setting LIKE 'autovacuum_vacuum_insert_scale_factor=%'
    ) THEN
        ALTER TABLE "storemirror"."dm_message" SET (autovacuum_vacuum_insert_scale_factor = 0.02);
    END IF;
END;
$do$;

-- One row a distinct event, whatever came of it; append only; no contents.
CREATE TABLE IF NOT EXISTS "storemirror"."dm_message_audit" (
    "conversation_id" text COLLATE "C" NOT NULL,
    "message_id" text COLLATE "C" NOT NULL,
    last_event_version bigint NOT NULL,
    last_event_id text COLLATE "C" NOT NULL,
    last_event_type text NOT NULL,
    last_event_time timestamptz NOT NULL,
    CONSTRAINT "dm_message_audit_pkey" PRIMARY KEY (
        "conversation_id", "message_id", last_event_version, last_event_id
    )
);

-- FollowEdge: users/{followerId}/following/{followeeId}
CREATE TABLE IF NOT EXISTS "storemirror"."follow_edge" (
    "follower_id" text COLLATE "C" NOT NULL,
    "followee_id" text COLLATE "C" NOT NULL,
    row_state text NOT NULL CHECK (row_state IN ('live', 'tombstone', 'stub')),
    last_event_id text NOT NULL DEFAULT '',
    last_event_type text NOT NULL DEFAULT '',
    last_event_time timestamptz,
    last_event_version bigint NOT NULL DEFAULT 0,
    last_event_origin text NOT NULL DEFAULT '',
    last_event_digest text NOT NULL DEFAULT '',
    mapping_revision integer NOT NULL DEFAULT 0,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lossy_fields text[] NOT NULL DEFAULT '{}',
    CONSTRAINT "follow_edge_pkey" PRIMARY KEY ("follower_id", "followee_id")
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- A table that was there before is adopted: its rows are live, at version 0.  Constant defaults:
-- none of these rewrites the table.
ALTER TABLE "storemirror"."follow_edge"
    ADD COLUMN IF NOT EXISTS row_state text NOT NULL DEFAULT 'live',
    ADD COLUMN IF NOT EXISTS last_event_id text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_type text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_time timestamptz,
    ADD COLUMN IF NOT EXISTS last_event_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_event_origin text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_digest text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS mapping_revision integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS applied_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS lossy_fields text[] NOT NULL DEFAULT '{}';
ALTER TABLE "storemirror"."follow_edge"
    ALTER COLUMN row_state DROP DEFAULT,
    ALTER COLUMN applied_at SET DEFAULT clock_timestamp();
DO $do$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_constraint AS o
        JOIN pg_attribute AS a ON a.attrelid = o.conrelid AND o.conkey = ARRAY[a.attnum]
        WHERE o.conrelid = '"storemirror"."follow_edge"'::regclass AND o.contype = 'c' AND a.attname = 'row_state'
    ) THEN
        -- NOT VALID: every row has just become live, and needs no look.
        ALTER TABLE "storemirror"."follow_edge" ADD CONSTRAINT "follow_edge_state"
            CHECK (row_state IN ('live', 'tombstone', 'stub')) NOT VALID;
    END IF;
END;
$do$;
ALTER TABLE "storemirror"."follow_edge" ADD COLUMN IF NOT EXISTS "created_at" timestamptz;
-- What a purge looks for.
CREATE INDEX IF NOT EXISTS "follow_edge_purge" ON "storemirror"."follow_edge" (applied_at) WHERE row_state <> 'live';

-- UserBlock: users/{blockerId}/blocks/{blockedId}
CREATE TABLE IF NOT EXISTS "storemirror"."user_block" (
    "blocker_id" text COLLATE "C" NOT NULL,
    "blocked_id" text COLLATE "C" NOT NULL,
    row_state text NOT NULL CHECK (row_state IN ('live', 'tombstone', 'stub')),
    last_event_id text NOT NULL DEFAULT '',
    last_event_type text NOT NULL DEFAULT '',
    last_event_time timestamptz,
    last_event_version bigint NOT NULL DEFAULT 0,
    last_event_origin text NOT NULL DEFAULT '',
    last_event_digest text NOT NULL DEFAULT '',
    mapping_revision integer NOT NULL DEFAULT 0,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lossy_fields text[] NOT NULL DEFAULT '{}',
    CONSTRAINT "user_block_pkey" PRIMARY KEY ("blocker_id", "blocked_id")
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- A table that was there before is adopted: its rows are live, at version 0.  Constant defaults:
-- none of these rewrites the table.
ALTER TABLE "storemirror"."user_block"
    ADD COLUMN IF NOT EXISTS row_state text NOT NULL DEFAULT 'live',
    ADD COLUMN IF NOT EXISTS last_event_id text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_type text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_time timestamptz,
    ADD COLUMN IF NOT EXISTS last_event_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS last_event_origin text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS last_event_digest text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS mapping_revision integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS applied_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS lossy_fields text[] NOT NULL DEFAULT '{}';
ALTER TABLE "storemirror"."user_block"
    ALTER COLUMN row_state DROP DEFAULT,
    ALTER COLUMN applied_at SET DEFAULT clock_timestamp();
DO $do$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_constraint AS o
        JOIN pg_attribute AS a ON a.attrelid = o.conrelid AND o.conkey = ARRAY[a.attnum]
        WHERE o.conrelid = '"storemirror"."user_block"'::regclass AND o.contype = 'c' AND a.attname = 'row_state'
    ) THEN
        -- NOT VALID: every row has just become live, and needs no look.
        ALTER TABLE "storemirror"."user_block" ADD CONSTRAINT "user_block_state"
            CHECK (row_state IN ('live', 'tombstone', 'stub')) NOT VALID;
    END IF;
END;
$do$;
ALTER TABLE "storemirror"."user_block" ADD COLUMN IF NOT EXISTS "created_at" timestamptz;
-- What a purge looks for.
CREATE INDEX IF NOT EXISTS "user_block_purge" ON "storemirror"."user_block" (applied_at) WHERE row_state <> 'live';

-- Tables that were there and cannot be mirrored into: all of it is taken back.  For who runs this
-- script; `storemirror schema apply` looks before, and says more.
DO $do$
DECLARE
    v_wrong text;
BEGIN
    WITH wanted (name, key, columns) AS (VALUES
        ('"storemirror"."dm_conversation"'::regclass, '{"conversation_id"}'::text[], '{"conversation_id","row_state","last_event_id","last_event_type","last_event_time","last_event_version","last_event_origin","last_event_digest","mapping_revision","applied_at","lossy_fields","title","created_at","message_count","last_message_id","last_message_at","last_message_preview","last_activity_at"}'::text[]),
        ('"storemirror"."dm_participant"'::regclass, '{"conversation_id","user_id"}'::text[], '{"conversation_id","user_id","last_read_at"}'::text[]),
        ('"storemirror"."dm_message"'::regclass, '{"conversation_id","message_id"}'::text[], '{"conversation_id","message_id","row_state","last_event_id","last_event_type","last_event_time","last_event_version","last_event_origin","last_event_digest","mapping_revision","applied_at","lossy_fields","sender_id","body","sent_at","edited_at","attachments"}'::text[]),
        ('"storemirror"."dm_message_audit"'::regclass, '{"conversation_id","message_id","last_event_version","last_event_id"}'::text[], '{"conversation_id","message_id","last_event_version","last_event_id","last_event_type","last_event_time"}'::text[]),
        ('"storemirror"."follow_edge"'::regclass, '{"follower_id","followee_id"}'::text[], '{"follower_id","followee_id","row_state","last_event_id","last_event_type","last_event_time","last_event_version","last_event_origin","last_event_digest","mapping_revision","applied_at","lossy_fields","created_at"}'::text[]),
        ('"storemirror"."user_block"'::regclass, '{"blocker_id","blocked_id"}'::text[], '{"blocker_id","blocked_id","row_state","last_event_id","last_event_type","last_event_time","last_event_version","last_event_origin","last_event_digest","mapping_revision","applied_at","lossy_fields","created_at"}'::text[])
    ), typed (name, column_name, type) AS (VALUES
        ('"storemirror"."dm_conversation"'::regclass, 'conversation_id', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'row_state', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_event_id', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_event_type', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_event_time', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_event_version', 'bigint'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_event_origin', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_event_digest', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'mapping_revision', 'integer'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'applied_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'lossy_fields', 'text[]'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'title', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'created_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'message_count', 'bigint'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_message_id', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_message_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_message_preview', 'text'::regtype),
        ('"storemirror"."dm_conversation"'::regclass, 'last_activity_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_participant"'::regclass, 'conversation_id', 'text'::regtype),
        ('"storemirror"."dm_participant"'::regclass, 'user_id', 'text'::regtype),
        ('"storemirror"."dm_participant"'::regclass, 'last_read_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'conversation_id', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'message_id', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'row_state', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'last_event_id', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'last_event_type', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'last_event_time', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'last_event_version', 'bigint'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'last_event_origin', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'last_event_digest', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'mapping_revision', 'integer'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'applied_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'lossy_fields', 'text[]'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'sender_id', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'body', 'text'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'sent_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'edited_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."dm_message"'::regclass, 'attachments', 'jsonb'::regtype),
        ('"storemirror"."dm_message_audit"'::regclass, 'conversation_id', 'text'::regtype),
        ('"storemirror"."dm_message_audit"'::regclass, 'message_id', 'text'::regtype),
        ('"storemirror"."dm_message_audit"'::regclass, 'last_event_version', 'bigint'::regtype),
        ('"storemirror"."dm_message_audit"'::regclass, 'last_event_id', 'text'::regtype),
        ('"storemirror"."dm_message_audit"'::regclass, 'last_event_type', 'text'::regtype),
        ('"storemirror"."dm_message_audit"'::regclass, 'last_event_time', 'timestamp with time zone'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'follower_id', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'followee_id', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'row_state', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'last_event_id', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'last_event_type', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'last_event_time', 'timestamp with time zone'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'last_event_version', 'bigint'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'last_event_origin', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'last_event_digest', 'text'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'mapping_revision', 'integer'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'applied_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'lossy_fields', 'text[]'::regtype),
        ('"storemirror"."follow_edge"'::regclass, 'created_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."user_block"'::regclass, 'blocker_id', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'blocked_id', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'row_state', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'last_event_id', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'last_event_type', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'last_event_time', 'timestamp with time zone'::regtype),
        ('"storemirror"."user_block"'::regclass, 'last_event_version', 'bigint'::regtype),
        ('"storemirror"."user_block"'::regclass, 'last_event_origin', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'last_event_digest', 'text'::regtype),
        ('"storemirror"."user_block"'::regclass, 'mapping_revision', 'integer'::regtype),
        ('"storemirror"."user_block"'::regclass, 'applied_at', 'timestamp with time zone'::regtype),
        ('"storemirror"."user_block"'::regclass, 'lossy_fields', 'text[]'::regtype),
        ('"storemirror"."user_block"'::regclass, 'created_at', 'timestamp with time zone'::regtype)
    )
    SELECT string_agg(f.what, '; ') INTO v_wrong FROM (
        SELECT format('%s has no unique key on (%s), in this order', w.name, array_to_string(w.key, ', ')) AS what
        FROM wanted AS w
        WHERE NOT EXISTS (
            SELECT 1 FROM pg_index AS x
            WHERE x.indrelid = w.name AND x.indisunique AND x.indimmediate AND x.indisvalid
                AND x.indpred IS NULL AND x.indexprs IS NULL
                AND w.key = ARRAY(
                    SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k (number, place)
                    JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
                    WHERE k.place <= x.indnkeyatts ORDER BY k.place
                )
        )
        UNION ALL
        SELECT format('%s.%s may be NULL or is not compared byte by byte', w.name, a.attname)
        FROM wanted AS w
        JOIN pg_attribute AS a ON a.attrelid = w.name AND a.attname::text = ANY (w.key)
        LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
        WHERE NOT a.attnotnull OR l.collname <> 'C'
        UNION ALL
        SELECT format('%s.%s is %s, not %s', t.name, t.column_name, a.atttypid::regtype, t.type)
        FROM typed AS t
        JOIN pg_attribute AS a ON a.attrelid = t.name AND a.attname = t.column_name
        WHERE a.atttypid <> t.type
        UNION ALL
        SELECT format('%s.%s is NOT NULL without a default, and not declared', w.name, a.attname)
        FROM wanted AS w
        JOIN pg_attribute AS a ON a.attrelid = w.name AND a.attnum > 0 AND NOT a.attisdropped
        WHERE a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
            AND a.attname::text <> ALL (w.columns)
    ) AS f;
    IF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION 'nothing was changed: %', v_wrong
            USING HINT = 'Run `storemirror schema diff`: it says what to do.', ERRCODE = 'SM012';
    END IF;
END;
$do$;

-- Procedures of the mirror.  Idempotent.  Rendered from the declarations by
-- `storemirror schema render`; do not edit.

-- check_events: refuse a call that could not have come from a sound caller.
--
-- SM002  a version is more than 5 minutes in the future by this server's clock
-- SM003  not an array of 1 to 2,000 events, or an event without id, type, time and version, or
--        whose version does not agree with the procedure's verb
-- SM004  the transaction is not READ COMMITTED: a snapshot older than the locks would be trusted
CREATE OR REPLACE FUNCTION "storemirror".check_events(p_events jsonb, p_is_deleted boolean)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_unsound text;
    v_future text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the procedures must be called under READ COMMITTED, not %',
            current_setting('transaction_isolation') USING ERRCODE = 'SM004';
    END IF;
    -- An event is settled once its rows are committed: then they must be on disk.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF jsonb_typeof(p_events) IS DISTINCT FROM 'array'
        OR jsonb_array_length(p_events) NOT BETWEEN 1 AND 2000 THEN
        RAISE EXCEPTION 'a call takes a JSON array of 1 to 2,000 events' USING ERRCODE = 'SM003';
    END IF;
    SELECT min(e.last_event_id) FILTER (WHERE e.last_event_version > v.limit_version),
           min(COALESCE(e.last_event_id, '')) FILTER (WHERE
               e.last_event_id IS NULL OR e.last_event_type IS NULL OR e.last_event_time IS NULL
               OR e.last_event_version IS NULL OR e.last_event_version < 0
               OR e.observed_at IS NULL OR e.mapping_revision IS NULL
               OR e.last_event_origin IS NULL OR e.last_event_digest IS NULL
               OR e.last_event_version % 2 <> p_is_deleted::integer)
    INTO v_future, v_unsound
    FROM jsonb_to_recordset(p_events) AS e (
        -- Times as text: reading them is dear, and whether they are times is seen when they are used.
        last_event_id text, last_event_type text, last_event_time text,
        last_event_version bigint, observed_at text, mapping_revision integer,
        last_event_origin text, last_event_digest text
    ), (SELECT 2 * (extract(epoch FROM clock_timestamp() + interval '5 minutes') * 1000000)::bigint) AS v (limit_version);
    IF v_future IS NOT NULL THEN
        RAISE EXCEPTION 'event % has a version more than 5 minutes in the future', v_future
            USING ERRCODE = 'SM002';
    END IF;
    IF v_unsound IS NOT NULL THEN
        RAISE EXCEPTION 'event % lacks id, type, time, version, origin, digest, revision or observed_at, or its version is not of this procedure''s verb', v_unsound
            USING ERRCODE = 'SM003';
    END IF;
END;
$$;

-- rebase_mark: refuse events while a rebase has closed the mirror, else give the rebase mark.
--
-- returns  whatever was observed at or before it is expired; NULL when there never was a rebase
-- SM005    the mirror is closed; nothing was written, and it is opened again in a while
--
-- To be called under the shared lock of writers.
CREATE OR REPLACE FUNCTION "storemirror".rebase_mark()
RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rebase "storemirror".rebase;
BEGIN
    SELECT * INTO v_rebase FROM "storemirror".rebase;
    IF v_rebase.is_closed THEN
        RAISE EXCEPTION 'rebase % is under way, step % is done: no event is applied until all versions are 0',
            v_rebase.run, v_rebase.step USING ERRCODE = 'SM005';
    END IF;
    RETURN v_rebase.mark_at;
END;
$$;

-- "storemirror"."lock_rows_of_dm_conversation": lock the rows of these events in key order, as stubs where there are none.
--
-- One statement in one order over absent and present rows alike: two passes would deadlock.
CREATE OR REPLACE FUNCTION "storemirror"."lock_rows_of_dm_conversation"(p_events jsonb)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO "storemirror"."dm_conversation" AS d ("conversation_id", row_state)
    SELECT DISTINCT x."conversation_id" COLLATE "C", 'stub'
    FROM jsonb_to_recordset(p_events) AS x ("conversation_id" text)
    ORDER BY 1
    -- WHERE false: the row is locked, and not written.
    ON CONFLICT ("conversation_id") DO UPDATE SET row_state = EXCLUDED.row_state WHERE false;
END;
$$;

-- "storemirror"."lock_rows_of_dm_message": lock the parents of these events' rows in key order.  SM001 when one is missing.
CREATE OR REPLACE FUNCTION "storemirror"."lock_rows_of_dm_message"(p_events jsonb)
RETURNS void LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_missing bigint;
BEGIN
    WITH wanted AS (
        SELECT DISTINCT x."conversation_id" FROM jsonb_to_recordset(p_events) AS x ("conversation_id" text)
    ), locked AS (
        SELECT 1 FROM "storemirror"."dm_conversation" AS p
        JOIN wanted AS w ON p."conversation_id" = w."conversation_id" COLLATE "C"
        ORDER BY p."conversation_id"
        FOR UPDATE OF p
    )
    SELECT (SELECT count(*) FROM wanted) - (SELECT count(*) FROM locked) INTO v_missing;
    IF v_missing > 0 THEN
        RAISE EXCEPTION '% of the parents in DmConversation are missing: call "storemirror"."ensure_parents" first, in a transaction of its own', v_missing
            USING ERRCODE = 'SM001';
    END IF;
END;
$$;

-- "storemirror"."lock_rows_of_follow_edge": lock the rows of these events in key order, as stubs where there are none.
--
-- One statement in one order over absent and present rows alike: two passes would deadlock.
CREATE OR REPLACE FUNCTION "storemirror"."lock_rows_of_follow_edge"(p_events jsonb)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO "storemirror"."follow_edge" AS d ("follower_id", "followee_id", row_state)
    SELECT DISTINCT x."follower_id" COLLATE "C", x."followee_id" COLLATE "C", 'stub'
    FROM jsonb_to_recordset(p_events) AS x ("follower_id" text, "followee_id" text)
    ORDER BY 1, 2
    -- WHERE false: the row is locked, and not written.
    ON CONFLICT ("follower_id", "followee_id") DO UPDATE SET row_state = EXCLUDED.row_state WHERE false;
END;
$$;

-- "storemirror"."lock_rows_of_user_block": lock the rows of these events in key order, as stubs where there are none.
--
-- One statement in one order over absent and present rows alike: two passes would deadlock.
CREATE OR REPLACE FUNCTION "storemirror"."lock_rows_of_user_block"(p_events jsonb)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO "storemirror"."user_block" AS d ("blocker_id", "blocked_id", row_state)
    SELECT DISTINCT x."blocker_id" COLLATE "C", x."blocked_id" COLLATE "C", 'stub'
    FROM jsonb_to_recordset(p_events) AS x ("blocker_id" text, "blocked_id" text)
    ORDER BY 1, 2
    -- WHERE false: the row is locked, and not written.
    ON CONFLICT ("blocker_id", "blocked_id") DO UPDATE SET row_state = EXCLUDED.row_state WHERE false;
END;
$$;

-- "storemirror"."ensure_parents": make stubs of missing roll-up parents, in key order.
--
-- p_rows   {"table": [objects with its keys]}
-- returns  how many stubs were made
--
-- In a transaction of its own, so that no writer waits for another's batch.
CREATE OR REPLACE FUNCTION "storemirror"."ensure_parents"(p_rows jsonb)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_made bigint := 0;
    v_count bigint;
BEGIN
    INSERT INTO "storemirror"."dm_conversation" ("conversation_id", row_state)
    SELECT DISTINCT x."conversation_id" COLLATE "C", 'stub'
    FROM jsonb_to_recordset(
        COALESCE(p_rows -> 'dm_conversation', '[]')
        -- A writer that does not know the roll-up yet names its own rows.
        || COALESCE(p_rows -> 'dm_message', '[]')
    ) AS x ("conversation_id" text)
    ORDER BY 1
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_made := v_made + v_count;
    RETURN v_made;
END;
$$;

-- "storemirror"."lock_rows": lock all rows that a transaction is going to touch, table after table, in key
-- order, so that writers cannot deadlock however many procedures they call afterwards.
--
-- p_rows   {"table": [objects with its keys]}: roll-up parents, and rows of tables without one
-- returns  how many roll-up parents are missing; then roll back and call "storemirror"."ensure_parents"
CREATE OR REPLACE FUNCTION "storemirror"."lock_rows"(p_rows jsonb)
RETURNS bigint LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_missing bigint := 0;
    v_count bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(2686687166);
    IF p_rows ? 'dm_conversation' THEN
        WITH wanted AS (
            SELECT DISTINCT x."conversation_id" FROM jsonb_to_recordset(p_rows -> 'dm_conversation')
                AS x ("conversation_id" text)
        ), locked AS (
            SELECT 1 FROM "storemirror"."dm_conversation" AS p
            JOIN wanted AS w ON p."conversation_id" = w."conversation_id" COLLATE "C"
            ORDER BY p."conversation_id"
            FOR UPDATE OF p
        )
        SELECT (SELECT count(*) FROM wanted) - (SELECT count(*) FROM locked) INTO v_count;
        v_missing := v_missing + v_count;
    END IF;
    IF p_rows ? 'follow_edge' THEN
        PERFORM "storemirror"."lock_rows_of_follow_edge"(p_rows -> 'follow_edge');
    END IF;
    IF p_rows ? 'user_block' THEN
        PERFORM "storemirror"."lock_rows_of_user_block"(p_rows -> 'user_block');
    END IF;
    RETURN v_missing;
END;
$$;

-- "storemirror"."get_follow_relationship": how two users stand to each other, by live rows.
CREATE OR REPLACE FUNCTION "storemirror"."get_follow_relationship"(p_viewer text, p_target text)
RETURNS TABLE (is_following boolean, is_followed_by boolean, has_blocked boolean, is_blocked_by boolean)
LANGUAGE sql STABLE AS $$
    SELECT
        EXISTS (SELECT 1 FROM "storemirror"."follow_edge" AS f WHERE f."follower_id" = p_viewer AND f."followee_id" = p_target AND f.row_state = 'live'),
        EXISTS (SELECT 1 FROM "storemirror"."follow_edge" AS f WHERE f."follower_id" = p_target AND f."followee_id" = p_viewer AND f.row_state = 'live'),
        EXISTS (SELECT 1 FROM "storemirror"."user_block" AS b WHERE b."blocker_id" = p_viewer AND b."blocked_id" = p_target AND b.row_state = 'live'),
        EXISTS (SELECT 1 FROM "storemirror"."user_block" AS b WHERE b."blocker_id" = p_target AND b."blocked_id" = p_viewer AND b.row_state = 'live');
$$;

-- register_deployment: remember what was installed, and for which Firestore.
--
-- p_declarations  JSON array of {"entity", "digest"}; a digest that is new counts the entity's
--                 mapping revision up
--
-- SM010 when the schema mirrors another Firestore; SM011 when it is of a later version.
CREATE OR REPLACE FUNCTION "storemirror".register_deployment(
    p_project text, p_database text, p_schema_version integer, p_declarations jsonb
)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_info "storemirror".schema_info;
BEGIN
    SELECT * INTO v_info FROM "storemirror".schema_info FOR UPDATE;
    IF FOUND AND (v_info.project, v_info.database) IS DISTINCT FROM (p_project, p_database) THEN
        RAISE EXCEPTION 'this schema mirrors project %, database %; it was not changed', v_info.project, v_info.database
            USING ERRCODE = 'SM010';
    END IF;
    IF FOUND AND v_info.schema_version > p_schema_version THEN
        RAISE EXCEPTION 'this schema has version %, later than %; it was not changed', v_info.schema_version, p_schema_version
            USING ERRCODE = 'SM011';
    END IF;
    INSERT INTO "storemirror".schema_info (schema_version, project, database)
    VALUES (p_schema_version, p_project, p_database)
    ON CONFLICT (is_only_row) DO UPDATE SET schema_version = EXCLUDED.schema_version,
        applied_at = clock_timestamp();
    INSERT INTO "storemirror".declaration (entity, mapping_revision, digest)
    SELECT x.entity, COALESCE(n.mapping_revision, 0) + 1, x.digest
    FROM jsonb_to_recordset(p_declarations) AS x (entity text, digest text)
    LEFT JOIN LATERAL (
        SELECT r.mapping_revision, r.digest FROM "storemirror".declaration AS r
        WHERE r.entity = x.entity ORDER BY r.mapping_revision DESC LIMIT 1
    ) AS n ON true
    WHERE n.digest IS DISTINCT FROM x.digest;
END;
$$;

-- "storemirror"."apply_dm_conversation": apply events of DmConversation, the newest version wins.
--
-- p_events      JSON array of 1 to 2,000 objects with the names of the table's columns, besides
--               observed_at, and for a repair expected_version; docs/reference/procedures.md
-- p_is_deleted  true: the events are deletes; false: writes
-- returns       a row an event, in the order of the array: applied, repaired, duplicate, stale or
--               expired (Outcome in event/change.py, decided by the same rule as decide_outcome)
--
-- SM005 while a rebase has closed the mirror.
--
-- Idempotent, in any order, under concurrent writers.  As if by descending version within a call,
-- full observations before others, then array order.
CREATE OR REPLACE FUNCTION "storemirror"."apply_dm_conversation"(p_events jsonb, p_is_deleted boolean)
RETURNS TABLE (event_id text, outcome text)
LANGUAGE plpgsql VOLATILE
-- A plan made while the tables are small must not scan them once they are large.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    v_horizon timestamptz;
    v_mark timestamptz;
    v_results text[];
    v_pending jsonb := p_events;    -- events without an outcome yet: at first all
    v_positions bigint[];           -- where they stand in p_events; NULL: all of them
    v_outcomes text[];              -- of the pending events, in their order
    v_were_live boolean[];          -- whether the row was live before
    v_key_conversation_ids text[];
BEGIN
    PERFORM "storemirror".check_events(p_events, p_is_deleted);
    -- Shared with other writers, exclusive in a purge: the horizon stands still meanwhile.
    PERFORM pg_advisory_xact_lock_shared(2686687166);
    -- Read under the lock: whoever closes the mirror holds it alone, so that no batch is in hand.
    v_mark := "storemirror".rebase_mark();
    SELECT h.horizon_at INTO v_horizon FROM "storemirror".purge_horizon AS h WHERE h.entity = 'DmConversation';
    PERFORM "storemirror"."lock_rows_of_dm_conversation"(p_events);

    LOOP
        -- Classify.  An event that is not the first of its key is decided here when the first
        -- one's outcome settles it, else it waits for the next round: behind an event that is to be
        -- read again, behind a repair (it may lower the version), and behind other contents of its version.
        -- Names of our own begin with an underscore: no declared name does.
        SELECT array_agg(CASE
                   WHEN r._rank = 1 OR r.observed_at <= v_mark THEN r._alone
                   WHEN r._first_alone = 'expired' OR r._has_repair THEN NULL
                   WHEN r._version < r._first_version OR r._first_alone = 'stale' THEN 'stale'
                   WHEN r._origin = 'dual-write' OR r._is_same THEN 'duplicate'
               END ORDER BY r._n),
               array_agg(r._was_live ORDER BY r._n),
               array_agg(r."conversation_id" ORDER BY r._n)
        INTO v_outcomes, v_were_live, v_key_conversation_ids
        FROM (
            SELECT a.*,
                   row_number() OVER w AS _rank,
                   first_value(a._alone) OVER w AS _first_alone,
                   first_value(a._version) OVER w AS _first_version,
                   -- Of the events up to this one:
                   bool_or(a._origin = 'repair') OVER w AS _has_repair,
                   min(a._digest) OVER w = max(a._digest) OVER w
                       AND min(a._revision) OVER w = max(a._revision) OVER w AS _is_same
            FROM (
                SELECT e.*, COALESCE(d.row_state = 'live', false) AS _was_live, CASE
                    WHEN e.observed_at <= v_mark THEN 'expired'
                    WHEN d.row_state IS NULL OR d.row_state = 'stub' THEN
                        CASE WHEN e.observed_at <= v_horizon THEN 'expired' ELSE 'applied' END
                    WHEN d.last_event_version < e._version THEN 'applied'
                    WHEN d.last_event_version = e._version THEN CASE
                        WHEN e._origin = 'repair' THEN 'repaired'
                        WHEN e._origin = 'dual-write' THEN 'duplicate'
                        WHEN e._revision > d.mapping_revision THEN 'repaired'
                        WHEN e._revision = d.mapping_revision AND e._digest <> d.last_event_digest THEN 'repaired'
                        ELSE 'duplicate'
                    END
                    WHEN e._origin = 'repair' AND e.expected_version = d.last_event_version THEN 'repaired'
                    ELSE 'stale'
                END AS _alone
                FROM ROWS FROM (jsonb_to_recordset(v_pending) AS (
                    "conversation_id" text, last_event_version bigint,
                    last_event_origin text, last_event_digest text, mapping_revision integer,
                    observed_at timestamptz, expected_version bigint
                )) WITH ORDINALITY AS e (
                    "conversation_id", _version, _origin, _digest, _revision, observed_at, expected_version, _n
                )
                LEFT JOIN "storemirror"."dm_conversation" AS d
                    ON d."conversation_id" = e."conversation_id" COLLATE "C"
            ) AS a
            WINDOW w AS (
                PARTITION BY "conversation_id"
                ORDER BY a._version DESC, a._origin IN ('dual-write', 'repair'), a._n
            )
        ) AS r;

        -- Write.  At most one event a key has won this round.
        INSERT INTO "storemirror"."dm_conversation" AS d (
            "conversation_id", row_state, last_event_id, last_event_type, last_event_time,
            last_event_version, last_event_origin, last_event_digest, mapping_revision, applied_at,
            lossy_fields, "title", "created_at"
        )
        SELECT e."conversation_id", CASE WHEN p_is_deleted THEN 'tombstone' ELSE 'live' END,
               e.last_event_id, e.last_event_type, e.last_event_time, e.last_event_version,
               e.last_event_origin, e.last_event_digest, e.mapping_revision, clock_timestamp(),
               COALESCE(e.lossy_fields, '{}'), e."title", e."created_at"
        FROM ROWS FROM (
            jsonb_to_recordset(v_pending) AS (
                "conversation_id" text, last_event_id text, last_event_type text,
                last_event_time timestamptz, last_event_version bigint, last_event_origin text,
                last_event_digest text, mapping_revision integer, lossy_fields text[],
                "title" text,
                "created_at" timestamptz
            ),
            unnest(v_outcomes)
        ) AS e (
            "conversation_id", last_event_id, last_event_type, last_event_time, last_event_version,
            last_event_origin, last_event_digest, mapping_revision, lossy_fields, "title", "created_at", outcome
        )
        WHERE e.outcome IN ('applied', 'repaired')
        ORDER BY e."conversation_id" COLLATE "C"
        ON CONFLICT ("conversation_id") DO UPDATE SET
            row_state = EXCLUDED.row_state,
            last_event_id = EXCLUDED.last_event_id,
            last_event_type = EXCLUDED.last_event_type,
            last_event_time = EXCLUDED.last_event_time,
            last_event_version = EXCLUDED.last_event_version,
            last_event_origin = EXCLUDED.last_event_origin,
            last_event_digest = EXCLUDED.last_event_digest,
            mapping_revision = EXCLUDED.mapping_revision,
            applied_at = EXCLUDED.applied_at,
            lossy_fields = EXCLUDED.lossy_fields,
            "title" = EXCLUDED."title",
            "created_at" = EXCLUDED."created_at";

        -- DmParticipant: what is gone goes, what is new or changed is written, the rest stays.
        DELETE FROM "storemirror"."dm_participant" AS c
        USING ROWS FROM (
            jsonb_to_recordset(v_pending) AS ("conversation_id" text, children jsonb),
            unnest(v_outcomes)
        ) AS e ("conversation_id", children, outcome)
        WHERE e.outcome IN ('applied', 'repaired')
            AND c."conversation_id" = e."conversation_id" COLLATE "C"
            AND NOT EXISTS (
                SELECT 1 FROM jsonb_to_recordset(e.children -> 'dm_participant') AS x ("user_id" text)
                WHERE x."user_id" = c."user_id"
            );
        INSERT INTO "storemirror"."dm_participant" AS c ("conversation_id", "user_id", "last_read_at")
        SELECT DISTINCT ON (1, 2)
               e."conversation_id" COLLATE "C", x."user_id" COLLATE "C", x."last_read_at"
        FROM ROWS FROM (
            jsonb_to_recordset(v_pending) AS ("conversation_id" text, children jsonb),
            unnest(v_outcomes)
        ) AS e ("conversation_id", children, outcome)
        CROSS JOIN LATERAL jsonb_to_recordset(e.children -> 'dm_participant') AS x (
            "user_id" text, "last_read_at" timestamptz
        )
        WHERE e.outcome IN ('applied', 'repaired')
        ON CONFLICT ("conversation_id", "user_id") DO UPDATE SET
            "last_read_at" = EXCLUDED."last_read_at"
            -- Stored images are compared: `=` takes -0.0 for 0.0, and in jsonb 1 for 1.0.
            WHERE ROW(c."last_read_at")::record
                *<> ROW(EXCLUDED."last_read_at")::record;

        IF v_positions IS NULL THEN
            v_results := v_outcomes;
        ELSE
            FOR i IN 1 .. array_length(v_positions, 1) LOOP
                v_results[v_positions[i]] := v_outcomes[i];
            END LOOP;
        END IF;
        SELECT jsonb_agg(p_events -> (r.position - 1)::integer ORDER BY r.position),
               array_agg(r.position ORDER BY r.position)
        INTO v_pending, v_positions
        FROM unnest(v_results) WITH ORDINALITY AS r (outcome, position)
        WHERE r.outcome IS NULL;
        EXIT WHEN v_positions IS NULL;
    END LOOP;

    RETURN QUERY
    SELECT e.last_event_id, e.outcome
    FROM ROWS FROM (jsonb_to_recordset(p_events) AS (last_event_id text), unnest(v_results))
        AS e (last_event_id, outcome);
END;
$$;

-- "storemirror"."upsert_dm_conversation": documents were written.  "storemirror"."delete_dm_conversation": documents were deleted.
CREATE OR REPLACE FUNCTION "storemirror"."upsert_dm_conversation"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_dm_conversation"(p_events, false) AS a;
END;
$$;
CREATE OR REPLACE FUNCTION "storemirror"."delete_dm_conversation"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_dm_conversation"(p_events, true) AS a;
END;
$$;

-- "storemirror"."purge_dm_conversation": remove tombstones without child rows, and stubs likewise.
--
-- p_older_than  rows applied longer ago than this; at least 10 minutes
-- p_max_count   about how many rows at most
-- p_purged      how many went; 0 also when a writer was at work: try again
--
-- The horizon is raised and committed first.  Call it outside a transaction.
CREATE OR REPLACE PROCEDURE "storemirror"."purge_dm_conversation"(
    p_older_than interval, p_max_count integer, INOUT p_purged bigint DEFAULT 0
)
LANGUAGE plpgsql AS $$
DECLARE
    v_newest timestamptz;
BEGIN
    p_purged := 0;
    IF p_older_than < interval '10 minutes' THEN
        RAISE EXCEPTION 'p_older_than must be at least 10 minutes: documents that are read again must be newer than the horizon'
            USING ERRCODE = 'SM003';
    END IF;
    SELECT max(c.applied_at) INTO v_newest FROM (
        SELECT d.applied_at FROM "storemirror"."dm_conversation" AS d
        WHERE d.row_state <> 'live' AND d.applied_at < clock_timestamp() - p_older_than
            AND NOT EXISTS (
                SELECT 1 FROM "storemirror"."dm_message" AS m
                WHERE m."conversation_id" = d."conversation_id"
            )
        ORDER BY d.applied_at LIMIT p_max_count
    ) AS c;
    IF v_newest IS NULL THEN
        RETURN;
    END IF;
    -- The skew covers versions from the future that are still taken: 5 minutes.
    INSERT INTO "storemirror".purge_horizon AS h (entity, horizon_at)
    VALUES ('DmConversation', v_newest + interval '5 minutes')
    ON CONFLICT (entity) DO UPDATE SET horizon_at = greatest(h.horizon_at, EXCLUDED.horizon_at);
    COMMIT;
    IF NOT pg_try_advisory_xact_lock(2686687166) THEN
        RETURN;
    END IF;
    DELETE FROM "storemirror"."dm_conversation" AS d
    WHERE d.row_state <> 'live' AND d.applied_at <= v_newest
        AND NOT EXISTS (
            SELECT 1 FROM "storemirror"."dm_message" AS m
            WHERE m."conversation_id" = d."conversation_id"
        )
;
    GET DIAGNOSTICS p_purged = ROW_COUNT;
END;
$$;

-- "storemirror"."apply_dm_message": apply events of DmMessage, the newest version wins.
--
-- p_events      JSON array of 1 to 2,000 objects with the names of the table's columns, besides
--               observed_at, and for a repair expected_version; docs/reference/procedures.md
-- p_is_deleted  true: the events are deletes; false: writes
-- returns       a row an event, in the order of the array: applied, repaired, duplicate, stale or
--               expired (Outcome in event/change.py, decided by the same rule as decide_outcome)
--
-- SM005 while a rebase has closed the mirror.
--
-- Idempotent, in any order, under concurrent writers.  As if by descending version within a call,
-- full observations before others, then array order.
-- SM001 when a row of DmConversation is missing: call "storemirror"."ensure_parents" before, in a
-- transaction of its own.  The lock of that row covers the rows written here.
CREATE OR REPLACE FUNCTION "storemirror"."apply_dm_message"(p_events jsonb, p_is_deleted boolean)
RETURNS TABLE (event_id text, outcome text)
LANGUAGE plpgsql VOLATILE
-- A plan made while the tables are small must not scan them once they are large.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    v_horizon timestamptz;
    v_mark timestamptz;
    v_results text[];
    v_pending jsonb := p_events;    -- events without an outcome yet: at first all
    v_positions bigint[];           -- where they stand in p_events; NULL: all of them
    v_outcomes text[];              -- of the pending events, in their order
    v_were_live boolean[];          -- whether the row was live before
    v_key_conversation_ids text[];
    v_key_message_ids text[];
BEGIN
    PERFORM "storemirror".check_events(p_events, p_is_deleted);
    -- Shared with other writers, exclusive in a purge: the horizon stands still meanwhile.
    PERFORM pg_advisory_xact_lock_shared(2686687166);
    -- Read under the lock: whoever closes the mirror holds it alone, so that no batch is in hand.
    v_mark := "storemirror".rebase_mark();
    SELECT h.horizon_at INTO v_horizon FROM "storemirror".purge_horizon AS h WHERE h.entity = 'DmMessage';
    PERFORM "storemirror"."lock_rows_of_dm_message"(p_events);

    LOOP
        -- Classify.  An event that is not the first of its key is decided here when the first
        -- one's outcome settles it, else it waits for the next round: behind an event that is to be
        -- read again, behind a repair (it may lower the version), and behind other contents of its version.
        -- Names of our own begin with an underscore: no declared name does.
        SELECT array_agg(CASE
                   WHEN r._rank = 1 OR r.observed_at <= v_mark THEN r._alone
                   WHEN r._first_alone = 'expired' OR r._has_repair THEN NULL
                   WHEN r._version < r._first_version OR r._first_alone = 'stale' THEN 'stale'
                   WHEN r._origin = 'dual-write' OR r._is_same THEN 'duplicate'
               END ORDER BY r._n),
               array_agg(r._was_live ORDER BY r._n),
               array_agg(r."conversation_id" ORDER BY r._n),
               array_agg(r."message_id" ORDER BY r._n)
        INTO v_outcomes, v_were_live, v_key_conversation_ids, v_key_message_ids
        FROM (
            SELECT a.*,
                   row_number() OVER w AS _rank,
                   first_value(a._alone) OVER w AS _first_alone,
                   first_value(a._version) OVER w AS _first_version,
                   -- Of the events up to this one:
                   bool_or(a._origin = 'repair') OVER w AS _has_repair,
                   min(a._digest) OVER w = max(a._digest) OVER w
                       AND min(a._revision) OVER w = max(a._revision) OVER w AS _is_same
            FROM (
                SELECT e.*, COALESCE(d.row_state = 'live', false) AS _was_live, CASE
                    WHEN e.observed_at <= v_mark THEN 'expired'
                    WHEN d.row_state IS NULL OR d.row_state = 'stub' THEN
                        CASE WHEN e.observed_at <= v_horizon THEN 'expired' ELSE 'applied' END
                    WHEN d.last_event_version < e._version THEN 'applied'
                    WHEN d.last_event_version = e._version THEN CASE
                        WHEN e._origin = 'repair' THEN 'repaired'
                        WHEN e._origin = 'dual-write' THEN 'duplicate'
                        WHEN e._revision > d.mapping_revision THEN 'repaired'
                        WHEN e._revision = d.mapping_revision AND e._digest <> d.last_event_digest THEN 'repaired'
                        ELSE 'duplicate'
                    END
                    WHEN e._origin = 'repair' AND e.expected_version = d.last_event_version THEN 'repaired'
                    ELSE 'stale'
                END AS _alone
                FROM ROWS FROM (jsonb_to_recordset(v_pending) AS (
                    "conversation_id" text, "message_id" text, last_event_version bigint,
                    last_event_origin text, last_event_digest text, mapping_revision integer,
                    observed_at timestamptz, expected_version bigint
                )) WITH ORDINALITY AS e (
                    "conversation_id", "message_id", _version, _origin, _digest, _revision, observed_at, expected_version, _n
                )
                LEFT JOIN "storemirror"."dm_message" AS d
                    ON d."conversation_id" = e."conversation_id" COLLATE "C" AND d."message_id" = e."message_id" COLLATE "C"
            ) AS a
            WINDOW w AS (
                PARTITION BY "conversation_id", "message_id"
                ORDER BY a._version DESC, a._origin IN ('dual-write', 'repair'), a._n
            )
        ) AS r;

        -- Write.  At most one event a key has won this round.
        INSERT INTO "storemirror"."dm_message" AS d (
            "conversation_id", "message_id", row_state, last_event_id, last_event_type, last_event_time,
            last_event_version, last_event_origin, last_event_digest, mapping_revision, applied_at,
            lossy_fields, "sender_id", "body", "sent_at", "edited_at", "attachments"
        )
        SELECT e."conversation_id", e."message_id", CASE WHEN p_is_deleted THEN 'tombstone' ELSE 'live' END,
               e.last_event_id, e.last_event_type, e.last_event_time, e.last_event_version,
               e.last_event_origin, e.last_event_digest, e.mapping_revision, clock_timestamp(),
               COALESCE(e.lossy_fields, '{}'), e."sender_id", e."body", e."sent_at", e."edited_at", e."attachments"::jsonb
        FROM ROWS FROM (
            jsonb_to_recordset(v_pending) AS (
                "conversation_id" text, "message_id" text, last_event_id text, last_event_type text,
                last_event_time timestamptz, last_event_version bigint, last_event_origin text,
                last_event_digest text, mapping_revision integer, lossy_fields text[],
                "sender_id" text,
                "body" text,
                "sent_at" timestamptz,
                "edited_at" timestamptz,
                "attachments" text
            ),
            unnest(v_outcomes)
        ) AS e (
            "conversation_id", "message_id", last_event_id, last_event_type, last_event_time, last_event_version,
            last_event_origin, last_event_digest, mapping_revision, lossy_fields, "sender_id", "body", "sent_at", "edited_at", "attachments", outcome
        )
        WHERE e.outcome IN ('applied', 'repaired')
        ORDER BY e."conversation_id" COLLATE "C", e."message_id" COLLATE "C"
        ON CONFLICT ("conversation_id", "message_id") DO UPDATE SET
            row_state = EXCLUDED.row_state,
            last_event_id = EXCLUDED.last_event_id,
            last_event_type = EXCLUDED.last_event_type,
            last_event_time = EXCLUDED.last_event_time,
            last_event_version = EXCLUDED.last_event_version,
            last_event_origin = EXCLUDED.last_event_origin,
            last_event_digest = EXCLUDED.last_event_digest,
            mapping_revision = EXCLUDED.mapping_revision,
            applied_at = EXCLUDED.applied_at,
            lossy_fields = EXCLUDED.lossy_fields,
            "sender_id" = EXCLUDED."sender_id",
            "body" = EXCLUDED."body",
            "sent_at" = EXCLUDED."sent_at",
            "edited_at" = EXCLUDED."edited_at",
            "attachments" = EXCLUDED."attachments";

        -- Audit: every event, whatever came of it; a repeated one is there already.
        INSERT INTO "storemirror"."dm_message_audit" (
            "conversation_id", "message_id", last_event_version, last_event_id, last_event_type, last_event_time
        )
        SELECT e."conversation_id", e."message_id", e.last_event_version, e.last_event_id,
               e.last_event_type, e.last_event_time
        FROM jsonb_to_recordset(v_pending) AS e (
            "conversation_id" text, "message_id" text, last_event_version bigint, last_event_id text,
            last_event_type text, last_event_time timestamptz
        )
        ON CONFLICT DO NOTHING;

        -- Roll up into DmConversation: count by delta, the latest by an indexed look-up.
        UPDATE "storemirror"."dm_conversation" AS p SET
            "message_count" = CASE
                -- After a repair the old count is not to be trusted.
                WHEN c._is_recounted THEN (
                    SELECT count(*) FROM "storemirror"."dm_message" AS m
                    WHERE m."conversation_id" = p."conversation_id" AND m.row_state = 'live'
                )
                ELSE p."message_count" + c._delta
            END,
            "last_message_id" = l."message_id",
            "last_message_at" = l."sent_at",
            "last_message_preview" = left(l."body", 140)
        FROM (
            SELECT k."conversation_id",                    sum(CASE WHEN p_is_deleted THEN 0 ELSE 1 END - k._was_live::integer) AS _delta,
                   bool_or(k.outcome = 'repaired') AS _is_recounted
            FROM unnest(v_key_conversation_ids, v_outcomes, v_were_live)
                AS k ("conversation_id", outcome, _was_live)
            WHERE k.outcome IN ('applied', 'repaired')
            GROUP BY k."conversation_id"
        ) AS c
        LEFT JOIN LATERAL (
            SELECT m.* FROM "storemirror"."dm_message" AS m
            WHERE m."conversation_id" = c."conversation_id" COLLATE "C" AND m.row_state = 'live'
            ORDER BY m."sent_at" DESC, m."message_id" DESC
            LIMIT 1
        ) AS l ON true
        WHERE p."conversation_id" = c."conversation_id" COLLATE "C"
            AND (c._delta <> 0 OR c._is_recounted
                OR ROW(p."last_message_id", p."last_message_at", p."last_message_preview")::record
                    *<> ROW(l."message_id", l."sent_at", left(l."body", 140))::record);

        IF v_positions IS NULL THEN
            v_results := v_outcomes;
        ELSE
            FOR i IN 1 .. array_length(v_positions, 1) LOOP
                v_results[v_positions[i]] := v_outcomes[i];
            END LOOP;
        END IF;
        SELECT jsonb_agg(p_events -> (r.position - 1)::integer ORDER BY r.position),
               array_agg(r.position ORDER BY r.position)
        INTO v_pending, v_positions
        FROM unnest(v_results) WITH ORDINALITY AS r (outcome, position)
        WHERE r.outcome IS NULL;
        EXIT WHEN v_positions IS NULL;
    END LOOP;

    RETURN QUERY
    SELECT e.last_event_id, e.outcome
    FROM ROWS FROM (jsonb_to_recordset(p_events) AS (last_event_id text), unnest(v_results))
        AS e (last_event_id, outcome);
END;
$$;

-- "storemirror"."upsert_dm_message": documents were written.  "storemirror"."delete_dm_message": documents were deleted.
CREATE OR REPLACE FUNCTION "storemirror"."upsert_dm_message"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_dm_message"(p_events, false) AS a;
END;
$$;
CREATE OR REPLACE FUNCTION "storemirror"."delete_dm_message"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_dm_message"(p_events, true) AS a;
END;
$$;

-- "storemirror"."purge_dm_message": remove tombstones, and stubs.
--
-- p_older_than  rows applied longer ago than this; at least 10 minutes
-- p_max_count   about how many rows at most
-- p_purged      how many went; 0 also when a writer was at work: try again
--
-- The horizon is raised and committed first.  Call it outside a transaction.
CREATE OR REPLACE PROCEDURE "storemirror"."purge_dm_message"(
    p_older_than interval, p_max_count integer, INOUT p_purged bigint DEFAULT 0
)
LANGUAGE plpgsql AS $$
DECLARE
    v_newest timestamptz;
BEGIN
    p_purged := 0;
    IF p_older_than < interval '10 minutes' THEN
        RAISE EXCEPTION 'p_older_than must be at least 10 minutes: documents that are read again must be newer than the horizon'
            USING ERRCODE = 'SM003';
    END IF;
    SELECT max(c.applied_at) INTO v_newest FROM (
        SELECT d.applied_at FROM "storemirror"."dm_message" AS d
        WHERE d.row_state <> 'live' AND d.applied_at < clock_timestamp() - p_older_than
        ORDER BY d.applied_at LIMIT p_max_count
    ) AS c;
    IF v_newest IS NULL THEN
        RETURN;
    END IF;
    -- The skew covers versions from the future that are still taken: 5 minutes.
    INSERT INTO "storemirror".purge_horizon AS h (entity, horizon_at)
    VALUES ('DmMessage', v_newest + interval '5 minutes')
    ON CONFLICT (entity) DO UPDATE SET horizon_at = greatest(h.horizon_at, EXCLUDED.horizon_at);
    COMMIT;
    IF NOT pg_try_advisory_xact_lock(2686687166) THEN
        RETURN;
    END IF;
    DELETE FROM "storemirror"."dm_message" AS d
    WHERE d.row_state <> 'live' AND d.applied_at <= v_newest
;
    GET DIAGNOSTICS p_purged = ROW_COUNT;
END;
$$;

-- "storemirror"."recompute_dm_message_rollup": set the aggregates in DmConversation from the rows.
--
-- p_parents  JSON array of objects with the parent's keys; NULL: every parent
-- returns    how many parents changed
--
-- Waits for writers, and lets none begin until it is done.
CREATE OR REPLACE FUNCTION "storemirror"."recompute_dm_message_rollup"(p_parents jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_changed bigint;
BEGIN
    -- Writers hold it shared.  Row locks would not do: a parent that comes in between is not locked.
    PERFORM pg_advisory_xact_lock(2686687166);
    UPDATE "storemirror"."dm_conversation" AS p SET
        "message_count" = n.live_count,
        "last_message_id" = l."message_id",
        "last_message_at" = l."sent_at",
        "last_message_preview" = left(l."body", 140)
    FROM "storemirror"."dm_conversation" AS q
    LEFT JOIN LATERAL (
        SELECT count(*) AS live_count FROM "storemirror"."dm_message" AS m
        WHERE m."conversation_id" = q."conversation_id" AND m.row_state = 'live'
    ) AS n ON true
    LEFT JOIN LATERAL (
        SELECT m.* FROM "storemirror"."dm_message" AS m
        WHERE m."conversation_id" = q."conversation_id" AND m.row_state = 'live'
        ORDER BY m."sent_at" DESC, m."message_id" DESC
        LIMIT 1
    ) AS l ON true
    WHERE p."conversation_id" = q."conversation_id" AND (p_parents IS NULL OR (p."conversation_id") IN (
            SELECT x."conversation_id" FROM jsonb_to_recordset(p_parents) AS x ("conversation_id" text)
        ))
        AND ROW(p."message_count", p."last_message_id", p."last_message_at", p."last_message_preview")::record
            *<> ROW(n.live_count, l."message_id", l."sent_at", left(l."body", 140))::record;
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    RETURN v_changed;
END;
$$;

-- "storemirror"."find_dm_message_rollup_differences": aggregates in DmConversation that are not what the rows say.
--
-- p_limit  most parents
-- returns  a row a parent and column
CREATE OR REPLACE FUNCTION "storemirror"."find_dm_message_rollup_differences"(p_limit integer)
RETURNS TABLE ("conversation_id" text, _column text) LANGUAGE sql STABLE AS $$
    SELECT p."conversation_id", c._column
    FROM "storemirror"."dm_conversation" AS p
    CROSS JOIN LATERAL (
        SELECT count(*) AS live_count FROM "storemirror"."dm_message" AS m
        WHERE m."conversation_id" = p."conversation_id" AND m.row_state = 'live'
    ) AS n
    LEFT JOIN LATERAL (
        SELECT m.* FROM "storemirror"."dm_message" AS m
        WHERE m."conversation_id" = p."conversation_id" AND m.row_state = 'live'
        ORDER BY m."sent_at" DESC, m."message_id" DESC
        LIMIT 1
    ) AS l ON true
    CROSS JOIN LATERAL (VALUES
        ('messageCount', ROW(p."message_count")::record *<> ROW(n.live_count)::record),
        ('lastMessageId', ROW(p."last_message_id")::record *<> ROW(l."message_id")::record),
        ('lastMessageAt', ROW(p."last_message_at")::record *<> ROW(l."sent_at")::record),
        ('lastMessagePreview', ROW(p."last_message_preview")::record *<> ROW(left(l."body", 140))::record)
    ) AS c (_column, _differs)
    WHERE c._differs
    LIMIT p_limit;
$$;

-- "storemirror"."apply_follow_edge": apply events of FollowEdge, the newest version wins.
--
-- p_events      JSON array of 1 to 2,000 objects with the names of the table's columns, besides
--               observed_at, and for a repair expected_version; docs/reference/procedures.md
-- p_is_deleted  true: the events are deletes; false: writes
-- returns       a row an event, in the order of the array: applied, repaired, duplicate, stale or
--               expired (Outcome in event/change.py, decided by the same rule as decide_outcome)
--
-- SM005 while a rebase has closed the mirror.
--
-- Idempotent, in any order, under concurrent writers.  As if by descending version within a call,
-- full observations before others, then array order.
CREATE OR REPLACE FUNCTION "storemirror"."apply_follow_edge"(p_events jsonb, p_is_deleted boolean)
RETURNS TABLE (event_id text, outcome text)
LANGUAGE plpgsql VOLATILE
-- A plan made while the tables are small must not scan them once they are large.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    v_horizon timestamptz;
    v_mark timestamptz;
    v_results text[];
    v_pending jsonb := p_events;    -- events without an outcome yet: at first all
    v_positions bigint[];           -- where they stand in p_events; NULL: all of them
    v_outcomes text[];              -- of the pending events, in their order
    v_were_live boolean[];          -- whether the row was live before
    v_key_follower_ids text[];
    v_key_followee_ids text[];
BEGIN
    PERFORM "storemirror".check_events(p_events, p_is_deleted);
    -- Shared with other writers, exclusive in a purge: the horizon stands still meanwhile.
    PERFORM pg_advisory_xact_lock_shared(2686687166);
    -- Read under the lock: whoever closes the mirror holds it alone, so that no batch is in hand.
    v_mark := "storemirror".rebase_mark();
    SELECT h.horizon_at INTO v_horizon FROM "storemirror".purge_horizon AS h WHERE h.entity = 'FollowEdge';
    PERFORM "storemirror"."lock_rows_of_follow_edge"(p_events);

    LOOP
        -- Classify.  An event that is not the first of its key is decided here when the first
        -- one's outcome settles it, else it waits for the next round: behind an event that is to be
        -- read again, behind a repair (it may lower the version), and behind other contents of its version.
        -- Names of our own begin with an underscore: no declared name does.
        SELECT array_agg(CASE
                   WHEN r._rank = 1 OR r.observed_at <= v_mark THEN r._alone
                   WHEN r._first_alone = 'expired' OR r._has_repair THEN NULL
                   WHEN r._version < r._first_version OR r._first_alone = 'stale' THEN 'stale'
                   WHEN r._origin = 'dual-write' OR r._is_same THEN 'duplicate'
               END ORDER BY r._n),
               array_agg(r._was_live ORDER BY r._n),
               array_agg(r."follower_id" ORDER BY r._n),
               array_agg(r."followee_id" ORDER BY r._n)
        INTO v_outcomes, v_were_live, v_key_follower_ids, v_key_followee_ids
        FROM (
            SELECT a.*,
                   row_number() OVER w AS _rank,
                   first_value(a._alone) OVER w AS _first_alone,
                   first_value(a._version) OVER w AS _first_version,
                   -- Of the events up to this one:
                   bool_or(a._origin = 'repair') OVER w AS _has_repair,
                   min(a._digest) OVER w = max(a._digest) OVER w
                       AND min(a._revision) OVER w = max(a._revision) OVER w AS _is_same
            FROM (
                SELECT e.*, COALESCE(d.row_state = 'live', false) AS _was_live, CASE
                    WHEN e.observed_at <= v_mark THEN 'expired'
                    WHEN d.row_state IS NULL OR d.row_state = 'stub' THEN
                        CASE WHEN e.observed_at <= v_horizon THEN 'expired' ELSE 'applied' END
                    WHEN d.last_event_version < e._version THEN 'applied'
                    WHEN d.last_event_version = e._version THEN CASE
                        WHEN e._origin = 'repair' THEN 'repaired'
                        WHEN e._origin = 'dual-write' THEN 'duplicate'
                        WHEN e._revision > d.mapping_revision THEN 'repaired'
                        WHEN e._revision = d.mapping_revision AND e._digest <> d.last_event_digest THEN 'repaired'
                        ELSE 'duplicate'
                    END
                    WHEN e._origin = 'repair' AND e.expected_version = d.last_event_version THEN 'repaired'
                    ELSE 'stale'
                END AS _alone
                FROM ROWS FROM (jsonb_to_recordset(v_pending) AS (
                    "follower_id" text, "followee_id" text, last_event_version bigint,
                    last_event_origin text, last_event_digest text, mapping_revision integer,
                    observed_at timestamptz, expected_version bigint
                )) WITH ORDINALITY AS e (
                    "follower_id", "followee_id", _version, _origin, _digest, _revision, observed_at, expected_version, _n
                )
                LEFT JOIN "storemirror"."follow_edge" AS d
                    ON d."follower_id" = e."follower_id" COLLATE "C" AND d."followee_id" = e."followee_id" COLLATE "C"
            ) AS a
            WINDOW w AS (
                PARTITION BY "follower_id", "followee_id"
                ORDER BY a._version DESC, a._origin IN ('dual-write', 'repair'), a._n
            )
        ) AS r;

        -- Write.  At most one event a key has won this round.
        INSERT INTO "storemirror"."follow_edge" AS d (
            "follower_id", "followee_id", row_state, last_event_id, last_event_type, last_event_time,
            last_event_version, last_event_origin, last_event_digest, mapping_revision, applied_at,
            lossy_fields, "created_at"
        )
        SELECT e."follower_id", e."followee_id", CASE WHEN p_is_deleted THEN 'tombstone' ELSE 'live' END,
               e.last_event_id, e.last_event_type, e.last_event_time, e.last_event_version,
               e.last_event_origin, e.last_event_digest, e.mapping_revision, clock_timestamp(),
               COALESCE(e.lossy_fields, '{}'), e."created_at"
        FROM ROWS FROM (
            jsonb_to_recordset(v_pending) AS (
                "follower_id" text, "followee_id" text, last_event_id text, last_event_type text,
                last_event_time timestamptz, last_event_version bigint, last_event_origin text,
                last_event_digest text, mapping_revision integer, lossy_fields text[],
                "created_at" timestamptz
            ),
            unnest(v_outcomes)
        ) AS e (
            "follower_id", "followee_id", last_event_id, last_event_type, last_event_time, last_event_version,
            last_event_origin, last_event_digest, mapping_revision, lossy_fields, "created_at", outcome
        )
        WHERE e.outcome IN ('applied', 'repaired')
        ORDER BY e."follower_id" COLLATE "C", e."followee_id" COLLATE "C"
        ON CONFLICT ("follower_id", "followee_id") DO UPDATE SET
            row_state = EXCLUDED.row_state,
            last_event_id = EXCLUDED.last_event_id,
            last_event_type = EXCLUDED.last_event_type,
            last_event_time = EXCLUDED.last_event_time,
            last_event_version = EXCLUDED.last_event_version,
            last_event_origin = EXCLUDED.last_event_origin,
            last_event_digest = EXCLUDED.last_event_digest,
            mapping_revision = EXCLUDED.mapping_revision,
            applied_at = EXCLUDED.applied_at,
            lossy_fields = EXCLUDED.lossy_fields,
            "created_at" = EXCLUDED."created_at";

        IF v_positions IS NULL THEN
            v_results := v_outcomes;
        ELSE
            FOR i IN 1 .. array_length(v_positions, 1) LOOP
                v_results[v_positions[i]] := v_outcomes[i];
            END LOOP;
        END IF;
        SELECT jsonb_agg(p_events -> (r.position - 1)::integer ORDER BY r.position),
               array_agg(r.position ORDER BY r.position)
        INTO v_pending, v_positions
        FROM unnest(v_results) WITH ORDINALITY AS r (outcome, position)
        WHERE r.outcome IS NULL;
        EXIT WHEN v_positions IS NULL;
    END LOOP;

    RETURN QUERY
    SELECT e.last_event_id, e.outcome
    FROM ROWS FROM (jsonb_to_recordset(p_events) AS (last_event_id text), unnest(v_results))
        AS e (last_event_id, outcome);
END;
$$;

-- "storemirror"."upsert_follow_edge": documents were written.  "storemirror"."delete_follow_edge": documents were deleted.
CREATE OR REPLACE FUNCTION "storemirror"."upsert_follow_edge"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_follow_edge"(p_events, false) AS a;
END;
$$;
CREATE OR REPLACE FUNCTION "storemirror"."delete_follow_edge"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_follow_edge"(p_events, true) AS a;
END;
$$;

-- "storemirror"."purge_follow_edge": remove tombstones, and stubs.
--
-- p_older_than  rows applied longer ago than this; at least 10 minutes
-- p_max_count   about how many rows at most
-- p_purged      how many went; 0 also when a writer was at work: try again
--
-- The horizon is raised and committed first.  Call it outside a transaction.
CREATE OR REPLACE PROCEDURE "storemirror"."purge_follow_edge"(
    p_older_than interval, p_max_count integer, INOUT p_purged bigint DEFAULT 0
)
LANGUAGE plpgsql AS $$
DECLARE
    v_newest timestamptz;
BEGIN
    p_purged := 0;
    IF p_older_than < interval '10 minutes' THEN
        RAISE EXCEPTION 'p_older_than must be at least 10 minutes: documents that are read again must be newer than the horizon'
            USING ERRCODE = 'SM003';
    END IF;
    SELECT max(c.applied_at) INTO v_newest FROM (
        SELECT d.applied_at FROM "storemirror"."follow_edge" AS d
        WHERE d.row_state <> 'live' AND d.applied_at < clock_timestamp() - p_older_than
        ORDER BY d.applied_at LIMIT p_max_count
    ) AS c;
    IF v_newest IS NULL THEN
        RETURN;
    END IF;
    -- The skew covers versions from the future that are still taken: 5 minutes.
    INSERT INTO "storemirror".purge_horizon AS h (entity, horizon_at)
    VALUES ('FollowEdge', v_newest + interval '5 minutes')
    ON CONFLICT (entity) DO UPDATE SET horizon_at = greatest(h.horizon_at, EXCLUDED.horizon_at);
    COMMIT;
    IF NOT pg_try_advisory_xact_lock(2686687166) THEN
        RETURN;
    END IF;
    DELETE FROM "storemirror"."follow_edge" AS d
    WHERE d.row_state <> 'live' AND d.applied_at <= v_newest
;
    GET DIAGNOSTICS p_purged = ROW_COUNT;
END;
$$;

-- "storemirror"."apply_user_block": apply events of UserBlock, the newest version wins.
--
-- p_events      JSON array of 1 to 2,000 objects with the names of the table's columns, besides
--               observed_at, and for a repair expected_version; docs/reference/procedures.md
-- p_is_deleted  true: the events are deletes; false: writes
-- returns       a row an event, in the order of the array: applied, repaired, duplicate, stale or
--               expired (Outcome in event/change.py, decided by the same rule as decide_outcome)
--
-- SM005 while a rebase has closed the mirror.
--
-- Idempotent, in any order, under concurrent writers.  As if by descending version within a call,
-- full observations before others, then array order.
CREATE OR REPLACE FUNCTION "storemirror"."apply_user_block"(p_events jsonb, p_is_deleted boolean)
RETURNS TABLE (event_id text, outcome text)
LANGUAGE plpgsql VOLATILE
-- A plan made while the tables are small must not scan them once they are large.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    v_horizon timestamptz;
    v_mark timestamptz;
    v_results text[];
    v_pending jsonb := p_events;    -- events without an outcome yet: at first all
    v_positions bigint[];           -- where they stand in p_events; NULL: all of them
    v_outcomes text[];              -- of the pending events, in their order
    v_were_live boolean[];          -- whether the row was live before
    v_key_blocker_ids text[];
    v_key_blocked_ids text[];
BEGIN
    PERFORM "storemirror".check_events(p_events, p_is_deleted);
    -- Shared with other writers, exclusive in a purge: the horizon stands still meanwhile.
    PERFORM pg_advisory_xact_lock_shared(2686687166);
    -- Read under the lock: whoever closes the mirror holds it alone, so that no batch is in hand.
    v_mark := "storemirror".rebase_mark();
    SELECT h.horizon_at INTO v_horizon FROM "storemirror".purge_horizon AS h WHERE h.entity = 'UserBlock';
    PERFORM "storemirror"."lock_rows_of_user_block"(p_events);

    LOOP
        -- Classify.  An event that is not the first of its key is decided here when the first
        -- one's outcome settles it, else it waits for the next round: behind an event that is to be
        -- read again, behind a repair (it may lower the version), and behind other contents of its version.
        -- Names of our own begin with an underscore: no declared name does.
        SELECT array_agg(CASE
                   WHEN r._rank = 1 OR r.observed_at <= v_mark THEN r._alone
                   WHEN r._first_alone = 'expired' OR r._has_repair THEN NULL
                   WHEN r._version < r._first_version OR r._first_alone = 'stale' THEN 'stale'
                   WHEN r._origin = 'dual-write' OR r._is_same THEN 'duplicate'
               END ORDER BY r._n),
               array_agg(r._was_live ORDER BY r._n),
               array_agg(r."blocker_id" ORDER BY r._n),
               array_agg(r."blocked_id" ORDER BY r._n)
        INTO v_outcomes, v_were_live, v_key_blocker_ids, v_key_blocked_ids
        FROM (
            SELECT a.*,
                   row_number() OVER w AS _rank,
                   first_value(a._alone) OVER w AS _first_alone,
                   first_value(a._version) OVER w AS _first_version,
                   -- Of the events up to this one:
                   bool_or(a._origin = 'repair') OVER w AS _has_repair,
                   min(a._digest) OVER w = max(a._digest) OVER w
                       AND min(a._revision) OVER w = max(a._revision) OVER w AS _is_same
            FROM (
                SELECT e.*, COALESCE(d.row_state = 'live', false) AS _was_live, CASE
                    WHEN e.observed_at <= v_mark THEN 'expired'
                    WHEN d.row_state IS NULL OR d.row_state = 'stub' THEN
                        CASE WHEN e.observed_at <= v_horizon THEN 'expired' ELSE 'applied' END
                    WHEN d.last_event_version < e._version THEN 'applied'
                    WHEN d.last_event_version = e._version THEN CASE
                        WHEN e._origin = 'repair' THEN 'repaired'
                        WHEN e._origin = 'dual-write' THEN 'duplicate'
                        WHEN e._revision > d.mapping_revision THEN 'repaired'
                        WHEN e._revision = d.mapping_revision AND e._digest <> d.last_event_digest THEN 'repaired'
                        ELSE 'duplicate'
                    END
                    WHEN e._origin = 'repair' AND e.expected_version = d.last_event_version THEN 'repaired'
                    ELSE 'stale'
                END AS _alone
                FROM ROWS FROM (jsonb_to_recordset(v_pending) AS (
                    "blocker_id" text, "blocked_id" text, last_event_version bigint,
                    last_event_origin text, last_event_digest text, mapping_revision integer,
                    observed_at timestamptz, expected_version bigint
                )) WITH ORDINALITY AS e (
                    "blocker_id", "blocked_id", _version, _origin, _digest, _revision, observed_at, expected_version, _n
                )
                LEFT JOIN "storemirror"."user_block" AS d
                    ON d."blocker_id" = e."blocker_id" COLLATE "C" AND d."blocked_id" = e."blocked_id" COLLATE "C"
            ) AS a
            WINDOW w AS (
                PARTITION BY "blocker_id", "blocked_id"
                ORDER BY a._version DESC, a._origin IN ('dual-write', 'repair'), a._n
            )
        ) AS r;

        -- Write.  At most one event a key has won this round.
        INSERT INTO "storemirror"."user_block" AS d (
            "blocker_id", "blocked_id", row_state, last_event_id, last_event_type, last_event_time,
            last_event_version, last_event_origin, last_event_digest, mapping_revision, applied_at,
            lossy_fields, "created_at"
        )
        SELECT e."blocker_id", e."blocked_id", CASE WHEN p_is_deleted THEN 'tombstone' ELSE 'live' END,
               e.last_event_id, e.last_event_type, e.last_event_time, e.last_event_version,
               e.last_event_origin, e.last_event_digest, e.mapping_revision, clock_timestamp(),
               COALESCE(e.lossy_fields, '{}'), e."created_at"
        FROM ROWS FROM (
            jsonb_to_recordset(v_pending) AS (
                "blocker_id" text, "blocked_id" text, last_event_id text, last_event_type text,
                last_event_time timestamptz, last_event_version bigint, last_event_origin text,
                last_event_digest text, mapping_revision integer, lossy_fields text[],
                "created_at" timestamptz
            ),
            unnest(v_outcomes)
        ) AS e (
            "blocker_id", "blocked_id", last_event_id, last_event_type, last_event_time, last_event_version,
            last_event_origin, last_event_digest, mapping_revision, lossy_fields, "created_at", outcome
        )
        WHERE e.outcome IN ('applied', 'repaired')
        ORDER BY e."blocker_id" COLLATE "C", e."blocked_id" COLLATE "C"
        ON CONFLICT ("blocker_id", "blocked_id") DO UPDATE SET
            row_state = EXCLUDED.row_state,
            last_event_id = EXCLUDED.last_event_id,
            last_event_type = EXCLUDED.last_event_type,
            last_event_time = EXCLUDED.last_event_time,
            last_event_version = EXCLUDED.last_event_version,
            last_event_origin = EXCLUDED.last_event_origin,
            last_event_digest = EXCLUDED.last_event_digest,
            mapping_revision = EXCLUDED.mapping_revision,
            applied_at = EXCLUDED.applied_at,
            lossy_fields = EXCLUDED.lossy_fields,
            "created_at" = EXCLUDED."created_at";

        IF v_positions IS NULL THEN
            v_results := v_outcomes;
        ELSE
            FOR i IN 1 .. array_length(v_positions, 1) LOOP
                v_results[v_positions[i]] := v_outcomes[i];
            END LOOP;
        END IF;
        SELECT jsonb_agg(p_events -> (r.position - 1)::integer ORDER BY r.position),
               array_agg(r.position ORDER BY r.position)
        INTO v_pending, v_positions
        FROM unnest(v_results) WITH ORDINALITY AS r (outcome, position)
        WHERE r.outcome IS NULL;
        EXIT WHEN v_positions IS NULL;
    END LOOP;

    RETURN QUERY
    SELECT e.last_event_id, e.outcome
    FROM ROWS FROM (jsonb_to_recordset(p_events) AS (last_event_id text), unnest(v_results))
        AS e (last_event_id, outcome);
END;
$$;

-- "storemirror"."upsert_user_block": documents were written.  "storemirror"."delete_user_block": documents were deleted.
CREATE OR REPLACE FUNCTION "storemirror"."upsert_user_block"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_user_block"(p_events, false) AS a;
END;
$$;
CREATE OR REPLACE FUNCTION "storemirror"."delete_user_block"(p_events jsonb)
RETURNS TABLE (event_id text, outcome text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT a.event_id, a.outcome FROM "storemirror"."apply_user_block"(p_events, true) AS a;
END;
$$;

-- "storemirror"."purge_user_block": remove tombstones, and stubs.
--
-- p_older_than  rows applied longer ago than this; at least 10 minutes
-- p_max_count   about how many rows at most
-- p_purged      how many went; 0 also when a writer was at work: try again
--
-- The horizon is raised and committed first.  Call it outside a transaction.
CREATE OR REPLACE PROCEDURE "storemirror"."purge_user_block"(
    p_older_than interval, p_max_count integer, INOUT p_purged bigint DEFAULT 0
)
LANGUAGE plpgsql AS $$
DECLARE
    v_newest timestamptz;
BEGIN
    p_purged := 0;
    IF p_older_than < interval '10 minutes' THEN
        RAISE EXCEPTION 'p_older_than must be at least 10 minutes: documents that are read again must be newer than the horizon'
            USING ERRCODE = 'SM003';
    END IF;
    SELECT max(c.applied_at) INTO v_newest FROM (
        SELECT d.applied_at FROM "storemirror"."user_block" AS d
        WHERE d.row_state <> 'live' AND d.applied_at < clock_timestamp() - p_older_than
        ORDER BY d.applied_at LIMIT p_max_count
    ) AS c;
    IF v_newest IS NULL THEN
        RETURN;
    END IF;
    -- The skew covers versions from the future that are still taken: 5 minutes.
    INSERT INTO "storemirror".purge_horizon AS h (entity, horizon_at)
    VALUES ('UserBlock', v_newest + interval '5 minutes')
    ON CONFLICT (entity) DO UPDATE SET horizon_at = greatest(h.horizon_at, EXCLUDED.horizon_at);
    COMMIT;
    IF NOT pg_try_advisory_xact_lock(2686687166) THEN
        RETURN;
    END IF;
    DELETE FROM "storemirror"."user_block" AS d
    WHERE d.row_state <> 'live' AND d.applied_at <= v_newest
;
    GET DIAGNOSTICS p_purged = ROW_COUNT;
END;
$$;

-- Rows that are there before what they belong to is registered.  Idempotent: finds nothing later.
DO $do$
BEGIN
    -- Writers hold it shared: none may count by delta while roll-ups are set.
    PERFORM pg_advisory_xact_lock(2686687166);
    -- Elements of a document that has no row: with one, a backfill or a reconcile settles them.
    INSERT INTO "storemirror"."dm_conversation" ("conversation_id", row_state)
    SELECT DISTINCT x."conversation_id", 'live' FROM "storemirror"."dm_participant" AS x
    WHERE NOT EXISTS (
        SELECT 1 FROM "storemirror"."dm_conversation" AS d
        WHERE d."conversation_id" = x."conversation_id"
    )
    ON CONFLICT ("conversation_id") DO NOTHING;
    IF (
        SELECT r.digest FROM "storemirror".declaration AS r WHERE r.entity = 'DmMessage rollup'
        ORDER BY r.mapping_revision DESC LIMIT 1
    ) IS DISTINCT FROM 'dc5db26b5b8170d954da68de772a75edea944600f773e11dd5f9a433e706a978' THEN
        -- A stub that a later event makes would count from 0, past the rows that are there.
        INSERT INTO "storemirror"."dm_conversation" ("conversation_id", row_state)
        SELECT DISTINCT x."conversation_id", 'stub' FROM "storemirror"."dm_message" AS x
        WHERE NOT EXISTS (
            SELECT 1 FROM "storemirror"."dm_conversation" AS p
            WHERE p."conversation_id" = x."conversation_id"
        )
        ON CONFLICT ("conversation_id") DO NOTHING;
        PERFORM "storemirror"."recompute_dm_message_rollup"();
    END IF;
END;
$do$;

SELECT "storemirror".register_deployment(:'project', :'database', 1, $declarations$[{"entity":"DmConversation","digest":"dd07199621fe36d0059cb061cb281224c513dd76beb353f03bc798aa123e43f4"},{"entity":"DmMessage","digest":"803ae71026ebbc468a2eae70635ad631875c9daa866fd6497ba95f12baf81bf7"},{"entity":"FollowEdge","digest":"69170dcdf305d2893083c376bb1e48bee57a477443f89f9d317c0f3e7f92f919"},{"entity":"UserBlock","digest":"9a5e9e046878cd0b75f7d569ec6950c767e9f318769c52cdfca3b7432fecb94b"},{"entity":"DmConversation rollup","digest":""},{"entity":"DmMessage rollup","digest":"dc5db26b5b8170d954da68de772a75edea944600f773e11dd5f9a433e706a978"},{"entity":"FollowEdge rollup","digest":""},{"entity":"UserBlock rollup","digest":""}]$declarations$);

-- Required fields, after the declarations have been registered.  Idempotent.
--
-- Of live rows only, so that tombstones and stubs stand; and only of rows mapped by the declaration
-- in force: one from before it is for a backfill to fill, and until then must neither refuse a
-- roll-up into it nor the events of an older writer.  NOT VALID: no scan under an exclusive lock.
ALTER TABLE "storemirror"."dm_conversation" DROP CONSTRAINT IF EXISTS "dm_conversation_required";
DO $do$
BEGIN
    EXECUTE format(
        $$ALTER TABLE "storemirror"."dm_conversation" ADD CONSTRAINT "dm_conversation_required" CHECK (
            row_state <> 'live' OR mapping_revision < %s
            OR ("created_at" IS NOT NULL)
        ) NOT VALID$$,
        (SELECT max(r.mapping_revision) FROM "storemirror".declaration AS r WHERE r.entity = 'DmConversation')
    );
END;
$do$;
ALTER TABLE "storemirror"."dm_message" DROP CONSTRAINT IF EXISTS "dm_message_required";
DO $do$
BEGIN
    EXECUTE format(
        $$ALTER TABLE "storemirror"."dm_message" ADD CONSTRAINT "dm_message_required" CHECK (
            row_state <> 'live' OR mapping_revision < %s
            OR ("sender_id" IS NOT NULL AND "sent_at" IS NOT NULL)
        ) NOT VALID$$,
        (SELECT max(r.mapping_revision) FROM "storemirror".declaration AS r WHERE r.entity = 'DmMessage')
    );
END;
$do$;
ALTER TABLE "storemirror"."follow_edge" DROP CONSTRAINT IF EXISTS "follow_edge_required";
ALTER TABLE "storemirror"."user_block" DROP CONSTRAINT IF EXISTS "user_block_required";

COMMIT;
DO $do$ BEGIN PERFORM pg_advisory_unlock(1493801829); END; $do$;

-- Every mirrored table carries its LastEvent columns: this lists them.
SELECT table_name, count(*) AS last_event_columns
FROM information_schema.columns
WHERE table_schema = 'storemirror' AND column_name LIKE 'last\_event\_%'
GROUP BY table_name ORDER BY table_name;
