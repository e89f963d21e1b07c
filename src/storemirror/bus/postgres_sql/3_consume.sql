-- Receiving and settling.  Plans are pinned to the primary key: one that was made while the table
-- was empty would read the whole of it later.

-- bus.bury: turn messages, locked by this transaction, into dead letters.
--
-- p_reasons, p_descriptions  one a sequence number, same order
CREATE OR REPLACE FUNCTION bus.bury(
    p_subscription_id integer, p_sequence_numbers bigint[], p_reasons text[], p_descriptions text[]
) RETURNS void LANGUAGE sql
SET enable_seqscan = off AS $$
    WITH gone AS (
        DELETE FROM bus.queue
        WHERE subscription_id = p_subscription_id AND sequence_number = ANY (p_sequence_numbers)
        RETURNING *
    )
    INSERT INTO bus.dead_letter (
        subscription_id, sequence_number, enqueued_at_us, dead_lettered_at_us, delivery_count,
        reason, description, message_id, content_type, properties, body)
    SELECT g.subscription_id, g.sequence_number, g.enqueued_at_us, bus.now_us(), g.delivery_count,
           b.reason, b.description, g.message_id, g.content_type, g.properties, g.body
    FROM gone g
    JOIN unnest(p_sequence_numbers, p_reasons, p_descriptions)
        AS b (sequence_number, reason, description) USING (sequence_number)
$$;

-- bus.bury_as: the same, with one reason for all, as the bus gives it.
CREATE OR REPLACE FUNCTION bus.bury_as(
    p_subscription_id integer, p_sequence_numbers bigint[], p_reason text, p_description text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_sequence_numbers) > 0 THEN
        PERFORM bus.bury(
            p_subscription_id, p_sequence_numbers,
            array_fill(p_reason, ARRAY[cardinality(p_sequence_numbers)]),
            array_fill(p_description, ARRAY[cardinality(p_sequence_numbers)]));
    END IF;
END
$$;

-- bus.bury_exhausted: dead-letter messages that came back once too often.
CREATE OR REPLACE FUNCTION bus.bury_exhausted(
    p_subscription bus.subscribed, p_sequence_numbers bigint[]
) RETURNS void LANGUAGE sql AS $$
    SELECT bus.bury_as(
        p_subscription.subscription_id, p_sequence_numbers, 'MaxDeliveryCountExceeded',
        format('Received %s times without being settled.', p_subscription.max_delivery_count))
$$;

