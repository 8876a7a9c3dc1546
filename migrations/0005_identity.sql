-- The log knows itself: where it is stored is compared at each append, so that a failover, a restore or a copy into another
-- database gives it a new epoch before the first event is appended there.

-- Where the log is stored: system identifier / timeline / database / table / change of the data folder's PG_VERSION file
-- (a copy has another), as numbers separated by slashes. A part that this role may not read is '-'. NULL on a standby, which appends nothing. The timeline comes from the present WAL position:
-- the control file names the old one until the first checkpoint after a promotion.
CREATE FUNCTION taskwatch.log_origin() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    system text := '-';
    folder text := '-';
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    IF has_function_privilege('pg_catalog.pg_control_system()', 'execute') THEN
        SELECT c.system_identifier::text INTO system FROM pg_catalog.pg_control_system() c;
    END IF;
    IF has_function_privilege('pg_catalog.pg_stat_file(text)', 'execute') THEN
        SELECT extract(epoch FROM f.change)::bigint::text INTO folder FROM pg_catalog.pg_stat_file('PG_VERSION') f;
    END IF;
    RETURN concat_ws('/', system,
        ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint,
        (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()),
        'taskwatch.log'::regclass::oid, folder);
END $$;
COMMENT ON FUNCTION taskwatch.log_origin IS 'Where the log is stored: system identifier, timeline, database, table, folder.';

-- True when two origins may be the same: parts that one of them does not know ('-', or left out) are not compared.
CREATE FUNCTION taskwatch.same_origin(stored text, present text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(bool_and(s.part = p.part OR s.part = '-' OR p.part = '-'), true)
    FROM unnest(string_to_array(stored, '/')) WITH ORDINALITY AS s (part, number)
    JOIN unnest(string_to_array(present, '/')) WITH ORDINALITY AS p (part, number) USING (number)
$$;
COMMENT ON FUNCTION taskwatch.same_origin IS 'True unless a part that both origins know differs.';

-- Takes the log's lock until the end of the transaction, then reads the top position in a NEW statement:
-- each statement of a VOLATILE function has its own snapshot, so it sees what the last holder committed.
-- `known` is any position known to exist (it prunes older partitions), or 0 from a session that has not looked where the log
-- is stored: when that is not where it was written last, the log gets a new epoch here.
DROP FUNCTION taskwatch.lock_log(bigint);
CREATE FUNCTION taskwatch.lock_log(known bigint, OUT head bigint, OUT xid text, OUT epoch text)
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    stored text;
    present text;
BEGIN
    PERFORM pg_advisory_xact_lock(8386658438437413987);
    SELECT e.position INTO head FROM taskwatch.events e WHERE e.position >= known ORDER BY e.position DESC LIMIT 1;
    IF head IS NULL THEN
        SELECT coalesce((SELECT e.position FROM taskwatch.events e ORDER BY e.position DESC LIMIT 1), l.oldest - 1)
        INTO head FROM taskwatch.log l;
    END IF;
    xid := pg_current_xact_id()::text;
    -- By its key: the writer's sessions forbid scans of tables.
    SELECT l.epoch, l.origin INTO epoch, stored FROM taskwatch.log l WHERE l.only_row;
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

COMMENT ON COLUMN taskwatch.log.origin IS 'Where the log was stored when it was written last: system identifier, timeline, database, table and folder, separated by slashes. Another place means that it was restored, copied or promoted.';
