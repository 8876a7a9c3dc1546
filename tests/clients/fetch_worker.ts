// A worker with openapi-fetch and the types of openapi-typescript.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

const client = createClient<paths>({ baseUrl: process.argv[2]! });
type Task = components["schemas"]["TaskRecord"];

function need<T>(value: T | undefined, error: unknown): T {
  if (value === undefined) throw new Error(JSON.stringify(error));
  return value;
}

const registered = await client.POST("/api/v1/workers", { body: { name: "fetch", machine_id: "m", queues: ["f"] } });
const worker = need(registered.data, registered.error).worker;
if (worker.status !== "idle") throw new Error(worker.status);

const one = await client.POST("/api/v1/tasks", { body: { task_type: "add", queue: "f", payload: { a: 2 } } });
need(one.data, one.error);
const two = await client.POST("/api/v1/tasks", { body: [{ task_type: "say", queue: "f", payload: "text" }] });
need(two.data, two.error);

const claimed = await client.POST("/api/v1/claims", { body: { worker_id: worker.id, queues: ["f"], limit: 10 } });
const tasks: Task[] = need(claimed.data, claimed.error).tasks;
const fence = (task: Task) => ({ worker_id: worker.id, attempt: task.attempt });
for (const task of tasks) {
  const params = { path: { id: task.id } };
  const told = await client.POST("/api/v1/tasks/{id}/progress", { params, body: { ...fence(task), percent: 50 } });
  need(told.data, told.error);
}
const beat = await client.POST("/api/v1/workers/{id}/heartbeat", {
  params: { path: { id: worker.id } },
  body: { status: "active", tasks: tasks.map((task) => ({ task_id: task.id, attempt: task.attempt })) },
});
if (need(beat.data, beat.error).cancelled.length !== 0) throw new Error("cancelled");
for (const task of tasks) {
  const params = { path: { id: task.id } };
  const done = await client.POST("/api/v1/tasks/{id}/complete", { params, body: { ...fence(task), result: [1, "x"] } });
  if (need(done.data, done.error).task.status !== "completed") throw new Error("not completed");
}

// Events narrow by their type.
const events = await client.GET("/api/v1/tasks/{id}/events", { params: { path: { id: tasks[0]!.id } } });
for (const event of need(events.data, events.error)) {
  if (event.event_type === "task_started") event.data?.wait_ms?.toFixed();
}
const unknown = await client.GET("/api/v1/tasks/{id}", { params: { path: { id: crypto.randomUUID() } } });
if (unknown.error?.code !== "task_not_found") throw new Error(JSON.stringify(unknown));
console.log("completed", tasks.length);
