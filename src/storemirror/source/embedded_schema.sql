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
    update_time_us bigint NOT NULL,
    -- What queries go by, made of fields (storemirror.source.embedded_terms); NULL: not made yet.
    terms bigint[],
    times jsonb
) WITH (fillfactor = 85);

-- A store of before there were queries.  Asked first: ALTER TABLE, even where it has nothing to
-- do, would wait for every pinned view, and everybody else would wait behind it.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'documents.document'::regclass AND attname = 'times'
    ) THEN
        ALTER TABLE documents.document ADD COLUMN terms bigint[], ADD COLUMN times jsonb;
    END IF;
END;
$$;

CREATE INDEX IF NOT EXISTS document_by_collection
    ON documents.document (collection, segments);

-- Without a list of what is to be put in later: every query would read through it.
CREATE INDEX IF NOT EXISTS document_by_term
    ON documents.document USING gin (terms) WITH (fastupdate = off);

-- Empty but for a store of before there were queries.
CREATE INDEX IF NOT EXISTS document_without_terms
    ON documents.document (path) WHERE terms IS NULL;

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
-- p_terms, p_times what queries go by, one text a write; NULL for a delete
-- p_read_paths     documents that were read before, each once
-- p_read_times     their update times then; NULL: there was no such document
-- commit_us        the commit time of all writes
-- refused          position, from 1, of the first write whose precondition does not hold; NULL
--                  when all hold; else nothing was written
-- is_overtaken     whether a document that was read has another update time: nothing was written
--
-- A write of the contents that are there, and a delete of nothing, change nothing and tell nobody.
-- Not idempotent: a repeated commit may meet its own preconditions.
-- The joins are pinned: a plan cached while the table was empty would read all of it ever after.
DROP FUNCTION IF EXISTS documents.commit_writes(text[], text[], text[], text[]);
CREATE OR REPLACE FUNCTION documents.commit_writes(
    p_paths text[], p_collections text[], p_fields text[], p_preconditions text[],
    p_terms text[], p_times text[],
    p_read_paths text[] DEFAULT '{}', p_read_times bigint[] DEFAULT '{}',
    OUT commit_us bigint, OUT refused bigint, OUT is_overtaken boolean
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    commit_us := documents.draw_time();

    is_overtaken := EXISTS (
        SELECT FROM unnest(p_read_paths, p_read_times) AS r (path, update_time_us)
        LEFT JOIN documents.document AS d ON d.path = r.path
        WHERE d.update_time_us IS DISTINCT FROM r.update_time_us
    );
    IF is_overtaken THEN
        RETURN;
    END IF;

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

    INSERT INTO documents.document AS d (
        path, collection, fields, create_time_us, update_time_us, terms, times
    )
    SELECT w.path, w.collection, w.fields, commit_us, commit_us, w.terms::bigint[], w.times::jsonb
    FROM unnest(p_paths, p_collections, p_fields, p_terms, p_times)
        AS w (path, collection, fields, terms, times)
    WHERE w.fields IS NOT NULL
    ON CONFLICT (path) DO UPDATE
        SET fields = EXCLUDED.fields, update_time_us = EXCLUDED.update_time_us,
            terms = EXCLUDED.terms, times = EXCLUDED.times
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

-- read_together: read documents of one moment, without a read time and without a lock.
--
-- p_paths    document paths
-- path, fields_json, create_us, update_us   those that are there
CREATE OR REPLACE FUNCTION documents.read_together(p_paths text[])
RETURNS TABLE (path text, fields_json text, create_us bigint, update_us bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT d.path::text, d.fields, d.create_time_us, d.update_time_us
    FROM documents.document AS d
    WHERE d.path = ANY (p_paths);
END;
$$;

-- find_documents: read documents of one collection as they are now.
--
-- p_collection, p_above, p_up_to   path without ids, and bounds of the segments, the lower one
--                                  excluded: they hold one collection
-- p_terms          a document has all of them; NULL: no term is asked for.  They are of one
--                  collection, but for texts that share a number
-- p_time_field     name in times; NULL: no time is asked for.  Ordered by it, else by segments
-- p_from_us, p_to_us   bounds of the time, included
-- p_after_us, p_after  only what follows this time (NULL without p_time_field) and these segments;
--                  p_after NULL: from the first on
-- p_is_falling     largest first
-- p_limit          most documents; NULL: all
-- returns          one row with read_us alone: a time above every commit that is seen, below every
--                  later one; then the documents
--
-- Put together while it runs, out of these literals: each kind of question gets a plan of its own.
-- A read time that a crash takes back is given out again only if the clock was set back as well,
-- and nothing but the reader's own `as of` comes of it; so nobody need wait for the disk.
CREATE OR REPLACE FUNCTION documents.find_documents(
    p_collection text, p_above text[], p_up_to text[], p_terms bigint[],
    p_time_field text, p_from_us bigint, p_to_us bigint, p_after_us bigint, p_after text[],
    p_is_falling boolean, p_limit bigint
) RETURNS TABLE (read_us bigint, path text, fields text, create_us bigint, update_us bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_where text := 'd.collection = $1 AND d.segments > $2 AND d.segments <= $3';
    v_place text := 'd.segments';
    v_after text := '$9';
    v_direction text := CASE WHEN p_is_falling THEN ' DESC' ELSE '' END;
    v_beyond text := CASE WHEN p_is_falling THEN ' < ' ELSE ' > ' END;
    v_order text := 'd.segments';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    read_us := documents.draw_time();
    RETURN NEXT;
    IF p_terms IS NOT NULL THEN
        v_where := 'd.terms @> $4';
    END IF;
    IF p_time_field IS NOT NULL THEN
        v_where := v_where || ' AND (d.times ->> $5)::bigint BETWEEN $6 AND $7';
        v_place := '((d.times ->> $5)::bigint, d.segments)';
        v_after := '($8, $9)';
        v_order := '(d.times ->> $5)::bigint' || v_direction || ', d.segments';
    END IF;
    IF p_after IS NOT NULL THEN
        v_where := v_where || ' AND ' || v_place || v_beyond || v_after;
    END IF;
    RETURN QUERY EXECUTE
        'SELECT NULL::bigint, d.path::text, d.fields, d.create_time_us, d.update_time_us'
        || ' FROM documents.document AS d WHERE ' || v_where
        || ' ORDER BY ' || v_order || v_direction || ' LIMIT $10'
        USING p_collection, p_above, p_up_to, p_terms, p_time_field, p_from_us, p_to_us,
              p_after_us, p_after, p_limit;
END;
$$;
