-- The life of a task: when it may run, what it waits for, who is on it, how its queue is limited, its parent's phases.

ALTER TABLE taskwatch.tasks
    ADD COLUMN connector_id text,
    ADD COLUMN external_id text,
    ADD COLUMN unique_key text,
    ADD COLUMN depends_on uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN on_dependency_failure text NOT NULL DEFAULT 'fail'
        CHECK (on_dependency_failure IN ('fail', 'cancel', 'ignore')),
    ADD COLUMN has_dependents boolean NOT NULL DEFAULT false,
    ADD COLUMN close_when_done boolean NOT NULL DEFAULT false,
    ADD COLUMN retry_base_seconds integer NOT NULL DEFAULT 1 CHECK (retry_base_seconds >= 0),
    ADD COLUMN retry_cap_seconds integer NOT NULL DEFAULT 3600 CHECK (retry_cap_seconds >= retry_base_seconds),
    ADD COLUMN assignee text,
    ADD COLUMN collaborators text[] NOT NULL DEFAULT '{}',
    ADD COLUMN watchers text[] NOT NULL DEFAULT '{}',
    ADD COLUMN observed json;
COMMENT ON COLUMN taskwatch.tasks.connector_id IS 'Connector of the latest attempt.';
COMMENT ON COLUMN taskwatch.tasks.external_id IS 'Its id in the system that reports it, when that is no UUID.';
COMMENT ON COLUMN taskwatch.tasks.unique_key IS 'No second live task of the project has this key.';
COMMENT ON COLUMN taskwatch.tasks.depends_on IS 'Tasks that must complete first.';
COMMENT ON COLUMN taskwatch.tasks.on_dependency_failure IS 'What becomes of it when one of them does not complete.';
COMMENT ON COLUMN taskwatch.tasks.has_dependents IS 'A task waits, or waited, for it.';
COMMENT ON COLUMN taskwatch.tasks.close_when_done IS 'Nobody claims it: it starts and ends with its children.';
COMMENT ON COLUMN taskwatch.tasks.retry_base_seconds IS 'Wait before the first retry; doubled for each further one.';
COMMENT ON COLUMN taskwatch.tasks.retry_cap_seconds IS 'Longest wait between attempts.';
COMMENT ON COLUMN taskwatch.tasks.assignee IS 'Who is responsible for it.';
COMMENT ON COLUMN taskwatch.tasks.collaborators IS 'Who else works on it.';
COMMENT ON COLUMN taskwatch.tasks.watchers IS 'Who wants to know how it goes.';
COMMENT ON COLUMN taskwatch.tasks.observed IS 'What the reports of another system said and when: such a task is only watched, never handed out.';
-- A live task for each key of a project; the key first, because it is looked up before the project is known.
CREATE UNIQUE INDEX tasks_unique ON taskwatch.tasks (unique_key, project_id)
    WHERE unique_key IS NOT NULL AND status NOT IN ('completed', 'failed', 'cancelled');

CREATE TABLE taskwatch.dependents (
    depends_on uuid NOT NULL,
    task_id uuid NOT NULL,
    PRIMARY KEY (depends_on, task_id)
);
COMMENT ON TABLE taskwatch.dependents IS 'Blocked tasks by what they wait for: exactly the dependencies of blocked tasks.';
COMMENT ON COLUMN taskwatch.dependents.depends_on IS 'What is waited for.';
COMMENT ON COLUMN taskwatch.dependents.task_id IS 'The blocked task.';
CREATE INDEX dependents_task ON taskwatch.dependents (task_id);

