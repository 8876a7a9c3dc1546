"""Holds events (a JSON array on standard input, each with the schema it claims) against these schemas."""

import json
import sys

from jsonschema import Draft202012Validator

wrong = 0
for pair in json.load(sys.stdin):
    Draft202012Validator.check_schema(pair["schema"])
    for error in Draft202012Validator(pair["schema"]).iter_errors(pair["event"]):
        wrong += 1
        print(f"{pair['event'].get('event_type')}: {error.json_path}: {error.message}")
sys.exit(1 if wrong else 0)
