-- Tables of the bus.  Run by BusAdmin.provision, as often as one likes.
--
-- Times are microseconds since the Unix epoch by this database's clock (bus.now_us), durations are
-- microseconds.  Nothing is ever dropped here.
--
-- While others publish and consume, this must hold at most one lock that they wait for, so that
-- nobody waits in a circle: it is the exclusive one on the view bus.subscribed.  CREATE INDEX locks
-- its table even where the index is there already, hence the look before it.

CREATE SCHEMA IF NOT EXISTS bus;

-- One row: which scripts made what is here.  Provisioning runs them again when they are others.
CREATE TABLE IF NOT EXISTS bus.installation (
    is_only_row   boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    script_digest text NOT NULL
);

-- One number for every message in every subscription.  CACHE must stay 1: with a larger one a
-- session draws numbers below last_value later, and bus.advance_low_water would pass them.
CREATE SEQUENCE IF NOT EXISTS bus.sequence_number AS bigint CACHE 1;

CREATE TABLE IF NOT EXISTS bus.topic (
    topic_id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text COLLATE "C" NOT NULL UNIQUE,
    duplicate_window_us bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS bus.subscription (
    subscription_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_id           integer NOT NULL REFERENCES bus.topic,
    name               text COLLATE "C" NOT NULL,
    lock_duration_us   bigint NOT NULL,
    max_delivery_count integer NOT NULL,
    time_to_live_us    bigint,
    drops_expired      boolean NOT NULL,
    UNIQUE (topic_id, name)
);

-- Every message of a subscription has a sequence number above `mark`, now and for ever.
-- `candidate` may become the mark once every transaction up to `candidate_xid` has ended.
CREATE TABLE IF NOT EXISTS bus.low_water (
    subscription_id integer PRIMARY KEY REFERENCES bus.subscription,
    mark            bigint NOT NULL DEFAULT 0,
    candidate       bigint,
    candidate_xid   xid8
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- One row a message and subscription, gone when it is settled.  A lock and its renewals touch no
-- index, and the free half of each page keeps them in place (HOT).  Dead rows are swept up by
-- count, not by a share of a table that is large one minute and empty the next.
CREATE TABLE IF NOT EXISTS bus.queue (
    subscription_id integer NOT NULL,
    sequence_number bigint NOT NULL DEFAULT nextval('bus.sequence_number'),
    enqueued_at_us  bigint NOT NULL,
    locked_until_us bigint NOT NULL DEFAULT 0,
    lock_token      uuid,
    delivery_count  integer NOT NULL DEFAULT 0,
    message_id      text COLLATE "C" NOT NULL,
    content_type    text NOT NULL,
    properties      json NOT NULL,
    body            bytea NOT NULL,
    PRIMARY KEY (subscription_id, sequence_number)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE IF NOT EXISTS bus.dead_letter (
    subscription_id     integer NOT NULL,
    sequence_number     bigint NOT NULL,
    enqueued_at_us      bigint NOT NULL,
    dead_lettered_at_us bigint NOT NULL,
    delivery_count      integer NOT NULL,
    reason              text NOT NULL,
    description         text NOT NULL,
    acknowledged_reason text,
    message_id          text COLLATE "C" NOT NULL,
    content_type        text NOT NULL,
    properties          json NOT NULL,
    body                bytea NOT NULL,
    PRIMARY KEY (subscription_id, sequence_number)
);

-- Message ids accepted within the duplicate window.
CREATE TABLE IF NOT EXISTS bus.seen (
    topic_id       integer NOT NULL,
    message_id     text COLLATE "C" NOT NULL,
    accepted_at_us bigint NOT NULL,
    PRIMARY KEY (topic_id, message_id)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
DO $$
BEGIN
    IF to_regclass('bus.seen_by_age') IS NULL THEN
        CREATE INDEX seen_by_age ON bus.seen (topic_id, accepted_at_us);
    END IF;
END
$$;

-- How many deliveries were completed: one row a call, added up by bus.sweep.  A single counter row
-- would make consumers wait for each other's commits.
CREATE TABLE IF NOT EXISTS bus.completed (
    subscription_id integer NOT NULL,
    delivery_count  bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE OR REPLACE VIEW bus.subscribed AS
SELECT t.name AS topic, s.name AS subscription, s.subscription_id, s.lock_duration_us,
       s.max_delivery_count, s.time_to_live_us, s.drops_expired, w.mark
FROM bus.topic t
JOIN bus.subscription s USING (topic_id)
JOIN bus.low_water w USING (subscription_id);

-- bus.now_us: this database's clock, which moves within a transaction.
CREATE OR REPLACE FUNCTION bus.now_us() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- bus.find_subscription: a subscription with its settings, or an error that says what to do.
CREATE OR REPLACE FUNCTION bus.find_subscription(p_topic text, p_subscription text)
RETURNS bus.subscribed LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_found bus.subscribed;
BEGIN
    SELECT * INTO v_found FROM bus.subscribed s
    WHERE s.topic = p_topic AND s.subscription = p_subscription;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic "%" has no subscription "%": run `storemirror bus provision` first',
            p_topic, p_subscription;
    END IF;
    RETURN v_found;
END
$$;
