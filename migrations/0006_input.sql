-- What comes in by SQL has the ranges and rules of what comes in by HTTP, and taskwatch.enqueue everything that
-- POST /api/v1/tasks has.

-- Times --------------------------------------------------------------------------------------------------------------
-- The years 1 to 9999, which every reader can read. Rows from before are brought into them: what was never to start
-- ('infinity') starts at their end.

DO $$
DECLARE
    kept record;
BEGIN
    FOR kept IN SELECT c.table_name, c.column_name FROM information_schema.columns c
        JOIN information_schema.tables t USING (table_schema, table_name)
        WHERE c.table_schema = 'taskwatch' AND c.data_type = 'timestamp with time zone' AND t.table_type = 'BASE TABLE'
            AND c.table_name IN ('tasks', 'enqueued', 'ready', 'leases', 'workers', 'phases', 'queues', 'schedules',
                'bulk_actions')
        ORDER BY 1, 2
    LOOP
        EXECUTE format('UPDATE taskwatch.%1$I
            SET %2$I = least(greatest(%2$I, ''0001-01-01 00:00:00+00''), ''9999-12-31 23:59:59.999999+00'')
            WHERE %2$I < ''0001-01-01 00:00:00+00'' OR %2$I >= ''10000-01-01 00:00:00+00''',
            kept.table_name, kept.column_name);
        EXECUTE format('ALTER TABLE taskwatch.%1$I ADD CONSTRAINT %3$I
            CHECK (%2$I >= ''0001-01-01 00:00:00+00'' AND %2$I < ''10000-01-01 00:00:00+00'')',
            kept.table_name, kept.column_name, kept.table_name || '_' || kept.column_name || '_range');
    END LOOP;
END $$;

-- Labels that no reader can read: they go, the task stays.
DO $$
DECLARE
    task record;
BEGIN
    FOR task IN SELECT t.id, t.labels FROM taskwatch.tasks t WHERE t.labels::text ~* '\\u(0000|d[89a-f])' LOOP
        BEGIN
            PERFORM task.labels::jsonb;
        EXCEPTION WHEN data_exception THEN
            UPDATE taskwatch.tasks SET labels = NULL WHERE id = task.id;
        END;
    END LOOP;
END $$;

-- Rules --------------------------------------------------------------------------------------------------------------

CREATE FUNCTION taskwatch.refuse(detail text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'taskwatch.enqueue: %', detail USING ERRCODE = 'invalid_parameter_value';
END $$;
COMMENT ON FUNCTION taskwatch.refuse IS 'Says what is wrong with an argument of taskwatch.enqueue.';

-- The rule of new names: 1 to 128 bytes without control characters, no white space around them, not . or ..
CREATE OR REPLACE FUNCTION taskwatch.check_name(field text, name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    space constant text := '[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]';
BEGIN
    IF octet_length(name) NOT BETWEEN 1 AND 128 OR name ~ '[\u0001-\u001f\u007f-\u009f]' THEN
        PERFORM taskwatch.refuse(field || ' must be 1 to 128 bytes long without control characters');
    ELSIF name ~ ('^' || space) OR name ~ (space || '$') THEN
        PERFORM taskwatch.refuse(field || ' must not begin or end with white space');
    ELSIF name IN ('.', '..') THEN
        PERFORM taskwatch.refuse(field || ' must not be . or ..');
    END IF;
END $$;

-- A list of different names.
CREATE FUNCTION taskwatch.check_names(field text, names text[], bytes integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text;
    total integer := 0;
BEGIN
    IF names IS NULL OR cardinality(names) > 32 OR array_position(names, NULL) IS NOT NULL
        OR (SELECT count(DISTINCT n COLLATE "C") <> count(*) FROM unnest(names) AS n) THEN
        PERFORM taskwatch.refuse(field || ' must be at most 32 different names');
    END IF;
    FOREACH name IN ARRAY names LOOP
        PERFORM taskwatch.check_name(field, name);
        total := total + octet_length(name);
    END LOOP;
    IF total > bytes THEN
        PERFORM taskwatch.refuse(field || ' must be at most ' || bytes || ' bytes together');
    END IF;
END $$;

-- Free JSON: nested at most 64 deep, without NUL and without halves of characters.
CREATE FUNCTION taskwatch.check_json(field text, value json) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    plain text := value::text;
    brackets text;
BEGIN
    IF strpos(plain, '\') > 0 THEN
        -- Escaped backslashes and whole surrogate pairs are characters.
        plain := regexp_replace(plain, '\\\\', 'x', 'g');
        plain := regexp_replace(plain, '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', 'x', 'g');
        IF plain ~ '\\u0000' THEN
            PERFORM taskwatch.refuse(field || ' must not contain NUL');
        ELSIF plain ~ '\\u[dD][89a-fA-F]' THEN
            PERFORM taskwatch.refuse(field || ' must not contain half a character: was a text cut within an emoji?');
        END IF;
        plain := regexp_replace(plain, '\\.', 'x', 'g');
    END IF;
    brackets := regexp_replace(regexp_replace(plain, '"[^"]*"', '', 'g'), '[^][{}]', '', 'g');
    FOR depth IN 1..64 LOOP
        EXIT WHEN brackets = '';
        brackets := regexp_replace(brackets, '\[\]|\{\}', '', 'g');
    END LOOP;
    IF brackets <> '' THEN
        PERFORM taskwatch.refuse(field || ' must not be nested deeper than 64');
    END IF;
END $$;

-- Labels in the order of their keys, as HTTP keeps them; nothing when there are none.
CREATE FUNCTION taskwatch.checked_labels(labels json) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    rule constant text := 'labels must be an object of at most 32 texts, 2048 bytes together, values of at most 256 bytes '
        'without control characters';
    label record;
    bytes integer := 0;
    number integer := 0;
    last text;
    ordered text := '';
BEGIN
    IF labels IS NULL OR json_typeof(labels) = 'null' THEN
        RETURN NULL;
    ELSIF json_typeof(labels) <> 'object' OR octet_length(labels::text) > 65536 THEN
        PERFORM taskwatch.refuse(rule);
    END IF;
    PERFORM taskwatch.check_json('labels', labels);
    FOR label IN SELECT e.key, json_typeof(e.value) AS type, e.value #>> '{}' AS text FROM json_each(labels) AS e
        ORDER BY e.key COLLATE "C"
    LOOP
        PERFORM taskwatch.check_name('labels', label.key);
        number := number + 1;
        bytes := bytes + octet_length(label.key) + octet_length(coalesce(label.text, ''));
        IF label.type <> 'string' OR number > 32 OR bytes > 2048 OR octet_length(label.text) > 256
            OR label.text ~ '[\u0001-\u001f\u007f-\u009f]' THEN
            PERFORM taskwatch.refuse(rule);
        ELSIF label.key = last THEN
            PERFORM taskwatch.refuse('labels names ' || last || ' twice');
        END IF;
        last := label.key;
        ordered := ordered || ',' || to_json(label.key) || ':' || to_json(label.text);
    END LOOP;
    RETURN CASE WHEN number > 0 THEN ('{' || substr(ordered, 2) || '}')::json END;
END $$;

-- Transactional enqueue ----------------------------------------------------------------------------------------------

ALTER TABLE taskwatch.enqueued
    ADD COLUMN unique_key text,
    ADD COLUMN retry_base_seconds integer NOT NULL DEFAULT 1,
    ADD COLUMN retry_cap_seconds integer NOT NULL DEFAULT 3600,
    ADD COLUMN phases text[] NOT NULL DEFAULT '{}',
    ADD COLUMN close_when_done boolean NOT NULL DEFAULT false,
    ADD COLUMN assignee text,
    ADD COLUMN collaborators text[] NOT NULL DEFAULT '{}',
    ADD COLUMN watchers text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN taskwatch.enqueued.unique_key IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.retry_base_seconds IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.retry_cap_seconds IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.phases IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.close_when_done IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.assignee IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.collaborators IS 'As in tasks.';
COMMENT ON COLUMN taskwatch.enqueued.watchers IS 'As in tasks.';

-- The task that a call is answered with instead of a new one: it has the same id, or is live with the same unique key.
CREATE FUNCTION taskwatch.enqueued_before(wanted uuid, key text, project text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT found.id FROM (
        SELECT 1 AS rank, t.id FROM taskwatch.tasks t WHERE t.id = wanted
        UNION ALL SELECT 1, e.id FROM taskwatch.enqueued e WHERE e.xid = pg_current_xact_id_if_assigned() AND e.id = wanted
        UNION ALL SELECT 2, t.id FROM taskwatch.tasks t WHERE t.unique_key = key AND t.project_id = project
            AND t.status NOT IN ('completed', 'failed', 'cancelled')
        UNION ALL SELECT 2, e.id FROM taskwatch.enqueued e WHERE e.xid = pg_current_xact_id_if_assigned()
            AND e.unique_key = key AND e.project_id = project
    ) AS found ORDER BY rank LIMIT 1
$$;

DROP FUNCTION taskwatch.enqueue(text, json, text, text, integer, timestamptz, text, text, json, integer, integer, uuid, text,
    uuid[], text, uuid);

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
    retry_base_seconds integer DEFAULT 1,
    retry_cap_seconds integer DEFAULT NULL,
    phases text[] DEFAULT '{}',
    close_when_done boolean DEFAULT false,
    assignee text DEFAULT NULL,
    collaborators text[] DEFAULT '{}',
    watchers text[] DEFAULT '{}'
) RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong text;
    new_id uuid := coalesce(enqueue.id, gen_random_uuid());
    cap integer := coalesce(enqueue.retry_cap_seconds, greatest(enqueue.retry_base_seconds, 3600));
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
        ('priority must be 0 to 9', enqueue.priority BETWEEN 0 AND 9),
        ('run_at must be in the years 1 to 9999', enqueue.run_at IS NULL
            OR (enqueue.run_at >= '0001-01-01 00:00:00+00' AND enqueue.run_at < '10000-01-01 00:00:00+00')),
        ('max_attempts must be 1 to 100', enqueue.max_attempts BETWEEN 1 AND 100),
        ('timeout_seconds must be 1 to 604800', coalesce(enqueue.timeout_seconds, 1) BETWEEN 1 AND 604800),
        ('title must be at most 500 bytes long', octet_length(coalesce(enqueue.title, '')) <= 500),
        ('description must be at most 16384 bytes long', octet_length(coalesce(enqueue.description, '')) <= 16384),
        ('payload must be at most 1 MiB', octet_length(coalesce(enqueue.payload::text, '')) <= 1048576),
        ('on_dependency_failure must be fail, cancel or ignore',
            enqueue.on_dependency_failure IN ('fail', 'cancel', 'ignore')),
        ('depends_on must name at most 1000 tasks, and not NULL',
            cardinality(enqueue.depends_on) <= 1000 AND array_position(enqueue.depends_on, NULL) IS NULL),
        ('unique_key must be 1 to 256 bytes long', octet_length(coalesce(enqueue.unique_key, '-')) BETWEEN 1 AND 256),
        ('retry_base_seconds must be 0 to 604800', enqueue.retry_base_seconds BETWEEN 0 AND 604800),
        ('retry_cap_seconds must be 0 to 604800', cap BETWEEN 0 AND 604800),
        ('retry_cap_seconds must not be less than retry_base_seconds', cap >= enqueue.retry_base_seconds),
        ('close_when_done must not be NULL', enqueue.close_when_done IS NOT NULL),
        ('close_when_done does not go with depends_on or run_at; put these on the children',
            NOT (enqueue.close_when_done AND (enqueue.depends_on <> '{}' OR enqueue.run_at IS NOT NULL))),
        ('parent_task_id must not be the task itself', enqueue.parent_task_id IS DISTINCT FROM new_id),
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
    -- A key counts within the project, which a child takes from its parent.
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
        retry_base_seconds, retry_cap_seconds, phases, close_when_done, assignee, collaborators, watchers)
    VALUES (new_id, enqueue.task_type, enqueue.payload, enqueue.queue, project, enqueue.priority, enqueue.run_at,
        enqueue.title, enqueue.description, enqueue.labels, enqueue.max_attempts, enqueue.timeout_seconds,
        enqueue.parent_task_id, enqueue.phase,
        ARRAY(SELECT d FROM unnest(enqueue.depends_on) WITH ORDINALITY AS u (d, n) GROUP BY d ORDER BY min(n)),
        enqueue.on_dependency_failure, enqueue.unique_key, enqueue.retry_base_seconds, cap, enqueue.phases,
        enqueue.close_when_done, enqueue.assignee, enqueue.collaborators, enqueue.watchers);
    RETURN new_id;
END $$;
COMMENT ON FUNCTION taskwatch.enqueue IS 'Creates a task if and only if the calling transaction commits; returns its id. One that exists already, by its id or its unique key, is answered as it is.';

-- JSON on one line for every reader: these three characters end a line for some.
CREATE FUNCTION taskwatch.one_line(body text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT replace(replace(replace(body, chr(133), '\u0085'), chr(8232), '\u2028'), chr(8233), '\u2029')
$$;

-- The event of a task that comes into being, or that may be taken at once; fields in `without` are left out and named.
CREATE FUNCTION taskwatch.created_event(t taskwatch.tasks, kind text, event_id text, place bigint, ts text, without text[])
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT taskwatch.one_line(json_strip_nulls(json_build_object(
        'event_id', event_id, 'position', place, 'event_type', kind, 'schema_version', 1,
        'ts', ts, 'project_id', t.project_id, 'parent_task_id', t.parent_task_id, 'task_id', t.id,
        'task_type', t.task_type, 'phase', t.phase, 'queue', t.queue, 'priority', t.priority,
        'old_status', CASE kind WHEN 'task_enqueued' THEN t.status END, 'status', t.status, 'labels', t.labels,
        'data', CASE kind WHEN 'task_created' THEN json_build_object(
            'title', CASE WHEN 'data.title' = ANY (without) THEN NULL ELSE t.title END,
            'phases', CASE WHEN t.phases <> '{}' THEN to_json(t.phases) END,
            'max_attempts', t.max_attempts,
            'depends_on', CASE WHEN t.depends_on <> '{}' AND NOT 'data.depends_on' = ANY (without)
                THEN to_json(t.depends_on[1:32]) END,
            'run_at', CASE WHEN t.run_at IS NOT NULL
                THEN to_char(t.run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END) END,
        'truncated', CASE WHEN without <> '{}' THEN to_json(without) END))::text)
$$;

-- The same within 8,192 bytes, as the server's events: the larger of the fields that may go goes first.
CREATE FUNCTION taskwatch.bounded_event(t taskwatch.tasks, kind text, event_id text, place bigint, ts text)
RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    body text;
    without text[] := '{}';
    field text;
BEGIN
    LOOP
        body := taskwatch.created_event(t, kind, event_id, place, ts, without);
        -- The place in the log does not count.
        EXIT WHEN kind <> 'task_created' OR octet_length(body) - octet_length(event_id) - octet_length(place::text) <= 8218;
        SELECT c.name INTO field FROM (VALUES
            ('data.title', octet_length(t.title)),
            ('data.depends_on', nullif(least(cardinality(t.depends_on), 32), 0) * 39)) AS c (name, size)
        WHERE c.size IS NOT NULL AND NOT c.name = ANY (without) ORDER BY c.size DESC, c.name DESC LIMIT 1;
        EXIT WHEN field IS NULL;
        without := without || field;
    END LOOP;
    RETURN body;
END $$;

-- At the commit: the first call sees to all tasks of the transaction.
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
    -- Somebody else may have created a task of the same id since the call; it stays as it is, and nothing is done twice.
    DELETE FROM taskwatch.enqueued e USING taskwatch.tasks t WHERE e.xid = me AND t.id = e.id;
    BEGIN
        INSERT INTO taskwatch.tasks (id, project_id, task_type, queue, parent_task_id, phase, title, description, priority,
            status, payload, labels, max_attempts, timeout_seconds, run_at, created_at, enqueued_at, depends_on,
            on_dependency_failure, unique_key, retry_base_seconds, retry_cap_seconds, phases, close_when_done, assignee,
            collaborators, watchers)
        SELECT e.id, coalesce(e.project_id, 'default'), e.task_type, e.queue, e.parent_task_id, e.phase, e.title,
            e.description, e.priority, begins.status, e.payload, e.labels, e.max_attempts, e.timeout_seconds,
            CASE WHEN e.run_at > moment THEN e.run_at END, moment, CASE WHEN begins.status = 'pending' THEN moment END,
            e.depends_on, e.on_dependency_failure, e.unique_key, e.retry_base_seconds, e.retry_cap_seconds, e.phases,
            e.close_when_done, e.assignee, e.collaborators, e.watchers
        FROM taskwatch.enqueued e, LATERAL (SELECT CASE
            WHEN e.close_when_done OR EXISTS (SELECT 1 FROM unnest(e.depends_on) AS d
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
    -- Whether what is waited for ended meanwhile, and that a parent has children now, is seen to by upkeep.
    INSERT INTO taskwatch.rechecks (task_id)
    SELECT t.id FROM taskwatch.enqueued e JOIN taskwatch.tasks t ON t.id = e.id
        WHERE e.xid = me AND e.depends_on <> '{}' AND t.status = 'blocked'
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
