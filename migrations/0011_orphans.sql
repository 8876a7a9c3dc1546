-- An id whose task was deleted may be used again: the new task becomes the parent of the children that are left.

CREATE FUNCTION taskwatch.adopt_orphans() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM taskwatch.phases p WHERE p.parent_task_id = NEW.id)
        AND NOT EXISTS (SELECT 1 FROM taskwatch.tasks t WHERE t.id = NEW.id)
    THEN
        IF NEW.parent_task_id IS NOT NULL THEN
            RAISE EXCEPTION 'taskwatch.enqueue: children of a deleted task % still exist; use a new id, or enqueue it without parent_task_id',
                NEW.id USING ERRCODE = 'unique_violation';
        END IF;
        -- Maintenance makes it a parent.
        INSERT INTO taskwatch.rechecks (task_id) VALUES (NEW.id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER adopt_orphans AFTER INSERT ON taskwatch.enqueued FOR EACH ROW EXECUTE FUNCTION taskwatch.adopt_orphans();
