-- Upkeep, run about once a second by every process that publishes or consumes.

-- bus.advance_low_water: move the marks of a topic's subscriptions up, as far as is safe.
--
-- In three steps, in this order: read the sequence's last number V; take a transaction id X; later,
-- when every transaction up to X has ended, move the mark to V or to just below the first message
-- that is still there.  Whoever drew a number up to V had a transaction id before (bus.publish),
-- thus one below X; has it ended, the number is visible or will never come.  To move the mark to
-- the highest number seen, as one is tempted to, loses the message whose lower number is committed
-- later.
--
-- Must be the whole of its transaction: an id taken before V was read proves nothing.
CREATE OR REPLACE FUNCTION bus.advance_low_water(p_topic text) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    v_last_number bigint;
    v_xid xid8;
    v_water record;
    v_first bigint;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'bus.advance_low_water must be a transaction of its own';
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO v_last_number
    FROM bus.sequence_number;
    v_xid := pg_current_xact_id();
    FOR v_water IN
        SELECT w.* FROM bus.low_water w
        JOIN bus.subscription s USING (subscription_id)
        JOIN bus.topic t USING (topic_id)
        WHERE t.name = p_topic AND w.mark < v_last_number
        FOR UPDATE OF w SKIP LOCKED
    LOOP
        IF v_water.candidate IS NULL THEN
            UPDATE bus.low_water SET candidate = v_last_number, candidate_xid = v_xid
            WHERE subscription_id = v_water.subscription_id;
        ELSIF v_water.candidate_xid < pg_snapshot_xmin(pg_current_snapshot()) THEN
            SELECT q.sequence_number INTO v_first FROM bus.queue q
            WHERE q.subscription_id = v_water.subscription_id
              AND q.sequence_number > v_water.mark
            ORDER BY q.sequence_number LIMIT 1;
            UPDATE bus.low_water
            SET mark = greatest(v_water.mark, least(v_water.candidate, v_first - 1)),
                candidate = v_last_number, candidate_xid = v_xid
            WHERE subscription_id = v_water.subscription_id;
        END IF;
    END LOOP;
END
$$;

-- bus.sweep: deal with what nobody fetches: expired and exhausted messages, old ids.
--
-- p_page   most rows of each kind and subscription to look at
-- returns  whether a page was full, so that there may be more
--
-- Only the first messages of a subscription are looked at: the oldest expire first.
CREATE OR REPLACE FUNCTION bus.sweep(p_topic text, p_page integer) RETURNS boolean
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    v_subscription bus.subscribed;
    v_now_us bigint := bus.now_us();
    v_front bigint[];
    v_exhausted bigint[];
    v_expired bigint[];
    v_topic bus.topic;
    v_old_ids text[];
    v_has_more boolean := false;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR v_subscription IN SELECT * FROM bus.subscribed WHERE topic = p_topic LOOP
        v_front := ARRAY(
            SELECT q.sequence_number FROM bus.queue q
            WHERE q.subscription_id = v_subscription.subscription_id
              AND q.sequence_number > v_subscription.mark
            ORDER BY q.sequence_number LIMIT p_page);
        SELECT coalesce(array_agg(f.sequence_number) FILTER (WHERE f.is_exhausted), '{}'),
               coalesce(array_agg(f.sequence_number) FILTER (WHERE NOT f.is_exhausted), '{}')
        INTO v_exhausted, v_expired
        FROM (
            SELECT q.sequence_number,
                   q.delivery_count >= v_subscription.max_delivery_count AS is_exhausted
            FROM bus.queue q
            WHERE q.subscription_id = v_subscription.subscription_id
              AND q.sequence_number = ANY (v_front)
              AND q.locked_until_us <= v_now_us
              AND (q.delivery_count >= v_subscription.max_delivery_count
                   OR q.enqueued_at_us <= v_now_us - v_subscription.time_to_live_us)
            FOR UPDATE SKIP LOCKED
        ) f;
        PERFORM bus.bury_exhausted(v_subscription, v_exhausted);
        IF v_subscription.drops_expired THEN
            DELETE FROM bus.queue q
            WHERE q.subscription_id = v_subscription.subscription_id
              AND q.sequence_number = ANY (v_expired);
        ELSE
            PERFORM bus.bury_as(
                v_subscription.subscription_id, v_expired, 'TTLExpiredException',
                format('Nobody took it within %s s.', v_subscription.time_to_live_us / 1000000.0));
        END IF;
        v_has_more := v_has_more
            OR cardinality(v_exhausted) + cardinality(v_expired) = p_page;
        PERFORM bus.fold_completed(v_subscription.subscription_id);
    END LOOP;

    SELECT * INTO v_topic FROM bus.topic WHERE name = p_topic;
    v_old_ids := ARRAY(
        SELECT message_id FROM bus.seen
        WHERE topic_id = v_topic.topic_id
          AND accepted_at_us <= v_now_us - v_topic.duplicate_window_us
        ORDER BY accepted_at_us LIMIT p_page
        FOR UPDATE SKIP LOCKED);
    DELETE FROM bus.seen WHERE topic_id = v_topic.topic_id AND message_id = ANY (v_old_ids);
    RETURN v_has_more OR cardinality(v_old_ids) = p_page;
