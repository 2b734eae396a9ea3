#!/usr/bin/env python3
"""Runs schemathesis against the OpenAPI descriptions that the sandbox cloud serves: no request, valid or not, may give a
5xx, or an answer outside its schema.

    python3 sandbox_api.py READY [EXAMPLES]

READY is the JSON line of `connector-sim cloud`, which runs with the catalogue of the fixtures and a connector with the
number 910101043. EXAMPLES is the number of generated requests for each operation, beside those for each bound of its
schema; with the default, both APIs take less than a minute on two cores.
"""

import json
import os
import subprocess
import sys
import tempfile

import requests

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]
EXAMPLES = os.path.join(os.path.dirname(__file__), "../sim/fixtures/vendor/examples.json")


def token(session, ready, account):
    """The access token of an account."""
    form = {"grant_type": "client_credentials"}
    form.update({key: ready[account][key] for key in ("client_id", "client_secret")})
    answer = session.post(ready["api_url"] + "/oauth2/token", data=form, timeout=30)
    answer.raise_for_status()
    return answer.json()["access_token"]


def make_tickets(session, ready, customer, operator):
    """A pending ticket, one in progress, and ended ones, so that lists are not empty."""
    api = ready["api_url"]
    for end in [{"type": "complete"}, {"type": "cancel", "cancel_reason_id": 2}, None, "pending"]:
        ticket = {
            "vin": "JFL91010104391010",
            "vehicle_model_id": 284841,
            "vehicle_model_variant_id": 284841,
            "connector_id": ready["connector"]["id"],
            "product_ids": [52352],
            "product_prerequisites": [{"definition_id": 1, "value": "true"}],
            "metadata": {},
        }
        made = session.post(api + "/v1/tickets", json=ticket, headers=customer, timeout=30)
        made.raise_for_status()
        uuid = made.json()["uuid"]
        if end == "pending":
            return
        join = {"transition": {"type": "join", "operator_id": "fuzzer"}}
        path = "/sandbox/v2/tickets/pending-tickets/" + uuid
        session.patch(api + path, json=join, headers=operator, allow_redirects=False, timeout=30)
        if end:
            path = "/v2/tickets/in-progress-tickets/" + uuid
            body = {"transition": end}
            session.patch(api + path, json=body, headers=operator, allow_redirects=False, timeout=30)


def main():
    ready = json.loads(sys.argv[1])
    examples = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    session = requests.Session()
    session.verify = ready["ca_file"]
    # neither another CA nor a proxy from the environment
    session.trust_env = False
    headers = {name: {"Authorization": "Bearer " + token(session, ready, name)} for name in ("customer", "operator")}
    make_tickets(session, ready, headers["customer"], headers["operator"])
    runs = [("customer", "customer"), ("partner", "operator")]
    failed = [api for api, role in runs if run(ready, api, headers[role], examples, session)]
    if failed:
        sys.exit("schemathesis reports faults of: " + ", ".join(failed))


def add_examples(description):
    """Adds the documented bodies and parameters to a description, so that requests reach more than the checks."""
    with open(EXAMPLES, encoding="utf-8") as file:
        steps = [step for step in json.load(file) if "operation" in step]
    for step in steps:
        method, template = step["operation"].split(" ")
        operation = description["paths"].get(template, {}).get(method.lower())
        if operation is None or "{" in step["path"] or step["status"] >= 400:
            continue
        if "request" in step:
            operation["requestBody"]["content"]["application/json"]["example"] = step["request"]
        path, _, query = step["path"].partition("?")
        values = dict(pair.split("=", 1) for pair in query.split("&") if pair)
        for name, value in zip(template.split("/"), path.split("/")):
            if name.startswith("{"):
                values[name.strip("{}")] = value
        for parameter in operation["parameters"]:
            value = values.get(parameter["name"])
            if value is not None:
                kinds = parameter["schema"].get("type")
                items = [int(part) if part.isdigit() else part for part in value.split(",")]
                parameter["example"] = items if kinds == "array" else items[0] if "integer" in str(kinds) else value


def run(ready, api, headers, examples, session):
    """Runs schemathesis against one description; whether it reports faults."""
    description = session.get(ready["api_url"] + f"/sandbox/openapi/{api}.json", timeout=30).json()
    add_examples(description)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, api + ".json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(description, file)
        command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", path]
        command += ["--url", ready["api_url"], "--tls-verify", ready["ca_file"]]
        command += ["--header", "Authorization: " + headers["Authorization"]]
        command += ["--checks", ",".join(CHECKS), "--max-examples", str(examples), "--generation-deterministic"]
        command += ["--phases", "examples,coverage,fuzzing", "--mode", "all", "--continue-on-failure"]
        command += ["--workers", "1", "--no-color", "--suppress-health-check", "all"]
        foreign = ("ca_bundle", "cert_file", "proxy")
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith(foreign)}
        # it leaves a cache in its directory
        return subprocess.call(command, env=environment, cwd=directory) != 0


main()
