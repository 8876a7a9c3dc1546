"""Sends one event to taskwatch in each mode, with the official SDK: structured, batch, binary."""

import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

url = sys.argv[1]


def post(headers, body):
    request = urllib.request.Request(url + "/api/v1/events", data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["outcomes"]


for number, (subject, source) in enumerate(
    [("plain", "/s"), ("jöb 17", "/müll eimer"), ("100%", "/s"), ('a "quoted" one', "/s"), ("😀", "/s?x=1&y=%20")]
):
    attributes = {
        "specversion": "1.0",
        "type": "org.example.task_completed",
        "source": source,
        "id": str(number),
        "subject": subject,
        "time": datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=timezone.utc),
        "datacontenttype": "application/json",
    }
    event = CloudEvent(attributes=attributes, data={"task_type": "mail", "data": {"result": {"n": number}}})
    structured = to_structured_event(event)
    binary = to_binary_event(event)
    batch = b"[" + structured.body + b"]"
    outcomes = [
        post(dict(structured.headers), structured.body)[0],
        post({"content-type": "application/cloudevents-batch+json"}, batch)[0],
        post(dict(binary.headers), binary.body)[0],
    ]
    ids = {outcome["task_id"] for outcome in outcomes}
    assert len(ids) == 1, (subject, outcomes)
    assert [outcome["outcome"] for outcome in outcomes] == ["recorded", "unchanged", "unchanged"], (subject, outcomes)
    print(ids.pop(), subject)
