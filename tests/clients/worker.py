"""A taskwatch worker with nothing but the standard library.

    python3 worker.py http://127.0.0.1:8080 default
"""
import json
import socket
import sys
import urllib.error
import urllib.request

url, queues = sys.argv[1], sys.argv[2:] or ["default"]


def call(path, body):
    request = urllib.request.Request(f"{url}/api/v1{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def work(task, tell):
    """The work itself: raise to fail, return what came out."""
    tell(percent=50, message="half way")
    payload = task.get("payload") or {}
    return {"sum": payload.get("a", 0) + payload.get("b", 0)}


worker = call("/workers", {"name": "python", "machine_id": socket.gethostname(), "queues": queues})["worker"]["id"]
while True:
    for task in call("/claims", {"worker_id": worker, "queues": queues, "wait_seconds": 20})["tasks"]:
        def report(what, **fields):
            fence = {"worker_id": worker, "attempt": task["attempt"]}
            return call(f"/tasks/{task['id']}/{what}", fence | fields)

        try:
            report("complete", result=work(task, lambda **fields: report("progress", **fields)))
        except urllib.error.HTTPError as refused:  # 409: cancelled, or no longer ours; leave it alone
            print("refused:", refused.read().decode(), file=sys.stderr)
        except Exception as error:
            report("fail", error=repr(error))
