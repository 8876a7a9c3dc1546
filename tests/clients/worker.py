"""A taskwatch worker with nothing but the standard library.

    python3 worker.py http://127.0.0.1:8080 default
"""
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

url, queues = sys.argv[1], sys.argv[2:] or ["default"]


def call(path, body):
    request = urllib.request.Request(f"{url}/api/v1{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def work(task, tell, stopped):
    """The work itself, however long it takes: raise to fail, return what came out; look at stopped() now and then."""
    tell(percent=50, message="half way")
    payload = task.get("payload") or {}
    until = time.monotonic() + payload.get("seconds", 0)
    while time.monotonic() < until and not stopped():
        time.sleep(0.05)
    return {"sum": payload.get("a", 0) + payload.get("b", 0)}


registered = call("/workers", {"name": "python", "machine_id": socket.gethostname(), "queues": queues})
worker = registered["worker"]["id"]
held, cancelled = {}, set()  # task id -> attempt; ids of tasks to stop working on


def beat():
    """Says what this worker still has, as often as the server asked for: that keeps it."""
    while True:
        time.sleep(registered["heartbeat_seconds"])
        tasks = [{"task_id": id, "attempt": attempt} for id, attempt in list(held.items())]
        try:
            body = {"status": "active" if tasks else "idle", "tasks": tasks}
            cancelled.update(held.keys() & set(call(f"/workers/{worker}/heartbeat", body)["cancelled"]))
        except OSError as error:  # the server is away, or refuses: the next beat may get through
            print("heartbeat:", error, file=sys.stderr)


threading.Thread(target=beat, daemon=True).start()
while True:
    for task in call("/claims", {"worker_id": worker, "queues": queues, "wait_seconds": 20})["tasks"]:
        def report(what, **fields):
            fence = {"worker_id": worker, "attempt": task["attempt"]}
            return call(f"/tasks/{task['id']}/{what}", fence | fields)

        cancelled.discard(task["id"])
        held[task["id"]] = task["attempt"]
        try:
            result = work(task, lambda **fields: report("progress", **fields), lambda: task["id"] in cancelled)
            if task["id"] not in cancelled:
                report("complete", result=result)
        except urllib.error.HTTPError as refused:  # 409: cancelled, or no longer ours; leave it alone
            print("refused:", refused.read().decode(), file=sys.stderr)
        except Exception as error:
            report("fail", error=repr(error))
        finally:
            held.pop(task["id"], None)
