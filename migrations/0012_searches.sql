-- Every list begins with an index, whatever its filters.

DROP INDEX taskwatch.tasks_live;
CREATE INDEX tasks_live ON taskwatch.tasks (status, created_at DESC, id DESC) WHERE status <> 'completed';
CREATE INDEX tasks_keyed ON taskwatch.tasks (unique_key, created_at DESC, id DESC) WHERE unique_key IS NOT NULL;
CREATE INDEX tasks_external ON taskwatch.tasks (external_id, created_at DESC, id DESC) WHERE external_id IS NOT NULL;
