-- What pages need: failures that are alike, found and done something about together.

ALTER TABLE taskwatch.tasks ADD COLUMN fingerprint text;
COMMENT ON COLUMN taskwatch.tasks.fingerprint IS 'Of a failed task: failures with the same one are alike in kind of work and error.';
CREATE INDEX tasks_alike ON taskwatch.tasks (fingerprint, created_at DESC, id DESC) WHERE fingerprint IS NOT NULL;
