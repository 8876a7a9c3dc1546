-- What people and applications ask for: recurring tasks, actions on many tasks, tasks enqueued within a transaction.

CREATE TABLE taskwatch.schedules (
    name text PRIMARY KEY,
    cron text NOT NULL,
    time_zone text NOT NULL,
    task json NOT NULL,
    paused_at timestamptz,
    next_run_at timestamptz,
    last_run_at timestamptz,
    last_task_id uuid,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE taskwatch.schedules IS 'Recurring tasks. A firing creates a task and moves next_run_at in one transaction, so it happens once.';
COMMENT ON COLUMN taskwatch.schedules.name IS 'Its name.';
COMMENT ON COLUMN taskwatch.schedules.cron IS 'When: minute, hour, day of month, month, day of week; a sixth field in front stands for seconds.';
COMMENT ON COLUMN taskwatch.schedules.time_zone IS 'IANA name of the time zone that this is meant in.';
COMMENT ON COLUMN taskwatch.schedules.task IS 'The task to create each time.';
COMMENT ON COLUMN taskwatch.schedules.paused_at IS 'Since when it does not fire.';
COMMENT ON COLUMN taskwatch.schedules.next_run_at IS 'When it fires next; never, when the expression has no further time.';
COMMENT ON COLUMN taskwatch.schedules.last_run_at IS 'The time it last fired for.';
COMMENT ON COLUMN taskwatch.schedules.last_task_id IS 'The task created then.';
COMMENT ON COLUMN taskwatch.schedules.created_at IS 'When it was created.';
CREATE INDEX schedules_due ON taskwatch.schedules (next_run_at) WHERE paused_at IS NULL;

CREATE TABLE taskwatch.bulk_actions (
    id uuid PRIMARY KEY,
    action json NOT NULL,
    filter json NOT NULL,
    actor text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'done', 'cancelled')),
    pace_per_second integer CHECK (pace_per_second >= 1),
    succeeded bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    before_at timestamptz NOT NULL,
    before_id uuid NOT NULL,
    next_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz
);
COMMENT ON TABLE taskwatch.bulk_actions IS 'Actions on all tasks that a filter finds, worked off in steps by any server.';
COMMENT ON COLUMN taskwatch.bulk_actions.id IS 'Identity.';
COMMENT ON COLUMN taskwatch.bulk_actions.action IS 'What is done to each task.';
COMMENT ON COLUMN taskwatch.bulk_actions.filter IS 'To which tasks.';
COMMENT ON COLUMN taskwatch.bulk_actions.actor IS 'Who asked for it.';
COMMENT ON COLUMN taskwatch.bulk_actions.state IS 'How it stands.';
COMMENT ON COLUMN taskwatch.bulk_actions.pace_per_second IS 'Tasks per second at the most.';
COMMENT ON COLUMN taskwatch.bulk_actions.succeeded IS 'Tasks that it was done to.';
COMMENT ON COLUMN taskwatch.bulk_actions.failed IS 'Tasks that it could not be done to, in the state they were in.';
COMMENT ON COLUMN taskwatch.bulk_actions.before_at IS 'Only tasks created before this are left, newest first;';
COMMENT ON COLUMN taskwatch.bulk_actions.before_id IS 'of those created at the same time, those with a smaller id. A step that names another place is not done again.';
COMMENT ON COLUMN taskwatch.bulk_actions.next_at IS 'When the next step may be done.';
COMMENT ON COLUMN taskwatch.bulk_actions.created_at IS 'When it was asked for.';
COMMENT ON COLUMN taskwatch.bulk_actions.finished_at IS 'When it was over.';
CREATE INDEX bulk_actions_running ON taskwatch.bulk_actions (next_at) WHERE state = 'running';

-- Transactional enqueue -------------------------------------------------------------------------------------------
-- An application in the same database calls taskwatch.enqueue(…) within its own transaction. The call only notes what is
-- wanted; everything that others could wait for, or see, is done at the commit, in the order of the writer: tasks, phases,
-- queues, and last the log. So a transaction that stays open for an hour delays nobody.

CREATE TABLE taskwatch.enqueued (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id uuid NOT NULL,
    task_type text NOT NULL,
    payload json,
    queue text NOT NULL,
    project_id text,
    priority smallint NOT NULL,
    run_at timestamptz,
    title text,
    description text,
    labels json,
    max_attempts integer NOT NULL,
    timeout_seconds integer,
    parent_task_id uuid,
    phase text,
    depends_on uuid[] NOT NULL,
    on_dependency_failure text NOT NULL
);
COMMENT ON TABLE taskwatch.enqueued IS 'Tasks asked for by transactions that have not committed: nobody else ever sees a row.';
COMMENT ON COLUMN taskwatch.enqueued.number IS 'Order of the calls.';
COMMENT ON COLUMN taskwatch.enqueued.xid IS 'The transaction.';
COMMENT ON COLUMN taskwatch.enqueued.id IS 'Id of the task to create.';
COMMENT ON COLUMN taskwatch.enqueued.task_type IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.payload IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.queue IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.project_id IS 'As in tasks; without one, its parent''s, or default.';
COMMENT ON COLUMN taskwatch.enqueued.priority IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.run_at IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.title IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.description IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.labels IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.max_attempts IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.timeout_seconds IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.parent_task_id IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.phase IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.depends_on IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.on_dependency_failure IS 'As in tasks.';

