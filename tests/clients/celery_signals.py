"""Reports every task of a Celery application to taskwatch. Import it in the module that makes the Celery app.

A thread of its own sends, in order, and tries again until taskwatch takes it: tasks never wait for their monitor."""
import json, os, queue, socket, threading, time, urllib.error, urllib.request
from datetime import datetime, timezone
from celery import signals

URL = os.environ.get("TASKWATCH_URL", "http://127.0.0.1:8080") + "/api/v1/events"
HOST, state = socket.gethostname(), {"pid": 0, "beat": 0.0}

def send_all(waiting):
    while True:
        batch = [waiting.get()]
        while len(batch) < 500 and not waiting.empty():
            batch.append(waiting.get_nowait())
        request = urllib.request.Request(URL, json.dumps(batch).encode(), {"Content-Type": "application/json"})
        while True:
            try:
                urllib.request.urlopen(request, timeout=10).close()
                break
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    break  # Said to be wrong: it would be wrong again.
                time.sleep(0.5)
            except OSError:
                time.sleep(0.5)
        for _ in batch:
            waiting.task_done()

def report(event_type, **fields):
    if state["pid"] != os.getpid():  # A forked worker process has no threads yet.
        state.update(pid=os.getpid(), waiting=queue.Queue())
        threading.Thread(target=send_all, args=[state["waiting"]], daemon=True).start()
    fields = {name: value for name, value in fields.items() if value is not None}
    state["waiting"].put({"event_type": event_type, "ts": datetime.now(timezone.utc).isoformat(), **fields})

def of_task(event_type, request, **fields):
    report(event_type, task_id=request.id, attempt=request.retries + 1, worker_id=request.hostname, machine_id=HOST, **fields)

def flush(**_):
    deadline = time.monotonic() + 30
    while state["pid"] == os.getpid() and state["waiting"].unfinished_tasks and time.monotonic() < deadline:
        time.sleep(0.05)

def beat(worker, **_):
    if time.monotonic() - state["beat"] > 5:
        state["beat"] = time.monotonic()
        report("worker_heartbeat", worker_id=worker, machine_id=HOST)

for signal, handle in [
    (signals.before_task_publish, lambda sender, headers, routing_key, **_: headers.get("retries") or report("task_created", task_id=headers["id"], task_type=sender, queue=routing_key)),
    (signals.task_prerun, lambda task, **_: of_task("task_started", task.request, task_type=task.name)),
    (signals.task_success, lambda sender, result, **_: of_task("task_completed", sender.request, data={"result": repr(result)[:1000]})),
    (signals.task_retry, lambda request, reason, **_: of_task("task_retry", request, error=str(reason)[:2000])),
    (signals.task_failure, lambda sender, exception, **_: of_task("task_failed", sender.request, error=repr(exception)[:2000])),
    (signals.task_revoked, lambda request, **_: report("task_cancelled", task_id=request.id)),
    (signals.heartbeat_sent, lambda sender, **_: beat(sender.eventer.hostname)),
    (signals.worker_process_shutdown, flush), (signals.worker_shutdown, flush)]:
    signal.connect(handle, weak=False)
