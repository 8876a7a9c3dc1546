-- Waiting: who waits for whom, so that nothing waits in a ring; groups and reported tasks that wait for nothing.

-- Groups in progress, and reported tasks that have not finished: few, and looked at again and again.
CREATE INDEX tasks_groups ON taskwatch.tasks (created_at) WHERE close_when_done AND status IN ('blocked', 'running');
CREATE INDEX tasks_watched ON taskwatch.tasks (created_at)
    WHERE observed IS NOT NULL AND status NOT IN ('completed', 'failed', 'cancelled');

-- Who waits for some tasks, directly or not, up to so many rows: tasks for what they depend on, groups for their children.
-- It is walked row by row and upwards, because a task has one parent and a group may have a million children.
CREATE FUNCTION taskwatch.waiters(seeds uuid[], most integer) RETURNS TABLE (awaited uuid, waiter uuid)
    LANGUAGE sql STABLE AS $$
    WITH RECURSIVE up (awaited, waiter) AS (
        SELECT NULL::uuid, seed FROM unnest(seeds) AS seed
        UNION
        SELECT up.waiter, further.waiter FROM up CROSS JOIN LATERAL (
            SELECT d.task_id AS waiter FROM taskwatch.dependents d WHERE d.depends_on = up.waiter
            UNION ALL
            SELECT p.id FROM taskwatch.tasks t JOIN taskwatch.tasks p ON p.id = t.parent_task_id
            WHERE t.id = up.waiter AND p.close_when_done AND p.status <> 'cancelled'
        ) AS further
    )
    SELECT up.awaited, up.waiter FROM up WHERE up.awaited IS NOT NULL LIMIT most
$$;

-- Transactional enqueue: the same rules as in the program. Triggers of one event fire in the order of their names, so this
-- one comes before enqueue_at_commit, and rings_at_commit after it.
CREATE FUNCTION taskwatch.bound_enqueued() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me constant xid8 := pg_current_xact_id();
    seen constant text := current_setting('taskwatch.bounded', true);
BEGIN
    -- The first call sees to all rows that there are.
    IF seen LIKE me || ':%' AND NEW.number <= split_part(seen, ':', 2)::bigint THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('taskwatch.bounded',
        (SELECT me || ':' || max(e.number) FROM taskwatch.enqueued e WHERE e.xid = me), true);
    -- A child that waits for others may close a ring together with what someone else creates: one at a time.
    IF EXISTS (SELECT 1 FROM taskwatch.enqueued e
        WHERE e.xid = me AND e.parent_task_id IS NOT NULL AND e.depends_on <> '{}')
    THEN
        PERFORM pg_advisory_xact_lock(5180124417830623921);
    END IF;
    -- Beyond 200 phases of a parent, children count among those without one.
    UPDATE taskwatch.enqueued e SET phase = NULL
    FROM (
        SELECT n.parent_task_id, n.phase, row_number() OVER (PARTITION BY n.parent_task_id ORDER BY n.first) AS place
        FROM (
            SELECT o.parent_task_id, o.phase, min(o.number) AS first FROM taskwatch.enqueued o
            WHERE o.xid = me AND o.parent_task_id IS NOT NULL AND o.phase IS NOT NULL AND NOT EXISTS
                (SELECT 1 FROM taskwatch.phases p WHERE p.parent_task_id = o.parent_task_id AND p.name = o.phase)
            GROUP BY 1, 2
        ) AS n
    ) AS fresh
    WHERE e.xid = me AND e.parent_task_id = fresh.parent_task_id AND e.phase = fresh.phase
        AND fresh.place + (SELECT count(*) FROM taskwatch.phases p WHERE p.parent_task_id = e.parent_task_id) > 200;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER bound_enqueued AFTER INSERT ON taskwatch.enqueued DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.parent_task_id IS NOT NULL) EXECUTE FUNCTION taskwatch.bound_enqueued();

-- A new child must not wait for its own group, directly or not, and families end at 32 levels.
CREATE FUNCTION taskwatch.rings_at_commit() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    levels integer;
    walked bigint;
    ring boolean;
BEGIN
    WITH RECURSIVE up (id, level) AS (
        SELECT NEW.parent_task_id, 2
        UNION ALL
        SELECT t.parent_task_id, up.level + 1 FROM up JOIN taskwatch.tasks t ON t.id = up.id
        WHERE t.parent_task_id IS NOT NULL AND up.level < 34
    )
    SELECT max(up.level) INTO levels FROM up;
    IF levels > 32 THEN
        RAISE EXCEPTION 'taskwatch.enqueue: parent_task_id nests tasks in more than 32 levels'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.depends_on <> '{}' THEN
        SELECT count(*), coalesce(bool_or(w.waiter = NEW.id), false) INTO walked, ring
        FROM taskwatch.waiters(ARRAY[NEW.id], 10001) AS w;
        IF ring THEN
            RAISE EXCEPTION 'taskwatch.enqueue: depends_on makes task % wait for itself in a ring, through its parent', NEW.id
                USING ERRCODE = 'check_violation';
        ELSIF walked > 10000 THEN
            RAISE EXCEPTION 'taskwatch.enqueue: depends_on: more than 10000 relations lie around task %; too many to look for a ring',
                NEW.id USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER rings_at_commit AFTER INSERT ON taskwatch.enqueued DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.parent_task_id IS NOT NULL) EXECUTE FUNCTION taskwatch.rings_at_commit();