CREATE TABLE taskwatch.rechecks (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id uuid NOT NULL
) WITH (autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE taskwatch.rechecks IS 'Tasks to be looked at again, because something that they depend on changed: written with that change, worked off by upkeep.';
COMMENT ON COLUMN taskwatch.rechecks.number IS 'Identity; rows are only inserted and deleted.';
COMMENT ON COLUMN taskwatch.rechecks.task_id IS 'The task.';

CREATE TABLE taskwatch.phases (
    parent_task_id uuid NOT NULL,
    name text NOT NULL,
    pending bigint NOT NULL DEFAULT 0,
    running bigint NOT NULL DEFAULT 0,
    completed bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    started_at timestamptz,
    completed_at timestamptz,
    PRIMARY KEY (parent_task_id, name)
) WITH (fillfactor = 50, autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE taskwatch.phases IS 'Children of parent tasks, counted per phase by the writer in the transaction that changes them.';
COMMENT ON COLUMN taskwatch.phases.parent_task_id IS 'The parent; it may be reported later than its children.';
COMMENT ON COLUMN taskwatch.phases.name IS 'The phase; "-" holds the children without one.';
COMMENT ON COLUMN taskwatch.phases.pending IS 'Children not started: scheduled, blocked, pending, retrying.';
COMMENT ON COLUMN taskwatch.phases.running IS 'Children that workers have.';
COMMENT ON COLUMN taskwatch.phases.completed IS 'Children done.';
COMMENT ON COLUMN taskwatch.phases.failed IS 'Children given up.';
COMMENT ON COLUMN taskwatch.phases.cancelled IS 'Children stopped by someone.';
COMMENT ON COLUMN taskwatch.phases.started_at IS 'When phase_started was told; it is told once.';
COMMENT ON COLUMN taskwatch.phases.completed_at IS 'When phase_completed was told; it is told once.';

CREATE TABLE taskwatch.queues (
    name text PRIMARY KEY,
    paused_at timestamptz,
    concurrency_limit integer CHECK (concurrency_limit >= 1),
    rate_limit integer CHECK (rate_limit >= 1),
    rate_period_seconds integer NOT NULL DEFAULT 1 CHECK (rate_period_seconds BETWEEN 1 AND 86400),
    limited boolean NOT NULL GENERATED ALWAYS AS (concurrency_limit IS NOT NULL OR rate_limit IS NOT NULL) STORED,
    starts json NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50);
COMMENT ON TABLE taskwatch.queues IS 'Every queue that a task was ever in, with what operators decided about it.';
COMMENT ON COLUMN taskwatch.queues.name IS 'Its name.';
COMMENT ON COLUMN taskwatch.queues.paused_at IS 'Since when nothing is handed out.';
COMMENT ON COLUMN taskwatch.queues.concurrency_limit IS 'At most so many of its tasks run at once.';
COMMENT ON COLUMN taskwatch.queues.rate_limit IS 'At most so many of its tasks start within the period.';
COMMENT ON COLUMN taskwatch.queues.rate_period_seconds IS 'Length of the period.';
COMMENT ON COLUMN taskwatch.queues.limited IS 'Whoever claims from it must hold its row alone.';
COMMENT ON COLUMN taskwatch.queues.starts IS 'Starts within the last period, as [slot of a tenth of the period, count].';
INSERT INTO taskwatch.queues (name) SELECT DISTINCT queue FROM taskwatch.tasks;

ALTER TABLE taskwatch.leases
    ALTER COLUMN worker_id DROP NOT NULL,
    ALTER COLUMN expires_at DROP NOT NULL,
    ADD COLUMN queue text;
COMMENT ON TABLE taskwatch.leases IS 'Holds on tasks: exactly the running tasks, with their progress.';
COMMENT ON COLUMN taskwatch.leases.worker_id IS 'Who holds it; nobody, when the task runs with its children or is only watched.';
COMMENT ON COLUMN taskwatch.leases.expires_at IS 'When the hold ends unless extended; never for tasks that nobody claimed.';
COMMENT ON COLUMN taskwatch.leases.queue IS 'Queue it was claimed from, to count what runs there.';
CREATE INDEX leases_queue ON taskwatch.leases (queue);

ALTER TABLE taskwatch.workers ADD COLUMN observed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN taskwatch.workers.observed IS 'Known by the reports of another system only.';
ALTER TABLE taskwatch.workers ADD COLUMN unreported_since timestamptz;
COMMENT ON COLUMN taskwatch.workers.unreported_since IS 'The oldest last report of its connectors, but of those that are unknown already.';
CREATE INDEX workers_unreported ON taskwatch.workers (unreported_since) WHERE status <> 'stopped';
