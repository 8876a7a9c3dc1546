-- Filters of bulk actions are stored by the names that the API uses: {"conditions": {"queue": {"names": ["mail"]}, …}, …}.

UPDATE taskwatch.bulk_actions SET filter = json_build_object(
    'conditions', coalesce((
        SELECT json_object_agg(condition.name, condition.accepted) FROM (
            SELECT field.name, json_build_object(field.kind, filter -> field.old) AS accepted
            FROM (VALUES ('statuses', 'status', 'statuses'), ('projects', 'project_id', 'names'), ('queues', 'queue', 'names'),
                ('task_types', 'task_type', 'names'), ('phases', 'phase', 'names'), ('parents', 'parent_task_id', 'ids'),
                ('workers', 'worker_id', 'ids'), ('machines', 'machine_id', 'names'),
                ('connectors', 'connector_id', 'names'), ('fingerprints', 'fingerprint', 'names')) AS field (old, name, kind)
            WHERE json_array_length(coalesce(filter -> field.old, '[]')) > 0
            UNION ALL
            SELECT 'label.' || label.key, json_build_object('texts', label.value)
            FROM json_each(coalesce(filter -> 'labels', '{}')) AS label
            UNION ALL
            SELECT 'priority', json_build_object('priorities', json_build_array(
                coalesce((filter ->> 'priority_min')::integer, 0), coalesce((filter ->> 'priority_max')::integer, 9)))
            WHERE coalesce(filter ->> 'priority_min', filter ->> 'priority_max') IS NOT NULL
        ) AS condition), '{}'),
    'text', filter -> 'text', 'since', filter -> 'since', 'before', filter -> 'before', 'limit', filter -> 'limit');
