-- Column names as in the API: backoff_initial_seconds and backoff_max_seconds, auto_complete, max_per_second.

ALTER TABLE taskwatch.tasks RENAME COLUMN retry_base_seconds TO backoff_initial_seconds;
ALTER TABLE taskwatch.tasks RENAME COLUMN retry_cap_seconds TO backoff_max_seconds;
ALTER TABLE taskwatch.tasks RENAME COLUMN close_when_done TO auto_complete;
ALTER TABLE taskwatch.enqueued RENAME COLUMN retry_base_seconds TO backoff_initial_seconds;
ALTER TABLE taskwatch.enqueued RENAME COLUMN retry_cap_seconds TO backoff_max_seconds;
ALTER TABLE taskwatch.enqueued RENAME COLUMN close_when_done TO auto_complete;
ALTER TABLE taskwatch.bulk_actions RENAME COLUMN pace_per_second TO max_per_second;
COMMENT ON COLUMN taskwatch.tasks.backoff_initial_seconds IS 'Initial retry delay; doubles per attempt.';
COMMENT ON COLUMN taskwatch.tasks.backoff_max_seconds IS 'Maximum retry delay.';
COMMENT ON COLUMN taskwatch.tasks.auto_complete IS 'Parent only, never claimed: starts with its first child and completes with its last.';
COMMENT ON COLUMN taskwatch.bulk_actions.max_per_second IS 'Rate limit, tasks per second; NULL: unlimited.';

-- Tasks of schedules are stored as JSON text, whose payloads stay byte for byte.
UPDATE taskwatch.schedules SET task = (
    SELECT json_object_agg(
        CASE field.key WHEN 'close_when_done' THEN 'auto_complete' ELSE field.key END,
        CASE field.key WHEN 'backoff' THEN json_build_object('initial_seconds', field.value -> 'base_seconds',
            'max_seconds', field.value -> 'cap_seconds') ELSE field.value END)
    FROM json_each(task) AS field);

CREATE OR REPLACE FUNCTION taskwatch.waiters(seeds uuid[], most integer) RETURNS TABLE (awaited uuid, waiter uuid)
    LANGUAGE sql STABLE AS $$
    WITH RECURSIVE up (awaited, waiter) AS (
        SELECT NULL::uuid, seed FROM unnest(seeds) AS seed
        UNION
        SELECT up.waiter, further.waiter FROM up CROSS JOIN LATERAL (
            SELECT d.task_id AS waiter FROM taskwatch.dependents d WHERE d.depends_on = up.waiter
            UNION ALL
            SELECT p.id FROM taskwatch.tasks t JOIN taskwatch.tasks p ON p.id = t.parent_task_id
            WHERE t.id = up.waiter AND p.auto_complete AND p.status <> 'cancelled'
        ) AS further
    )
    SELECT up.awaited, up.waiter FROM up WHERE up.awaited IS NOT NULL LIMIT most
$$;

DROP FUNCTION taskwatch.enqueue(text, json, text, text, integer, timestamptz, text, text, json, integer, integer, uuid,
    text, uuid[], text, uuid, text, integer, integer, text[], boolean, text, text[], text[]);

