"""Asks the library jsonschema whether documents follow a schema: metadata.py SCHEMA DOCUMENT...

Prints the list of what is wrong."""
import json
import sys

from jsonschema import Draft202012Validator


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


schema = load(sys.argv[1])
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
wrong = []
for path in sys.argv[2:]:
    wrong += [f"{path}: {error.json_path}: {error.message}" for error in validator.iter_errors(load(path))]
# What the schema is there to catch is caught.
broken = load(sys.argv[-1])
broken["artifacts"][0]["sha256"] = "x"
broken["run"] = {"started": "today"}
found = sum(1 for _ in validator.iter_errors(broken))
if found != 2:
    wrong.append(f"{found} mistakes were found in a document that has two")
print(json.dumps(wrong))
