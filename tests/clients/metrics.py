"""Reads the metrics of a server in both formats with the strict parsers of prometheus_client.

    python3 metrics.py URL
"""
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

OPEN, TEXT = "application/openmetrics-text", "text/plain"


def read(accept):
    request = urllib.request.Request(sys.argv[1] + "/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def names(families):
    return {sample.name for family in families for sample in family.samples if not sample.name.endswith("_created")}


found = {}
for accept, kind, parse in [
    (f"{OPEN};version=1.0.0,{TEXT};version=0.0.4;q=0.5", OPEN, openmetrics),
    (f"{TEXT};version=0.0.4", TEXT, prometheus),
    ("*/*", TEXT, prometheus),
    (f"{OPEN};q=0.2,{TEXT};q=0.9", TEXT, prometheus),
]:
    content_type, text = read(accept)
    assert content_type.startswith(kind), (accept, content_type)
    families = list(parse(text))
    assert all(family.documentation and family.type != "unknown" for family in families), text
    found[accept] = names(families)
# Requests are counted, so a later page may hold more; all hold the same otherwise.
assert len({frozenset(names) for names in found.values()}) == 1, found
for name in ["taskwatch_tasks_created_total", "taskwatch_task_wait_seconds_bucket", "taskwatch_queue_pending_tasks",
             "taskwatch_queue_oldest_pending_seconds", "taskwatch_queue_paused", "taskwatch_health",
             "taskwatch_build_info", "taskwatch_log_head", "taskwatch_writer_commit_seconds_bucket",
             "taskwatch_http_requests_total", "taskwatch_database_connections", "process_cpu_seconds_total",
             "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"]:
    assert name in found["*/*"], name
print("ok")