CREATE FUNCTION taskwatch.enqueue(
    task_type text,
    payload json DEFAULT NULL,
    queue text DEFAULT 'default',
    project_id text DEFAULT NULL,
    priority integer DEFAULT 5,
    run_at timestamptz DEFAULT NULL,
    title text DEFAULT NULL,
    description text DEFAULT NULL,
    labels json DEFAULT NULL,
    max_attempts integer DEFAULT 3,
    timeout_seconds integer DEFAULT NULL,
    parent_task_id uuid DEFAULT NULL,
    phase text DEFAULT NULL,
    depends_on uuid[] DEFAULT '{}',
    on_dependency_failure text DEFAULT 'fail',
    id uuid DEFAULT NULL,
    unique_key text DEFAULT NULL,
    backoff_initial_seconds integer DEFAULT 1,
    backoff_max_seconds integer DEFAULT NULL,
    phases text[] DEFAULT '{}',
    auto_complete boolean DEFAULT false,
    assignee text DEFAULT NULL,
    collaborators text[] DEFAULT '{}',
    watchers text[] DEFAULT '{}'
) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong text;
    new_id uuid := coalesce(enqueue.id, gen_random_uuid());
    longest integer := coalesce(enqueue.backoff_max_seconds, greatest(enqueue.backoff_initial_seconds, 3600));
    project text;
    before uuid;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'taskwatch.enqueue needs a transaction with isolation level READ COMMITTED, this one has %',
            upper(current_setting('transaction_isolation')) USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF enqueue.task_type IS NULL OR enqueue.queue IS NULL THEN
        RAISE EXCEPTION 'taskwatch.enqueue: task_type and queue must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM taskwatch.check_name('task_type', enqueue.task_type), taskwatch.check_name('queue', enqueue.queue),
        taskwatch.check_name('project_id', enqueue.project_id), taskwatch.check_name('phase', enqueue.phase);
    SELECT field INTO wrong FROM (VALUES
        ('priority must be an integer between 0 and 9', enqueue.priority BETWEEN 0 AND 9),
        ('run_at must be between year 1 and 9999', enqueue.run_at IS NULL
            OR (enqueue.run_at >= '0001-01-01 00:00:00+00' AND enqueue.run_at < '10000-01-01 00:00:00+00')),
        ('max_attempts must be an integer between 1 and 100', enqueue.max_attempts BETWEEN 1 AND 100),
        ('timeout_seconds must be an integer between 1 and 604800', coalesce(enqueue.timeout_seconds, 1) BETWEEN 1 AND 604800),
        ('title must be at most 500 bytes long', octet_length(coalesce(enqueue.title, '')) <= 500),
        ('description must be at most 16384 bytes long', octet_length(coalesce(enqueue.description, '')) <= 16384),
        ('payload must be at most 1 MiB', octet_length(coalesce(enqueue.payload::text, '')) <= 1048576),
        ('on_dependency_failure must be fail, cancel or ignore',
            enqueue.on_dependency_failure IN ('fail', 'cancel', 'ignore')),
        ('depends_on must list at most 1,000 tasks, and not NULL',
            cardinality(enqueue.depends_on) <= 1000 AND array_position(enqueue.depends_on, NULL) IS NULL),
        ('unique_key must be 1 to 256 bytes long', octet_length(coalesce(enqueue.unique_key, '-')) BETWEEN 1 AND 256),
        ('backoff_initial_seconds must be an integer between 0 and 604800', enqueue.backoff_initial_seconds BETWEEN 0 AND 604800),
        ('backoff_max_seconds must be an integer between 0 and 604800', longest BETWEEN 0 AND 604800),
        ('backoff_max_seconds must be at least backoff_initial_seconds', longest >= enqueue.backoff_initial_seconds),
        ('auto_complete must not be NULL', enqueue.auto_complete IS NOT NULL),
        ('auto_complete cannot be combined with depends_on or run_at; set these on the children',
            NOT (enqueue.auto_complete AND (enqueue.depends_on <> '{}' OR enqueue.run_at IS NOT NULL))),
        ('parent_task_id must not reference the task itself', enqueue.parent_task_id IS DISTINCT FROM new_id),
        ('assignee must be at most 128 bytes long', octet_length(coalesce(enqueue.assignee, '')) <= 128)
    ) AS rules (field, holds) WHERE holds IS NOT TRUE LIMIT 1;
    IF wrong IS NOT NULL THEN
        PERFORM taskwatch.refuse(wrong);
    END IF;
    PERFORM taskwatch.check_names('phases', enqueue.phases, 1024),
        taskwatch.check_names('collaborators', enqueue.collaborators, 4096),
        taskwatch.check_names('watchers', enqueue.watchers, 4096);
    IF json_typeof(enqueue.payload) = 'null' THEN
        payload := NULL;
    ELSIF enqueue.payload IS NOT NULL THEN
        PERFORM taskwatch.check_json('payload', enqueue.payload);
        payload := btrim(enqueue.payload::text, E' \t\n\r')::json;
    END IF;
    labels := taskwatch.checked_labels(enqueue.labels);
    -- A key is unique within the project, which a child inherits from its parent.
    project := coalesce(enqueue.project_id,
        (SELECT t.project_id FROM taskwatch.tasks t WHERE t.id = enqueue.parent_task_id),
        (SELECT e.project_id FROM taskwatch.enqueued e
         WHERE e.xid = pg_current_xact_id_if_assigned() AND e.id = enqueue.parent_task_id),
        CASE WHEN enqueue.parent_task_id IS NULL THEN 'default' END);
    IF enqueue.id IS NOT NULL OR enqueue.unique_key IS NOT NULL THEN
        before := taskwatch.enqueued_before(enqueue.id, enqueue.unique_key, project);
        IF before IS NOT NULL THEN
            RETURN before;
        END IF;
    END IF;
    INSERT INTO taskwatch.enqueued (id, task_type, payload, queue, project_id, priority, run_at, title, description, labels,
        max_attempts, timeout_seconds, parent_task_id, phase, depends_on, on_dependency_failure, unique_key,
        backoff_initial_seconds, backoff_max_seconds, phases, auto_complete, assignee, collaborators, watchers)
    VALUES (new_id, enqueue.task_type, enqueue.payload, enqueue.queue, project, enqueue.priority, enqueue.run_at,
        enqueue.title, enqueue.description, enqueue.labels, enqueue.max_attempts, enqueue.timeout_seconds,
        enqueue.parent_task_id, enqueue.phase,
        ARRAY(SELECT d FROM unnest(enqueue.depends_on) WITH ORDINALITY AS u (d, n) GROUP BY d ORDER BY min(n)),
        enqueue.on_dependency_failure, enqueue.unique_key, enqueue.backoff_initial_seconds, longest, enqueue.phases,
        enqueue.auto_complete, enqueue.assignee, enqueue.collaborators, enqueue.watchers);
    RETURN new_id;