-- The rule of names: 1 to 128 bytes without control characters.
CREATE FUNCTION taskwatch.check_name(field text, name text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF name IS NOT NULL AND (octet_length(name) NOT BETWEEN 1 AND 128 OR name ~ '[[:cntrl:]\u0080-\u009f]') THEN
        RAISE EXCEPTION 'taskwatch.enqueue: % must be 1 to 128 bytes long without control characters', field
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

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
    id uuid DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong text;
    new_id uuid := coalesce(enqueue.id, gen_random_uuid());
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
        ('priority must be 0 to 9', enqueue.priority BETWEEN 0 AND 9),
        ('max_attempts must be 1 to 100', enqueue.max_attempts BETWEEN 1 AND 100),
        ('timeout_seconds must be 1 to 604800', coalesce(enqueue.timeout_seconds, 1) BETWEEN 1 AND 604800),
        ('title must be at most 500 bytes long', octet_length(coalesce(enqueue.title, '')) <= 500),
        ('description must be at most 16384 bytes long', octet_length(coalesce(enqueue.description, '')) <= 16384),
        ('payload must be at most 1 MiB', octet_length(coalesce(enqueue.payload::text, '')) <= 1048576),
        ('on_dependency_failure must be fail, cancel or ignore',
            enqueue.on_dependency_failure IN ('fail', 'cancel', 'ignore')),
        ('depends_on must name at most 1000 tasks', cardinality(enqueue.depends_on) <= 1000),
        ('labels must be an object of at most 32 texts, 2048 bytes together',
            enqueue.labels IS NULL OR (json_typeof(enqueue.labels) = 'object' AND octet_length(enqueue.labels::text) <= 2048
                AND (SELECT count(*) <= 32 AND coalesce(bool_and(json_typeof(value) = 'string'
                    AND octet_length(key) BETWEEN 1 AND 128 AND (key || (value #>> '{}')) !~ '[[:cntrl:]\u0080-\u009f]'), true)
                    FROM json_each(CASE json_typeof(enqueue.labels) WHEN 'object' THEN enqueue.labels ELSE '{}' END)))
    )) AS rules (field, holds) WHERE holds IS NOT TRUE LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'taskwatch.enqueue: %', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO taskwatch.enqueued (id, task_type, payload, queue, project_id, priority, run_at, title, description, labels,
        max_attempts, timeout_seconds, parent_task_id, phase, depends_on, on_dependency_failure)
    VALUES (new_id, enqueue.task_type, enqueue.payload, enqueue.queue, enqueue.project_id, enqueue.priority, enqueue.run_at,
        enqueue.title, enqueue.description, enqueue.labels, enqueue.max_attempts, enqueue.timeout_seconds,
        enqueue.parent_task_id, enqueue.phase,
        ARRAY(SELECT d FROM unnest(enqueue.depends_on) WITH ORDINALITY AS u (d, n) GROUP BY d ORDER BY min(n)),
        enqueue.on_dependency_failure);
    RETURN new_id;
END $$;
COMMENT ON FUNCTION taskwatch.enqueue IS 'Creates a task if and only if the calling transaction commits; returns its id.';

-- At the commit: the first call sees to all tasks of the transaction.
CREATE FUNCTION taskwatch.enqueue_at_commit() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER
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
        -- What the log holds is published, so it must be durable.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF EXISTS (SELECT 1 FROM taskwatch.enqueued e WHERE e.xid = me AND e.parent_task_id IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM taskwatch.tasks t WHERE t.id = e.parent_task_id
         UNION ALL SELECT 1 FROM taskwatch.enqueued o WHERE o.xid = me AND o.id = e.parent_task_id AND o.number < e.number))
    THEN
        RAISE EXCEPTION 'taskwatch.enqueue: parent_task_id names no task' USING ERRCODE = 'foreign_key_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM taskwatch.enqueued e, unnest(e.depends_on) AS d WHERE e.xid = me AND NOT EXISTS
        (SELECT 1 FROM taskwatch.tasks t WHERE t.id = d
         UNION ALL SELECT 1 FROM taskwatch.enqueued o WHERE o.xid = me AND o.id = d AND o.number < e.number))
    THEN
        RAISE EXCEPTION 'taskwatch.enqueue: depends_on names no task that is there, or was enqueued before it'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    -- A child takes its parent's project, also when both are new: in the order of the calls.
    FOR child IN SELECT e.number, e.parent_task_id FROM taskwatch.enqueued e
        WHERE e.xid = me AND e.project_id IS NULL AND e.parent_task_id IS NOT NULL ORDER BY e.number
    LOOP
        UPDATE taskwatch.enqueued e SET project_id = coalesce(
            (SELECT t.project_id FROM taskwatch.tasks t WHERE t.id = child.parent_task_id),
            (SELECT o.project_id FROM taskwatch.enqueued o WHERE o.xid = me AND o.id = child.parent_task_id))
        WHERE e.number = child.number;
    END LOOP;
    -- A task that becomes a parent now does so with all children told of before: held until the commit.
    PERFORM 1 FROM taskwatch.tasks t WHERE NOT t.is_parent AND t.id IN
        (SELECT e.parent_task_id FROM taskwatch.enqueued e WHERE e.xid = me) ORDER BY t.id FOR NO KEY UPDATE;
    INSERT INTO taskwatch.tasks (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority, status,
        payload, labels, max_attempts, timeout_seconds, run_at, created_at, enqueued_at, depends_on, on_dependency_failure)
    SELECT e.id, coalesce(e.project_id, 'default'), e.task_type, e.queue, e.parent_task_id, e.phase, e.title,
        e.description, e.priority,
        CASE WHEN e.depends_on <> '{}' THEN 'blocked' WHEN e.run_at > moment THEN 'scheduled' ELSE 'pending' END,
        e.payload, e.labels, e.max_attempts, e.timeout_seconds, CASE WHEN e.run_at > moment THEN e.run_at END, moment,
        CASE WHEN e.depends_on = '{}' AND (e.run_at IS NULL OR e.run_at <= moment) THEN moment END,
        e.depends_on, e.on_dependency_failure
    FROM taskwatch.enqueued e
    WHERE e.xid = me ORDER BY e.number;
    INSERT INTO taskwatch.ready (task_id, queue, priority, enqueued_at)
    SELECT t.id, t.queue, t.priority, moment FROM taskwatch.enqueued e JOIN taskwatch.tasks t ON t.id = e.id
    WHERE e.xid = me AND t.status = 'pending' ORDER BY e.number;
    INSERT INTO taskwatch.dependents (depends_on, task_id)
    SELECT d, e.id FROM taskwatch.enqueued e, unnest(e.depends_on) AS d WHERE e.xid = me;
    -- Whether what is waited for is done already, and that a parent has children now, is seen to by upkeep.
    INSERT INTO taskwatch.rechecks (task_id)
    SELECT e.id FROM taskwatch.enqueued e WHERE e.xid = me AND e.depends_on <> '{}'
    UNION SELECT e.parent_task_id FROM taskwatch.enqueued e JOIN taskwatch.tasks p ON p.id = e.parent_task_id
        WHERE e.xid = me AND (NOT p.is_parent OR p.close_when_done);
    INSERT INTO taskwatch.phases AS counted (parent_task_id, name, pending)
    SELECT e.parent_task_id, coalesce(e.phase, '-'), count(*) FROM taskwatch.enqueued e
    WHERE e.xid = me AND e.parent_task_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (parent_task_id, name) DO UPDATE SET pending = counted.pending + excluded.pending;
    INSERT INTO taskwatch.queues (name) SELECT DISTINCT e.queue FROM taskwatch.enqueued e WHERE e.xid = me ORDER BY 1
    ON CONFLICT (name) DO NOTHING;
    head := (taskwatch.lock_log(0)).head;
    SELECT l.epoch INTO log_epoch FROM taskwatch.log l;
    INSERT INTO taskwatch.events (position, at, event_type, project_id, parent_task_id, task_id, queue, body)
    SELECT position, moment, event_type, t.project_id, t.parent_task_id, t.id, t.queue,
        json_strip_nulls(json_build_object(
            'event_id', log_epoch || '-' || position, 'position', position, 'event_type', event_type, 'schema_version', 1,
            'ts', ts, 'project_id', t.project_id, 'parent_task_id', t.parent_task_id, 'task_id', t.id,
            'task_type', t.task_type, 'phase', t.phase, 'queue', t.queue, 'priority', t.priority,
            'old_status', CASE event_type WHEN 'task_enqueued' THEN t.status END, 'status', t.status, 'labels', t.labels,
            'data', CASE event_type WHEN 'task_created' THEN json_build_object('title', t.title,
                'max_attempts', t.max_attempts,
                'depends_on', CASE WHEN t.depends_on <> '{}' THEN to_json(t.depends_on[1:32]) END,
                'run_at', CASE WHEN t.run_at IS NOT NULL
                    THEN to_char(t.run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END) END))::text
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
CREATE CONSTRAINT TRIGGER enqueue_at_commit AFTER INSERT ON taskwatch.enqueued DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION taskwatch.enqueue_at_commit();