-- bus.receive: lock and give messages, the oldest first.
--
-- p_ignores_mark  look from the very first message on, not from the low-water mark
-- p_token         a new uuid: this reception's lock
-- returns         at most p_count messages, in no particular order
--
-- Not flushed to disk: a lock that a crash forgets is one that ran out early.
CREATE OR REPLACE FUNCTION bus.receive(
    p_topic text, p_subscription text, p_count integer, p_token uuid, p_ignores_mark boolean
) RETURNS TABLE (
    sequence_number bigint, message_id text, body bytea, content_type text, properties text,
    delivery_count integer, enqueued_at_us bigint, locked_until_us bigint
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_mark bigint := CASE WHEN p_ignores_mark THEN 0 ELSE v_subscription.mark END;
    v_now_us bigint;
    v_picked bigint[];
    v_exhausted bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        v_now_us := bus.now_us();
        -- At most 16 MiB at once, and at least one message: documents may have 1 MiB each.
        SELECT array_agg(r.sequence_number) FILTER (
                   WHERE NOT r.is_exhausted AND (r.size_before IS NULL OR r.size_before < 16777216)),
               array_agg(r.sequence_number) FILTER (WHERE r.is_exhausted)
        INTO v_picked, v_exhausted
        FROM (
            SELECT p.sequence_number, p.is_exhausted, sum(p.size_bytes) OVER (
                PARTITION BY p.is_exhausted ORDER BY p.sequence_number
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS size_before
        FROM (
            SELECT q.sequence_number, octet_length(q.body) AS size_bytes,
                   q.delivery_count >= v_subscription.max_delivery_count AS is_exhausted
            FROM bus.queue q
            WHERE q.subscription_id = v_subscription.subscription_id
              AND q.sequence_number > v_mark
              AND q.locked_until_us <= v_now_us
              AND (v_subscription.time_to_live_us IS NULL
                   OR q.enqueued_at_us > v_now_us - v_subscription.time_to_live_us)
            ORDER BY q.sequence_number
            LIMIT p_count
            FOR UPDATE SKIP LOCKED
        ) p) r;
        PERFORM bus.bury_exhausted(v_subscription, v_exhausted);
        EXIT WHEN v_picked IS NOT NULL OR v_exhausted IS NULL;
    END LOOP;

    RETURN QUERY
    UPDATE bus.queue q
    SET locked_until_us = v_now_us + v_subscription.lock_duration_us, lock_token = p_token,
        delivery_count = q.delivery_count + 1
    WHERE q.subscription_id = v_subscription.subscription_id AND q.sequence_number = ANY (v_picked)
    RETURNING q.sequence_number, q.message_id, q.body, q.content_type, q.properties::text,
              q.delivery_count, q.enqueued_at_us, q.locked_until_us;
END
$$;

-- bus.hold: lock the rows of deliveries that are still held, in the order given.
--
-- p_sequence_numbers, p_tokens  one each a delivery
-- returns                       places (from 1) of those that are still held
CREATE OR REPLACE FUNCTION bus.hold(
    p_subscription_id integer, p_sequence_numbers bigint[], p_tokens uuid[]
) RETURNS bigint[] LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now_us bigint := bus.now_us();
BEGIN
    RETURN ARRAY(
        SELECT d.place
        FROM unnest(p_sequence_numbers, p_tokens) WITH ORDINALITY AS d (number, token, place),
        LATERAL (
            SELECT FROM bus.queue q
            WHERE q.subscription_id = p_subscription_id AND q.sequence_number = d.number
              AND q.lock_token = d.token AND q.locked_until_us > v_now_us
            FOR UPDATE
        ) held);
END
$$;

-- bus.complete: settle deliveries for good, and count them in the same transaction.
--
-- returns  places (from 1) of those that were still held
--
-- Not flushed to disk: what a crash forgets comes again, as it would had the crash been earlier.
CREATE OR REPLACE FUNCTION bus.complete(
    p_topic text, p_subscription text, p_sequence_numbers bigint[], p_tokens uuid[]
) RETURNS bigint[] LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_places bigint[] := bus.hold(
        v_subscription.subscription_id, p_sequence_numbers, p_tokens);
    v_numbers bigint[] := ARRAY(SELECT p_sequence_numbers[place] FROM unnest(v_places) AS place);
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM bus.queue
    WHERE subscription_id = v_subscription.subscription_id AND sequence_number = ANY (v_numbers);
    INSERT INTO bus.completed (subscription_id, delivery_count)
    SELECT v_subscription.subscription_id, cardinality(v_places)
    WHERE cardinality(v_places) > 0;
    RETURN v_places;
END
$$;

-- bus.abandon: make deliveries available again at once; one that has had its last is buried.
--
-- returns  places (from 1) of those that were still held
CREATE OR REPLACE FUNCTION bus.abandon(
    p_topic text, p_subscription text, p_sequence_numbers bigint[], p_tokens uuid[]
) RETURNS bigint[] LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_places bigint[] := bus.hold(
        v_subscription.subscription_id, p_sequence_numbers, p_tokens);
    v_numbers bigint[] := ARRAY(SELECT p_sequence_numbers[place] FROM unnest(v_places) AS place);
BEGIN
    UPDATE bus.queue SET locked_until_us = 0, lock_token = NULL
    WHERE subscription_id = v_subscription.subscription_id AND sequence_number = ANY (v_numbers);
    PERFORM bus.bury_exhausted(v_subscription, ARRAY(
        SELECT sequence_number FROM bus.queue
        WHERE subscription_id = v_subscription.subscription_id
          AND sequence_number = ANY (v_numbers)
          AND delivery_count >= v_subscription.max_delivery_count));
    RETURN v_places;
END
$$;

-- bus.set_aside: dead-letter deliveries (Consumer.dead_letter).
--
-- returns  places (from 1) of those that were still held
CREATE OR REPLACE FUNCTION bus.set_aside(
    p_topic text, p_subscription text, p_sequence_numbers bigint[], p_tokens uuid[],
    p_reasons text[], p_descriptions text[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_places bigint[] := bus.hold(
        v_subscription.subscription_id, p_sequence_numbers, p_tokens);
BEGIN
    PERFORM bus.bury(
        v_subscription.subscription_id,
        ARRAY(SELECT p_sequence_numbers[place] FROM unnest(v_places) AS place),
        ARRAY(SELECT p_reasons[place] FROM unnest(v_places) AS place),
        ARRAY(SELECT p_descriptions[place] FROM unnest(v_places) AS place));
    RETURN v_places;
END
$$;

-- bus.renew: extend locks by a whole lock duration.
--
-- returns  a row for each delivery that was still held: its place (from 1) and its new time
CREATE OR REPLACE FUNCTION bus.renew(
    p_topic text, p_subscription text, p_sequence_numbers bigint[], p_tokens uuid[]
) RETURNS TABLE (place bigint, locked_until_us bigint) LANGUAGE plpgsql
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_places bigint[] := bus.hold(
        v_subscription.subscription_id, p_sequence_numbers, p_tokens);
    v_until_us bigint := bus.now_us() + v_subscription.lock_duration_us;
BEGIN
    UPDATE bus.queue SET locked_until_us = v_until_us
    WHERE subscription_id = v_subscription.subscription_id
      AND sequence_number = ANY (
          ARRAY(SELECT p_sequence_numbers[p] FROM unnest(v_places) AS p));
    RETURN QUERY SELECT p, v_until_us FROM unnest(v_places) AS p;
END
$$;