END
$$;

-- bus.fold_completed: add a subscription's counts up into one row, once there are many.
CREATE OR REPLACE FUNCTION bus.fold_completed(p_subscription_id integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM bus.completed WHERE subscription_id = p_subscription_id) < 100 THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM bus.completed WHERE subscription_id = p_subscription_id
        RETURNING delivery_count
    )
    INSERT INTO bus.completed (subscription_id, delivery_count)
    SELECT p_subscription_id, sum(delivery_count) FROM gone HAVING count(*) > 0;
END
$$;

-- bus.purge: remove the first messages of a subscription that nobody holds (BusAdmin.purge).
--
-- p_page      most messages
-- p_until_us  what was enqueued later stays: it may be of after whatever the purge is for
-- returns     how many went; fewer than p_page: nothing waited any more
CREATE OR REPLACE FUNCTION bus.purge(
    p_topic text, p_subscription text, p_page integer, p_until_us bigint
) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_now_us bigint := bus.now_us();
    v_numbers bigint[];
BEGIN
    v_numbers := ARRAY(
        SELECT q.sequence_number FROM bus.queue q
        WHERE q.subscription_id = v_subscription.subscription_id
          AND q.sequence_number > v_subscription.mark
          AND q.locked_until_us <= v_now_us
          AND q.enqueued_at_us <= p_until_us
        ORDER BY q.sequence_number LIMIT p_page
        FOR UPDATE SKIP LOCKED);
    DELETE FROM bus.queue q
    WHERE q.subscription_id = v_subscription.subscription_id
      AND q.sequence_number = ANY (v_numbers);
    RETURN cardinality(v_numbers);
END
$$;

-- bus.stats: one subscription at one moment; a row as SubscriptionStats wants it.
CREATE OR REPLACE FUNCTION bus.stats(p_topic text, p_subscription text)
RETURNS TABLE (
    depth bigint, locked_count bigint, oldest_enqueued_at_us bigint, dead_letter_count bigint,
    acknowledged_count bigint, completed_count bigint, now_us bigint
) LANGUAGE plpgsql
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_now_us bigint := bus.now_us();
BEGIN
    RETURN QUERY
    SELECT q.depth, q.locked_count, q.oldest_us, d.open_count, d.acknowledged_count,
           (SELECT coalesce(sum(c.delivery_count), 0)::bigint FROM bus.completed c
            WHERE c.subscription_id = v_subscription.subscription_id),
           v_now_us
    FROM (
        SELECT count(*) AS depth, count(*) FILTER (WHERE locked_until_us > v_now_us) AS locked_count,
               min(enqueued_at_us) AS oldest_us
        FROM bus.queue
        WHERE subscription_id = v_subscription.subscription_id
          AND sequence_number > v_subscription.mark
    ) q,
    (
        SELECT count(*) FILTER (WHERE acknowledged_reason IS NULL) AS open_count,
               count(acknowledged_reason) AS acknowledged_count
        FROM bus.dead_letter WHERE subscription_id = v_subscription.subscription_id
    ) d;
END
$$;
