-- bus.publish: put messages on a topic, all or none; one statement, one transaction.
--
-- p_message_ids    ids, none twice in the array
-- p_bodies, p_content_types, p_properties (JSON objects)   one each, same order
-- returns          how many were accepted; the others had been seen within the duplicate window
--
-- Ids are claimed in their own order, so that two publishers of the same ids wait for each other
-- and never in a circle.
CREATE OR REPLACE FUNCTION bus.publish(
    p_topic text, p_message_ids text[], p_bodies bytea[], p_content_types text[],
    p_properties text[]
) RETURNS integer LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_topic bus.topic;
    v_now_us bigint := bus.now_us();
    v_accepted text[];
BEGIN
    -- A transaction has its id before it draws a sequence number: bus.advance_low_water rests on it.
    PERFORM pg_current_xact_id();
    -- Whoever publishes forgets its copy once this is committed: then it must be on disk.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    SELECT * INTO v_topic FROM bus.topic WHERE name = p_topic;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no topic "%": run `storemirror bus provision` first', p_topic;
    END IF;
    WITH accepted AS (
        INSERT INTO bus.seen AS s (topic_id, message_id, accepted_at_us)
        SELECT v_topic.topic_id, m.message_id, v_now_us
        FROM unnest(p_message_ids) AS m (message_id)
        ORDER BY m.message_id COLLATE "C"
        ON CONFLICT (topic_id, message_id) DO UPDATE
            SET accepted_at_us = EXCLUDED.accepted_at_us
            WHERE s.accepted_at_us <= EXCLUDED.accepted_at_us - v_topic.duplicate_window_us
        RETURNING message_id
    )
    SELECT coalesce(array_agg(message_id), '{}') INTO v_accepted FROM accepted;

    INSERT INTO bus.queue
        (subscription_id, enqueued_at_us, message_id, content_type, properties, body)
    SELECT s.subscription_id, v_now_us, m.message_id, m.content_type, m.properties::json, m.body
    FROM unnest(p_message_ids, p_bodies, p_content_types, p_properties)
        WITH ORDINALITY AS m (message_id, body, content_type, properties, place)
    JOIN unnest(v_accepted) AS a (message_id) ON a.message_id = m.message_id
    CROSS JOIN bus.subscription s
    WHERE s.topic_id = v_topic.topic_id
    ORDER BY s.subscription_id, m.place;
    RETURN cardinality(v_accepted);
END
$$;

-- bus.resubmit: put a dead letter on its subscription again under a new id, and drop it.
--
-- returns  'resubmitted' | 'unknown' (no such dead letter) | 'seen' (the new id was accepted
--          within the duplicate window; nothing was changed)
CREATE OR REPLACE FUNCTION bus.resubmit(
    p_topic text, p_subscription text, p_sequence_number bigint, p_message_id text,
    p_properties text
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_subscription bus.subscribed := bus.find_subscription(p_topic, p_subscription);
    v_letter bus.dead_letter;
    v_now_us bigint := bus.now_us();
BEGIN
    PERFORM pg_current_xact_id();
    SELECT * INTO v_letter FROM bus.dead_letter
    WHERE subscription_id = v_subscription.subscription_id AND sequence_number = p_sequence_number
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    INSERT INTO bus.seen AS s (topic_id, message_id, accepted_at_us)
    SELECT t.topic_id, p_message_id, v_now_us FROM bus.topic t WHERE t.name = p_topic
    ON CONFLICT (topic_id, message_id) DO UPDATE
        SET accepted_at_us = EXCLUDED.accepted_at_us
        WHERE s.accepted_at_us <= EXCLUDED.accepted_at_us
            - (SELECT t.duplicate_window_us FROM bus.topic t WHERE t.name = p_topic);
    IF NOT FOUND THEN
        RETURN 'seen';
    END IF;
    INSERT INTO bus.queue
        (subscription_id, enqueued_at_us, message_id, content_type, properties, body)
    VALUES (v_letter.subscription_id, v_now_us, p_message_id, v_letter.content_type,
            p_properties::json, v_letter.body);
    DELETE FROM bus.dead_letter
    WHERE subscription_id = v_letter.subscription_id AND sequence_number = p_sequence_number;
    RETURN 'resubmitted';
END
$$;
