-- Events that few tasks have, and what people did, are found in the whole log.

CREATE INDEX events_rare ON taskwatch.events (event_type, position) WHERE event_type IN (
    'task_stalled', 'task_cancelled', 'task_deleted', 'task_updated', 'task_priority_changed', 'task_assigned',
    'task_collaborators_updated', 'task_watchers_updated', 'task_dependency_added', 'task_dependency_removed',
    'worker_started', 'worker_stopped', 'queue_paused', 'queue_resumed', 'operator_action');
CREATE INDEX events_retried ON taskwatch.events (position)
    WHERE event_type = 'task_enqueued' AND strpos(body, '"actor":') > 0;
