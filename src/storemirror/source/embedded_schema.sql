-- The embedded document store: documents, the store's clock, the triggers' outbox.
--
-- Idempotent.  Run in one transaction, under advisory lock 3 (two CREATE ... IF NOT EXISTS at
-- once fail in PostgreSQL).  Times are microseconds since the Unix epoch, UTC.
--
-- Advisory locks of this database: 1 the clock, 2 the relay, 3 this file.

CREATE SCHEMA IF NOT EXISTS documents;

-- The newest time handed out.  A sequence and not a row: a row updated at every commit leaves a
-- dead version each, and while a pinned view holds a snapshot nothing may clear them away.
CREATE SEQUENCE IF NOT EXISTS documents.clock AS bigint MINVALUE 0 START 0;

CREATE TABLE IF NOT EXISTS documents.document (
    path text COLLATE "C" PRIMARY KEY,
    -- The path without its ids: 'conversations/*/messages'.
    collection text COLLATE "C" NOT NULL,
    segments text[] COLLATE "C" NOT NULL GENERATED ALWAYS AS (string_to_array(path, '/')) STORED,
    -- Canonical JSON with sorted names, as text: jsonb drops -0.0 and refuses NUL.
    fields text NOT NULL,
    create_time_us bigint NOT NULL,
    update_time_us bigint NOT NULL
) WITH (fillfactor = 85);

CREATE INDEX IF NOT EXISTS document_by_collection
    ON documents.document (collection, segments);

-- What the triggers have yet to be told: one row a changed document.  seq rises in the order of
-- commit times and of visibility, because it is drawn under the clock's lock.
CREATE TABLE IF NOT EXISTS documents.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path text NOT NULL,
    commit_time_us bigint NOT NULL,
    size_bytes bigint NOT NULL,
    before_fields text,
    before_create_time_us bigint,
    before_update_time_us bigint,
    after_fields text,
    after_create_time_us bigint,
    after_update_time_us bigint
);

-- draw_time: take the clock's lock until the transaction ends, and hand out a time.
--
-- returns  a time above every time handed out before; the wall clock unless that is behind
--
-- Whoever holds the lock sees, from its next statement on, every commit with an earlier time.
CREATE OR REPLACE FUNCTION documents.draw_time() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1);
    RETURN setval(
        'documents.clock',
        greatest(
            (SELECT last_value FROM documents.clock) + 1,
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        )
    );
END;
$$;

-- commit_writes: write all documents or none, and tell the triggers' outbox.
--
-- p_paths          document paths, each once
-- p_collections    the paths without their ids
-- p_fields         canonical JSON with sorted names; NULL deletes
-- p_preconditions  'none' | 'exists' | 'absent'
-- commit_us        the commit time of all writes
-- refused          position, from 1, of the first write whose precondition does not hold; NULL
--                  when all hold; else nothing was written
--
-- A write of the contents that are there, and a delete of nothing, change nothing and tell nobody.
-- Not idempotent: a repeated commit may meet its own preconditions.
-- The joins are pinned: a plan cached while the table was empty would read all of it ever after.
CREATE OR REPLACE FUNCTION documents.commit_writes(
    p_paths text[], p_collections text[], p_fields text[], p_preconditions text[],
    OUT commit_us bigint, OUT refused bigint
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    commit_us := documents.draw_time();

    SELECT min(w.position) INTO refused
    FROM unnest(p_paths, p_preconditions) WITH ORDINALITY AS w (path, precondition, position)
    LEFT JOIN documents.document AS d ON d.path = w.path
    WHERE (w.precondition = 'exists' AND d.path IS NULL)
       OR (w.precondition = 'absent' AND d.path IS NOT NULL);
    IF refused IS NOT NULL THEN
        RETURN;
    END IF;

    INSERT INTO documents.outbox (
        path, commit_time_us, size_bytes,
        before_fields, before_create_time_us, before_update_time_us,
        after_fields, after_create_time_us, after_update_time_us
    )
    SELECT w.path, commit_us,
           coalesce(octet_length(d.fields), 0) + coalesce(octet_length(w.fields), 0),
           d.fields, d.create_time_us, d.update_time_us,
           w.fields,
           CASE WHEN w.fields IS NOT NULL THEN coalesce(d.create_time_us, commit_us) END,
           CASE WHEN w.fields IS NOT NULL THEN commit_us END
    FROM unnest(p_paths, p_fields) WITH ORDINALITY AS w (path, fields, position)
    LEFT JOIN documents.document AS d ON d.path = w.path
    WHERE w.fields IS DISTINCT FROM d.fields
    ORDER BY w.position;

    DELETE FROM documents.document AS d
    USING unnest(p_paths, p_fields) AS w (path, fields)
    WHERE d.path = w.path AND w.fields IS NULL;

    INSERT INTO documents.document AS d (path, collection, fields, create_time_us, update_time_us)
    SELECT w.path, w.collection, w.fields, commit_us, commit_us
    FROM unnest(p_paths, p_collections, p_fields) AS w (path, collection, fields)
    WHERE w.fields IS NOT NULL
    ON CONFLICT (path) DO UPDATE
        SET fields = EXCLUDED.fields, update_time_us = EXCLUDED.update_time_us
        WHERE d.fields <> EXCLUDED.fields;
END;
$$;

-- read_document: read one document as it is now.
--
-- p_path     document path
-- read_us    read time: above every commit that is seen, below every later one
-- fields_json, create_us, update_us   the document; NULL when there is none
CREATE OR REPLACE FUNCTION documents.read_document(
    p_path text,
    OUT read_us bigint, OUT fields_json text, OUT create_us bigint, OUT update_us bigint
) LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    read_us := documents.draw_time();
    SELECT d.fields, d.create_time_us, d.update_time_us INTO fields_json, create_us, update_us
    FROM documents.document AS d
    WHERE d.path = p_path;
END;
$$;
