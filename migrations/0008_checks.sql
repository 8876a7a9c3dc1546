-- What is checked at each write costs each write: Postgres reads and prepares every CHECK of a table anew for each
-- statement, 5 us each, which was half the time of a row of tasks. Rows of tasks come from the writer, whose types hold the
-- rules, and from taskwatch.enqueue, which has checked them; so one CHECK is left for what no reader could read.

DO $$
DECLARE
    rule record;
BEGIN
    FOR rule IN SELECT c.conrelid::regclass AS of, c.conname FROM pg_constraint c
        WHERE c.contype = 'c' AND c.conrelid IN ('taskwatch.tasks'::regclass, 'taskwatch.leases'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.of, rule.conname);
    END LOOP;
END $$;

ALTER TABLE taskwatch.tasks ADD CONSTRAINT tasks_times_range CHECK (
    least(created_at, run_at, enqueued_at, started_at, finished_at) >= '0001-01-01 00:00:00+00'
    AND greatest(created_at, run_at, enqueued_at, started_at, finished_at) < '10000-01-01 00:00:00+00');
ALTER TABLE taskwatch.leases ADD CONSTRAINT leases_times_range CHECK (
    least(expires_at, deadline) >= '0001-01-01 00:00:00+00' AND greatest(expires_at, deadline) < '10000-01-01 00:00:00+00');

-- A partition's own bounds hold the same: the CHECK is only there so that it is attached without a scan.
CREATE OR REPLACE FUNCTION taskwatch.ensure_partitions(head bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    size CONSTANT bigint := 1000000;
    first bigint := (greatest(head, 0) / size) * size;
    made integer := 0;
    name text;
BEGIN
    FOR i IN 0..2 LOOP
        name := format('events_%s', first / size + i);
        IF to_regclass('taskwatch.' || name) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('taskwatch.partitions', 0));
            IF to_regclass('taskwatch.' || name) IS NULL THEN
                EXECUTE format('CREATE TABLE taskwatch.%I (LIKE taskwatch.events INCLUDING ALL)', name);
                EXECUTE format('ALTER TABLE taskwatch.%I ADD CONSTRAINT bounds CHECK (position >= %s AND position < %s)',
                    name, first + i * size, first + (i + 1) * size);
                EXECUTE format('ALTER TABLE taskwatch.events ATTACH PARTITION taskwatch.%I FOR VALUES FROM (%s) TO (%s)',
                    name, first + i * size, first + (i + 1) * size);
                EXECUTE format('ALTER TABLE taskwatch.%I DROP CONSTRAINT bounds', name);
                made := made + 1;
            END IF;
        END IF;
    END LOOP;
    RETURN made;
END $$;

DO $$
DECLARE
    rule record;
BEGIN
    FOR rule IN SELECT c.conrelid::regclass AS of, c.conname FROM pg_constraint c JOIN pg_inherits i ON i.inhrelid = c.conrelid
        WHERE c.contype = 'c' AND i.inhparent = 'taskwatch.events'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.of, rule.conname);
    END LOOP;
END $$;

-- As before, with one statement less.
CREATE OR REPLACE FUNCTION taskwatch.lock_log(known bigint, OUT head bigint, OUT xid text, OUT epoch text)
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    stored text;
    present text;
BEGIN
    PERFORM pg_advisory_xact_lock(8386658438437413987);
    -- By its key: the writer's sessions forbid scans of tables.
    SELECT (SELECT e.position FROM taskwatch.events e WHERE e.position >= known ORDER BY e.position DESC LIMIT 1),
        pg_current_xact_id()::text, l.epoch, l.origin
    INTO head, xid, epoch, stored FROM taskwatch.log l WHERE l.only_row;
    IF head IS NULL THEN
        SELECT coalesce((SELECT e.position FROM taskwatch.events e ORDER BY e.position DESC LIMIT 1), l.oldest - 1)
        INTO head FROM taskwatch.log l;
    END IF;
    -- Within a session the place cannot change, so the writer, which looks when it connects, need not look again.
    IF known > 0 THEN
        RETURN;
    END IF;
    present := taskwatch.log_origin();
    IF stored IS DISTINCT FROM present THEN
        IF NOT taskwatch.same_origin(stored, present) THEN
            epoch := lpad(to_hex(floor(random() * 4294967296)::bigint), 8, '0');
            DELETE FROM taskwatch.checkpoints c WHERE c.position > head;
        END IF;
        UPDATE taskwatch.log l SET epoch = lock_log.epoch, origin = present WHERE l.only_row;
    END IF;
END $$;
