// An unmodified client of Server-Sent Events from npm, named by the first argument, reads the stream at the second and
// prints the type and the id of each message. Its module lies in the folder MODULES; TYPES are the names of all frames.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [name, url] = process.argv.slice(2);
const types = ["message", ...process.env.TYPES.split(",")];
const require = createRequire(`${process.env.MODULES}/`);
const load = (module) => import(pathToFileURL(require.resolve(module)));

// Written at once, so that nothing is lost when the process is ended.
const print = (type, data, id) => process.stdout.write(`${JSON.stringify({ type, id, data })}\n`);

const clients = {
  // As browsers do: the messages of each name have listeners of their own.
  async eventsource() {
    const { EventSource } = await load("eventsource");
    const source = new EventSource(url);
    for (const type of types) {
      source.addEventListener(type, (event) => print(event.type, event.data, event.lastEventId));
    }
  },
  async "eventsource-client"() {
    const { createEventSource } = await load("eventsource-client");
    createEventSource({ url, onMessage: ({ event, data, id }) => print(event, data, id) });
  },
  async "@microsoft/fetch-event-source"() {
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await load("@microsoft/fetch-event-source");
    await fetchEventSource(url, { openWhenHidden: true, onmessage: ({ event, data, id }) => print(event, data, id) });
  },
  async "launchdarkly-eventsource"() {
    const { EventSource } = (await load("launchdarkly-eventsource")).default;
    const source = new EventSource(url);
    source.onerror = () => {};
    for (const type of types) {
      source.addEventListener(type, (event) => print(event.type, event.data, event.lastEventId));
    }
  },
};

await clients[name]();
