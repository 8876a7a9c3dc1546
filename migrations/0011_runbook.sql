ALTER TABLE taskwatch.tasks ADD COLUMN runbook text;
COMMENT ON COLUMN taskwatch.tasks.runbook IS 'URL of instructions for people.';
