"""An unmodified client of Server-Sent Events from PyPI, named by the first argument, reads the stream at the second and
prints the type and the id of each message. Clients that give up when the server is away are started again with the
last id that they had, as their users do."""

import asyncio
import json
import sys
import time


def show(kind, data, id):
    print(json.dumps({"type": kind, "id": id, "data": data}), flush=True)


def httpx_sse(url):
    import httpx
    from httpx_sse import connect_sse

    last, pause = None, 1.0
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with httpx.Client(timeout=60) as client, connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    if event.retry is not None:
                        pause = event.retry / 1000
                    if event.id:
                        last = event.id
                    show(event.event, event.data, event.id)
        except (httpx.HTTPError, OSError):
            pass
        time.sleep(pause)


def sseclient(url):
    from sseclient import SSEClient

    last = None
    while True:
        try:
            source = SSEClient(url, last_id=last, timeout=60)
            for event in source:
                last = source.last_id
                show(event.event, event.data, event.id)
        except OSError:
            time.sleep(1)


def requests_sse(url):
    from requests_sse import EventSource

    last = None
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with EventSource(url, headers=headers, timeout=60) as source:
                for event in source:
                    last = event.last_event_id or last
                    show(event.type, event.data, event.last_event_id)
        except OSError:
            time.sleep(1)


def aiohttp_sse_client2(url):
    import aiohttp
    from aiohttp_sse_client2.client import EventSource

    async def read():
        last = None
        while True:
            headers = {"Last-Event-Id": last} if last else {}
            try:
                async with EventSource(url, headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as source:
                    async for event in source:
                        last = event.last_event_id or last
                        show(event.type, event.data, event.last_event_id)
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(1)

    asyncio.run(read())


if __name__ == "__main__":
    name, url = sys.argv[1:]
    {"httpx-sse": httpx_sse, "sseclient": sseclient, "requests-sse": requests_sse, "aiohttp-sse-client2": aiohttp_sse_client2}[name](url)