END $$;
COMMENT ON FUNCTION taskwatch.enqueue IS 'Creates a task if and only if the calling transaction commits; returns its id. If the id exists, or an unfinished task has the unique key, that task''s id is returned and none is created.';

CREATE OR REPLACE FUNCTION taskwatch.enqueue_at_commit() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me constant xid8 := pg_current_xact_id();
    moment constant timestamptz := clock_timestamp();
    ts constant text := to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    head bigint;
    log_epoch text;
    child record;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM taskwatch.enqueued e WHERE e.xid = me) THEN
        RETURN NULL;
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        -- Events are published once they are visible, so they must be durable.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF EXISTS (SELECT 1 FROM taskwatch.enqueued e WHERE e.xid = me AND e.parent_task_id IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM taskwatch.tasks t WHERE t.id = e.parent_task_id
         UNION ALL SELECT 1 FROM taskwatch.enqueued o WHERE o.xid = me AND o.id = e.parent_task_id AND o.number < e.number))
    THEN
        RAISE EXCEPTION 'taskwatch.enqueue: parent_task_id: parent task not found' USING ERRCODE = 'foreign_key_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM taskwatch.enqueued e, unnest(e.depends_on) AS d WHERE e.xid = me AND NOT EXISTS
        (SELECT 1 FROM taskwatch.tasks t WHERE t.id = d
         UNION ALL SELECT 1 FROM taskwatch.enqueued o WHERE o.xid = me AND o.id = d AND o.number < e.number))
    THEN
        RAISE EXCEPTION 'taskwatch.enqueue: depends_on: dependency not found (it must exist, or be enqueued before)'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    -- A child inherits its parent's project, also if both are new: in the order of the calls.
    FOR child IN SELECT e.number, e.parent_task_id FROM taskwatch.enqueued e
        WHERE e.xid = me AND e.project_id IS NULL AND e.parent_task_id IS NOT NULL ORDER BY e.number
    LOOP
        UPDATE taskwatch.enqueued e SET project_id = coalesce(
            (SELECT t.project_id FROM taskwatch.tasks t WHERE t.id = child.parent_task_id),
            (SELECT o.project_id FROM taskwatch.enqueued o WHERE o.xid = me AND o.id = child.parent_task_id))
        WHERE e.number = child.number;
    END LOOP;
    -- Tasks that become parents now: locked until the commit, so that no counter of children is lost.
    PERFORM 1 FROM taskwatch.tasks t WHERE NOT t.is_parent AND t.id IN
        (SELECT e.parent_task_id FROM taskwatch.enqueued e WHERE e.xid = me) ORDER BY t.id FOR NO KEY UPDATE;
    -- A task with the same id may have been created since the call; it stays unchanged, and nothing is created twice.
    DELETE FROM taskwatch.enqueued e USING taskwatch.tasks t WHERE e.xid = me AND t.id = e.id;
    BEGIN
        INSERT INTO taskwatch.tasks (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority,
            status, payload, labels, max_attempts, timeout_seconds, run_at, created_at, enqueued_at, depends_on,
            on_dependency_failure, unique_key, backoff_initial_seconds, backoff_max_seconds, phases, auto_complete, assignee,
            collaborators, watchers)
        SELECT e.id, coalesce(e.project_id, 'default'), e.task_type, e.queue, e.parent_task_id, e.phase, e.title,
            e.description, e.priority, begins.status, e.payload, e.labels, e.max_attempts, e.timeout_seconds,
            CASE WHEN e.run_at > moment THEN e.run_at END, moment, CASE WHEN begins.status = 'pending' THEN moment END,
            e.depends_on, e.on_dependency_failure, e.unique_key, e.backoff_initial_seconds, e.backoff_max_seconds, e.phases,
            e.auto_complete, e.assignee, e.collaborators, e.watchers
        FROM taskwatch.enqueued e, LATERAL (SELECT CASE
            WHEN e.auto_complete OR EXISTS (SELECT 1 FROM unnest(e.depends_on) AS d
                LEFT JOIN taskwatch.tasks t ON t.id = d
                WHERE t.status IS DISTINCT FROM 'completed' AND NOT coalesce(
                    e.on_dependency_failure = 'ignore' AND t.status IN ('failed', 'cancelled'), false)) THEN 'blocked'
            WHEN e.run_at > moment THEN 'scheduled' ELSE 'pending' END) AS begins (status)
        WHERE e.xid = me ORDER BY e.number;
    EXCEPTION WHEN unique_violation THEN
        RAISE EXCEPTION 'taskwatch.enqueue: another transaction has just created a task with the same id or unique_key'
            USING ERRCODE = 'unique_violation', HINT = 'Repeat the transaction: taskwatch.enqueue then returns that task.';
    END;
    INSERT INTO taskwatch.ready (task_id, queue, priority, enqueued_at)
    SELECT t.id, t.queue, t.priority, moment FROM taskwatch.enqueued e JOIN taskwatch.tasks t ON t.id = e.id
    WHERE e.xid = me AND t.status = 'pending' ORDER BY e.number;
    INSERT INTO taskwatch.dependents (depends_on, task_id)
    SELECT d, e.id FROM taskwatch.enqueued e JOIN taskwatch.tasks t ON t.id = e.id, unnest(e.depends_on) AS d
    WHERE e.xid = me AND t.status = 'blocked';
    -- Maintenance re-evaluates them: a dependency may have ended meanwhile, a parent may have got its first child.
    INSERT INTO taskwatch.rechecks (task_id)
    SELECT t.id FROM taskwatch.enqueued e JOIN taskwatch.tasks t ON t.id = e.id
        WHERE e.xid = me AND e.depends_on <> '{}' AND t.status = 'blocked'
    UNION SELECT e.parent_task_id FROM taskwatch.enqueued e JOIN taskwatch.tasks p ON p.id = e.parent_task_id
        WHERE e.xid = me AND (NOT p.is_parent OR p.auto_complete);
    INSERT INTO taskwatch.phases AS counted (parent_task_id, name, pending)
    SELECT e.parent_task_id, coalesce(e.phase, '-'), count(*) FROM taskwatch.enqueued e
    WHERE e.xid = me AND e.parent_task_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (parent_task_id, name) DO UPDATE SET pending = counted.pending + excluded.pending;
    INSERT INTO taskwatch.queues (name) SELECT DISTINCT e.queue FROM taskwatch.enqueued e WHERE e.xid = me ORDER BY 1
    ON CONFLICT (name) DO NOTHING;
    head := (taskwatch.lock_log(0)).head;
    SELECT l.epoch INTO log_epoch FROM taskwatch.log l;
    INSERT INTO taskwatch.events (position, at, event_type, project_id, parent_task_id, task_id, queue, body)
    SELECT placed.position, moment, placed.event_type, t.project_id, t.parent_task_id, t.id, t.queue,
        taskwatch.bounded_event(t, placed.event_type, log_epoch || '-' || placed.position, placed.position, ts)
    FROM (
        SELECT told.id, told.event_type, head + row_number() OVER (ORDER BY told.number, told.event_type) AS position
        FROM (
            SELECT e.id, e.number, kind.event_type FROM taskwatch.enqueued e JOIN taskwatch.tasks t ON t.id = e.id
            CROSS JOIN (VALUES ('task_created'), ('task_enqueued')) AS kind (event_type)
            WHERE e.xid = me AND (kind.event_type = 'task_created' OR t.status = 'pending')
        ) AS told
    ) AS placed JOIN taskwatch.tasks t ON t.id = placed.id;
    DELETE FROM taskwatch.enqueued e WHERE e.xid = me;
    RETURN NULL;
END $$;
