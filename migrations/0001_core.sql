-- The core: the log, tasks, what may be claimed, what is claimed, workers, checkpoints of the board.
-- Everything lives in the schema "taskwatch", so that it can share a database with an application.

-- The log ---------------------------------------------------------------------------------------------------------

CREATE TABLE taskwatch.log (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch text NOT NULL CHECK (epoch ~ '^[0-9a-f]{8}$'),
    oldest bigint NOT NULL DEFAULT 1,
    origin text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE taskwatch.log IS 'Facts about the event log; one row.';
COMMENT ON COLUMN taskwatch.log.only_row IS 'Keeps the table at one row.';
COMMENT ON COLUMN taskwatch.log.epoch IS 'Eight hex digits in front of each position; new when the log was created or restored.';
COMMENT ON COLUMN taskwatch.log.oldest IS 'The oldest position kept; positions below were removed by retention.';
COMMENT ON COLUMN taskwatch.log.origin IS 'System identifier and timeline of the server that wrote last; another one means the log was restored or promoted.';
COMMENT ON COLUMN taskwatch.log.created_at IS 'When the log was created.';

CREATE TABLE taskwatch.events (
    position bigint NOT NULL PRIMARY KEY,
    at timestamptz NOT NULL,
    event_type text NOT NULL,
    project_id text,
    parent_task_id uuid,
    task_id uuid,
    queue text,
    worker_id uuid,
    body text NOT NULL
) PARTITION BY RANGE (position);
COMMENT ON TABLE taskwatch.events IS 'The event log: append-only, positions dense from 1 in commit order, never reused.';
COMMENT ON COLUMN taskwatch.events.position IS 'Place in the log; assigned under the log''s advisory lock, last thing before commit.';
COMMENT ON COLUMN taskwatch.events.at IS 'When it happened.';
COMMENT ON COLUMN taskwatch.events.event_type IS 'Kind of event.';
COMMENT ON COLUMN taskwatch.events.project_id IS 'Project of the task, to narrow a search.';
COMMENT ON COLUMN taskwatch.events.parent_task_id IS 'Parent of the task, to narrow a search.';
COMMENT ON COLUMN taskwatch.events.task_id IS 'The task, for its history.';
COMMENT ON COLUMN taskwatch.events.queue IS 'Queue of the task, to narrow a search.';
COMMENT ON COLUMN taskwatch.events.worker_id IS 'The worker, to narrow a search.';
COMMENT ON COLUMN taskwatch.events.body IS 'The encoded JSON object, byte for byte what is sent.';
CREATE INDEX events_task ON taskwatch.events (task_id, position) WHERE task_id IS NOT NULL;
CREATE INDEX events_at ON taskwatch.events USING brin (at);

-- Makes sure that partitions exist for the million positions at `head` and the two million after them.
-- A new one is built beside the log and attached, which does not stop writers or readers.
CREATE FUNCTION taskwatch.ensure_partitions(head bigint) RETURNS integer LANGUAGE plpgsql AS $$
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
                EXECUTE format('ALTER TABLE taskwatch.%I ADD CHECK (position >= %s AND position < %s)',
                    name, first + i * size, first + (i + 1) * size);
                EXECUTE format('ALTER TABLE taskwatch.events ATTACH PARTITION taskwatch.%I FOR VALUES FROM (%s) TO (%s)',
                    name, first + i * size, first + (i + 1) * size);
                made := made + 1;
            END IF;
        END IF;
    END LOOP;
    RETURN made;
END $$;
SELECT taskwatch.ensure_partitions(0);

-- Takes the log's lock until the end of the transaction, then reads the top position in a NEW statement:
-- each statement of a VOLATILE function has its own snapshot, so it sees what the last holder committed.
-- `known` is any position known to exist (it prunes older partitions), or 0.
CREATE FUNCTION taskwatch.lock_log(known bigint, OUT head bigint, OUT xid text) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(8386658438437413987);
    SELECT e.position INTO head FROM taskwatch.events e WHERE e.position >= known ORDER BY e.position DESC LIMIT 1;
    IF head IS NULL THEN
        SELECT coalesce((SELECT e.position FROM taskwatch.events e ORDER BY e.position DESC LIMIT 1), l.oldest - 1)
        INTO head FROM taskwatch.log l;
    END IF;
    xid := pg_current_xact_id()::text;
END $$;

-- Tasks -----------------------------------------------------------------------------------------------------------

CREATE TABLE taskwatch.tasks (
    id uuid PRIMARY KEY,
    project_id text NOT NULL,
    task_type text NOT NULL,
    queue text NOT NULL,
    parent_task_id uuid,
    phase text,
    title text,
    description text,
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    status text NOT NULL CHECK (status IN
        ('scheduled', 'blocked', 'pending', 'running', 'retrying', 'completed', 'failed', 'cancelled')),
    payload json,
    labels json,
    phases text[] NOT NULL DEFAULT '{}',
    is_parent boolean NOT NULL DEFAULT false,
    max_attempts integer NOT NULL CHECK (max_attempts >= 1),
    timeout_seconds integer CHECK (timeout_seconds >= 1),
    attempt integer NOT NULL DEFAULT 0,
    retry_count integer NOT NULL DEFAULT 0,
    outcome text CHECK (outcome IN ('completed', 'failed', 'released', 'stalled', 'cancelled')),
    run_at timestamptz,
    worker_id uuid,
    machine_id text,
    created_at timestamptz NOT NULL,
    enqueued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    result json,
    error text
) WITH (fillfactor = 70, autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE taskwatch.tasks IS 'Every task with its present state. Changed only by the writer, together with the events that tell of it.';
COMMENT ON COLUMN taskwatch.tasks.id IS 'Identity: UUID version 7, unless the client chose one.';
COMMENT ON COLUMN taskwatch.tasks.project_id IS 'The tenant.';
COMMENT ON COLUMN taskwatch.tasks.task_type IS 'What kind of work it is.';
COMMENT ON COLUMN taskwatch.tasks.queue IS 'The line it stands in.';
COMMENT ON COLUMN taskwatch.tasks.parent_task_id IS 'The task that groups it.';
COMMENT ON COLUMN taskwatch.tasks.phase IS 'Its phase within the parent.';
COMMENT ON COLUMN taskwatch.tasks.title IS 'One line for people.';
COMMENT ON COLUMN taskwatch.tasks.description IS 'More for people.';
COMMENT ON COLUMN taskwatch.tasks.priority IS '0 (lowest) to 9 (highest).';
COMMENT ON COLUMN taskwatch.tasks.status IS 'State; the arrows between states are decided in the program alone.';
COMMENT ON COLUMN taskwatch.tasks.payload IS 'Input for the worker, kept byte for byte (json, not jsonb).';
COMMENT ON COLUMN taskwatch.tasks.labels IS 'Marks for people and filters: an object of texts.';
COMMENT ON COLUMN taskwatch.tasks.phases IS 'Phases declared for its children, in order.';
COMMENT ON COLUMN taskwatch.tasks.is_parent IS 'It groups other tasks.';
COMMENT ON COLUMN taskwatch.tasks.max_attempts IS 'Attempts allowed.';
COMMENT ON COLUMN taskwatch.tasks.timeout_seconds IS 'Longest time of one attempt, seconds.';
COMMENT ON COLUMN taskwatch.tasks.attempt IS 'Number of the latest attempt, 0 before the first; the fence of reports.';
COMMENT ON COLUMN taskwatch.tasks.retry_count IS 'Attempts that failed or stalled and were followed by another.';
COMMENT ON COLUMN taskwatch.tasks.outcome IS 'How the latest attempt ended; a repeated report is recognised by it.';
COMMENT ON COLUMN taskwatch.tasks.run_at IS 'Not to start before.';
COMMENT ON COLUMN taskwatch.tasks.worker_id IS 'Worker of the latest attempt.';
COMMENT ON COLUMN taskwatch.tasks.machine_id IS 'Machine of the latest attempt.';
COMMENT ON COLUMN taskwatch.tasks.created_at IS 'When it was created.';
COMMENT ON COLUMN taskwatch.tasks.enqueued_at IS 'When it last became claimable.';
COMMENT ON COLUMN taskwatch.tasks.started_at IS 'When the latest attempt started.';
COMMENT ON COLUMN taskwatch.tasks.finished_at IS 'When it finished.';
COMMENT ON COLUMN taskwatch.tasks.result IS 'Output of the worker, kept byte for byte.';
COMMENT ON COLUMN taskwatch.tasks.error IS 'The latest error.';
-- Lists show the newest first; the live ones are few, so their index stays small.
CREATE INDEX tasks_newest ON taskwatch.tasks (created_at DESC, id DESC);
CREATE INDEX tasks_live ON taskwatch.tasks (status, created_at DESC, id DESC)
    WHERE status NOT IN ('completed', 'cancelled');
CREATE INDEX tasks_children ON taskwatch.tasks (parent_task_id, created_at DESC, id DESC)
    WHERE parent_task_id IS NOT NULL;
CREATE INDEX tasks_due ON taskwatch.tasks (run_at) WHERE status IN ('scheduled', 'retrying');

CREATE TABLE taskwatch.ready (
    task_id uuid PRIMARY KEY,
    queue text NOT NULL,
    priority smallint NOT NULL,
    ticket bigint GENERATED ALWAYS AS IDENTITY,
    enqueued_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE taskwatch.ready IS 'What may be claimed now: exactly the pending tasks. Rows are only inserted and deleted.';
COMMENT ON COLUMN taskwatch.ready.task_id IS 'The task.';
COMMENT ON COLUMN taskwatch.ready.queue IS 'Its queue.';
COMMENT ON COLUMN taskwatch.ready.priority IS 'Its priority.';
COMMENT ON COLUMN taskwatch.ready.ticket IS 'Order of arrival; the server keeps a floor below which nothing is ready any more, so that dead index entries are not walked.';
COMMENT ON COLUMN taskwatch.ready.enqueued_at IS 'Since when it waits.';
CREATE INDEX ready_line ON taskwatch.ready (queue, priority, ticket);

CREATE TABLE taskwatch.leases (
    task_id uuid PRIMARY KEY,
    worker_id uuid NOT NULL,
    attempt integer NOT NULL,
    expires_at timestamptz NOT NULL,
    deadline timestamptz,
    stalled boolean NOT NULL DEFAULT false,
    progress json
) WITH (fillfactor = 50, autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE taskwatch.leases IS 'Workers'' holds on tasks: exactly the running tasks, with their progress.';
COMMENT ON COLUMN taskwatch.leases.task_id IS 'The task.';
COMMENT ON COLUMN taskwatch.leases.worker_id IS 'Who holds it.';
COMMENT ON COLUMN taskwatch.leases.attempt IS 'Which attempt.';
COMMENT ON COLUMN taskwatch.leases.expires_at IS 'When the hold ends unless extended.';
COMMENT ON COLUMN taskwatch.leases.deadline IS 'When the attempt passes its time limit.';
COMMENT ON COLUMN taskwatch.leases.stalled IS 'The stall was reported already (policy report).';
COMMENT ON COLUMN taskwatch.leases.progress IS 'The last progress reported: percent, message, counts.';
CREATE INDEX leases_worker ON taskwatch.leases (worker_id);

-- Workers ---------------------------------------------------------------------------------------------------------

CREATE TABLE taskwatch.workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    machine_id text NOT NULL,
    queues text[] NOT NULL,
    capabilities text[] NOT NULL,
    version text,
    status text NOT NULL CHECK (status IN ('starting', 'idle', 'active', 'draining', 'stopped', 'lost')),
    connectors json NOT NULL,
    started_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    stopped_at timestamptz
) WITH (fillfactor = 70);
COMMENT ON TABLE taskwatch.workers IS 'Processes that run tasks.';
COMMENT ON COLUMN taskwatch.workers.id IS 'Identity, given at registration.';
COMMENT ON COLUMN taskwatch.workers.name IS 'Name for people.';
COMMENT ON COLUMN taskwatch.workers.machine_id IS 'Where it lives.';
COMMENT ON COLUMN taskwatch.workers.queues IS 'Queues it serves.';
COMMENT ON COLUMN taskwatch.workers.capabilities IS 'What it can do, in words of its own.';
COMMENT ON COLUMN taskwatch.workers.version IS 'Version of its program.';
COMMENT ON COLUMN taskwatch.workers.status IS 'What it does.';
COMMENT ON COLUMN taskwatch.workers.connectors IS 'Its connectors: name to status, error, since.';
COMMENT ON COLUMN taskwatch.workers.started_at IS 'When it registered.';
COMMENT ON COLUMN taskwatch.workers.last_seen_at IS 'Its last sign of life.';
COMMENT ON COLUMN taskwatch.workers.stopped_at IS 'When it left or was lost.';
CREATE INDEX workers_online ON taskwatch.workers (last_seen_at) WHERE status NOT IN ('stopped', 'lost');

-- The board -------------------------------------------------------------------------------------------------------

CREATE TABLE taskwatch.checkpoints (
    position bigint PRIMARY KEY,
    version integer NOT NULL,
    at timestamptz NOT NULL,
    body text NOT NULL
);
COMMENT ON TABLE taskwatch.checkpoints IS 'The board at some positions, so that a start needs only the events since.';
COMMENT ON COLUMN taskwatch.checkpoints.position IS 'The last event folded in.';
COMMENT ON COLUMN taskwatch.checkpoints.version IS 'Version of the encoding; another one is ignored.';
COMMENT ON COLUMN taskwatch.checkpoints.at IS 'When it was written.';
COMMENT ON COLUMN taskwatch.checkpoints.body IS 'The board as JSON.';
