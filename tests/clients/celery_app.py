"""A Celery application as anyone might have it; the second import is all that taskwatch needs."""
import os, time
from celery import Celery
import celery_signals  # noqa: F401

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

@app.task
def add(a, b):
    time.sleep(0.05)
    return a + b

@app.task(bind=True, max_retries=3)
def flaky(self, number):
    if self.request.retries < 2:
        raise self.retry(exc=ValueError(f"not yet {number}"), countdown=0.2)
    return number

@app.task
def broken(number):
    raise RuntimeError(f"cannot do {number}")
