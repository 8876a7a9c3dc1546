// A worker with the client that @hey-api/openapi-ts generates.
import { client } from "./hey/client.gen";
import { claimTasks, completeTask, createTask, getTask, registerWorker, reportProgress, sendHeartbeat } from "./hey";
import type { TaskRecord } from "./hey";

client.setConfig({ baseUrl: process.argv[2]! });

const registered = await registerWorker({ body: { name: "hey", machine_id: "m", queues: ["h"] }, throwOnError: true });
const worker = registered.data.worker;
if (worker.status !== "idle") throw new Error(worker.status);

await createTask({ body: { task_type: "add", queue: "h", payload: { a: 2 } }, throwOnError: true });
await createTask({ body: [{ task_type: "say", queue: "h", payload: "text" }], throwOnError: true });

const claimed = await claimTasks({ body: { worker_id: worker.id, queues: ["h"], limit: 10 }, throwOnError: true });
const tasks: TaskRecord[] = claimed.data.tasks;
const fence = (task: TaskRecord) => ({ worker_id: worker.id, attempt: task.attempt });
for (const task of tasks) {
  await reportProgress({ path: { id: task.id }, body: { ...fence(task), percent: 50 }, throwOnError: true });
}
const held = tasks.map((task) => ({ task_id: task.id, attempt: task.attempt }));
const beat = await sendHeartbeat({ path: { id: worker.id }, body: { status: "active", tasks: held }, throwOnError: true });
if (beat.data.cancelled.length !== 0) throw new Error("cancelled");
for (const task of tasks) {
  const done = await completeTask({ path: { id: task.id }, body: { ...fence(task), result: [1, "x"] }, throwOnError: true });
  if (done.data.task.status !== "completed") throw new Error(done.data.task.status);
}
const unknown = await getTask({ path: { id: crypto.randomUUID() } });
if (unknown.error === undefined || unknown.error.code !== "task_not_found") throw new Error(JSON.stringify(unknown.error));
console.log("completed", tasks.length);
