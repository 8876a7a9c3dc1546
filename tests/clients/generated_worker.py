"""A worker with the client that openapi-python-client generates.

    python3 generated_worker.py FOLDER_OF_THE_CLIENT URL
"""
import sys
import uuid

folder, url = sys.argv[1:3]
sys.path.insert(0, folder)

from taskwatch_client import Client, models
from taskwatch_client.api.tasks import create_task, edit_task, get_task, list_tasks
from taskwatch_client.api.workers import (claim_tasks, complete_task, get_worker, register_worker, report_progress,
                                          send_heartbeat)

client = Client(base_url=url)
registered = register_worker.sync(client=client, body=models.RegisterWorker(name="python", machine_id="m", queues=["p"]))
assert isinstance(registered, models.Registered), registered
worker = registered.worker
assert worker.status is models.WorkerStatus.IDLE, worker.status

one = create_task.sync(client=client, idempotency_key="order-7",
                       body=models.CreateTask(task_type="add", queue="p", payload={"a": 2, "b": 3}))
again = create_task.sync(client=client, idempotency_key="order-7",
                         body=models.CreateTask(task_type="add", queue="p", payload={"a": 2, "b": 3}))
assert isinstance(one, models.TaskResponse) and isinstance(again, models.TaskResponse), (one, again)
assert one.task.id == again.task.id and one.task.payload == {"a": 2, "b": 3}
two = create_task.sync(client=client, body=[models.CreateTask(task_type="say", queue="p", payload="text")])
assert isinstance(two, models.TaskList) and len(two.tasks) == 1, two

claimed = claim_tasks.sync(client=client, body=models.ClaimInput(worker_id=worker.id, queues=["p"], limit=10))
assert isinstance(claimed, models.TaskList) and [task.payload for task in claimed.tasks] == [{"a": 2, "b": 3}, "text"]
for task in claimed.tasks:
    told = report_progress.sync(
        task.id, client=client, body=models.ProgressInput(worker_id=worker.id, attempt=task.attempt, percent=50.0))
    assert isinstance(told, models.TaskResponse), told
held = [models.HeldTask(task_id=task.id, attempt=task.attempt) for task in claimed.tasks]
beat = send_heartbeat.sync(worker.id, client=client,
                           body=models.HeartbeatInput(status=models.OnlineStatus.ACTIVE, tasks=held))
assert isinstance(beat, models.HeartbeatResponse) and beat.cancelled == [], beat
for task in claimed.tasks:
    done = complete_task.sync(
        task.id, client=client, body=models.CompleteInput(worker_id=worker.id, attempt=task.attempt, result=[1, "x"]))
    assert isinstance(done, models.TaskResponse) and done.task.status is models.Status.COMPLETED, done

read = get_task.sync(one.task.id, client=client)
assert isinstance(read, models.TaskHealthResponse) and read.task.result == [1, "x"], read
listed = list_tasks.sync(client=client, queue="p", status="completed")
assert isinstance(listed, models.TaskList) and len(listed.tasks) == 2 and listed.event_id, listed
seen = get_worker.sync(worker.id, client=client)
assert isinstance(seen, models.WorkerResponse), seen

# What is refused comes as a problem, whatever the status.
unknown = get_task.sync(uuid.uuid4(), client=client)
assert isinstance(unknown, models.Problem) and unknown.code == "task_not_found", unknown
stale = edit_task.sync(one.task.id, client=client, if_match='"0"', body=models.EditTask(title="x"))
assert isinstance(stale, models.Problem) and stale.code == "task_changed", stale
reused = create_task.sync(client=client, idempotency_key="order-7", body=models.CreateTask(task_type="other"))
assert isinstance(reused, models.Problem) and reused.code == "idempotency_key_reused", reused
print("completed", len(claimed.tasks))
