"""Sends the documented bodies with one field left out, of another type, null, unknown, or beyond its bounds.

    python3 documented_bodies.py READY EXAMPLES

READY is the JSON line of `connector-sim cloud` with its default data, EXAMPLES the file with the documented bodies.
The tables below are those of the documents: what they allow is accepted, and everything else is a problem object that
names the field. Prints {"checks": N} at the end.
"""

import json
import sys
import uuid

import requests

PATIENCE = 60
CHECKS = 0
UNKNOWN = 424242
NO_TEXT = [1, True, None, [], {}]
NO_INTEGER = ["1", 1.5, True, None, [], {}, 2**70]
NO_BOOLEAN = ["true", 1, None, [], {}]
NO_UUID = ["x", 1, True, [], {}]
NO_LIST = [None, "x", {}, 1]
UNKNOWN_UUID = str(uuid.uuid4())
NO_JSON_OBJECT = ["", "{", "[]", "null", '"x"', "1", '{"a":' * 400]
# vehicle numbers of a new ticket are text in the example, and integers in the schema
NO_NUMBER = [1.5, True, None, [], {}, "x", UNKNOWN]
ANY_TEXT = ([""], NO_TEXT)
NAME = (["x" * 255], NO_TEXT + ["x" * 256])
LOCALE = (["en-GB"], NO_TEXT + ["", "xx-XX"])
REFERENCE = (["", "r" * 255], NO_TEXT + ["r" * 256])
VIN = ([None, "JH4KA7630PC007649", "IOQ00000000000000"], NO_TEXT[:2] + ["", "x" * 16, "x" * 18])
VOUCHER_CODE = ([None, "AB12", "ABCDEFG8"], [1, "ABC", "ABCDEFGH9", "ab12"])
PRODUCTS = ([[52351]], NO_LIST + [["52351"], [None], [1.5], [UNKNOWN]])
NO_ANSWERS = NO_LIST + [[None], ["x"], [{"definition_id": "1", "value": "true"}], [{"definition_id": 1, "value": True}]]
COMPANY = ["name", "street", "number", "postal_code", "city", "country", "email_address", "financial_email_address"]

# operation: (required fields, {field: (values that are accepted, values that are refused)})
CUSTOMER = {
    "POST /v1/favorite-products": (
        [],
        {
            "id": ([], NO_INTEGER + [UNKNOWN]),
            "item_number": (["100022"], [True, None, [], {}]),
            "name": ANY_TEXT,
            "internal_name": ANY_TEXT,
            "description": ANY_TEXT,
            "is_favorite": ([False], NO_BOOLEAN),
            "is_unattended": ([False], NO_BOOLEAN),
            "gross_price": ([], NO_LIST[:2]),
            "net_price": ([], NO_LIST[:2]),
            "total_discount": ([], NO_LIST[:2]),
            "original_equipment_service_fee": ([None], ["x", 1, []]),
            "price": ([], NO_LIST[:2]),
        },
    ),
    "POST /v1/cart/calculate-prices": (
        ["vehicle_model_id", "vehicle_model_variant_id", "product_ids"],
        {
            "voucher": ([], NO_TEXT + ["NONE"]),
            "vehicle_model_id": ([], NO_INTEGER + [UNKNOWN]),
            "vehicle_model_variant_id": ([], NO_INTEGER + [UNKNOWN]),
            "vin": ([None, "jfl91010104591010"], [1, "x" * 16, "x" * 18, "JFL9101010459101!"]),
            "prepared_ticket_id": ([None], NO_UUID + [UNKNOWN_UUID]),
            "product_ids": PRODUCTS,
        },
    ),
    "POST /v1/employees": (
        ["given_name", "family_name", "username"],
        {
            "given_name": NAME,
            "family_name": NAME,
            "username": ([None], [1, True, [], "", "no address", "x" * 250 + "@example.com"]),
            "correspondence_locale": LOCALE,
        },
    ),
    "PUT /v1/employees/{employeeId}": (
        ["given_name", "family_name", "username"],
        {"given_name": NAME, "username": ([], [None, 1, "no address"]), "correspondence_locale": LOCALE},
    ),
    "PUT /v1/customers/me": (
        [],
        {field: ANY_TEXT for field in COMPANY} | {"phone": (["+31 6", "x"], [True, None, [], {}])},
    ),
    "POST /v1/translate": (
        ["message", "target_language"],
        {
            "message": ([], [None, "x", [], {}, {"original": None}, {"original": 1}]),
            "target_language": (["nl"], NO_TEXT),
        },
    ),
    "POST /v1/tickets": (
        ["vin", "vehicle_model_id", "vehicle_model_variant_id", "connector_id", "product_ids", "metadata"],
        {
            "vin": ([], NO_TEXT + ["", "x" * 16, "x" * 18]),
            "vehicle_model_id": ([], NO_NUMBER),
            "vehicle_model_variant_id": ([], NO_NUMBER),
            "connector_id": ([], NO_INTEGER + [UNKNOWN]),
            "voucher": ([], NO_TEXT + ["NONE"]),
            "product_ids": ([], PRODUCTS[1]),
            "product_prerequisites": ([], NO_ANSWERS + [[{"definition_id": UNKNOWN, "value": "x"}]]),
            "metadata": ([], [None, "x", [], 1]),
            "prepared_ticket_id": ([], NO_UUID + [UNKNOWN_UUID]),
            "reference": ([], NO_TEXT),
            "confirmed_unattended_service": ([], NO_BOOLEAN),
        },
    ),
    "POST /v1/tickets/{ticketId}/csat": (
        ["score"],
        {"score": ([-1, 0, 0.5], ["1", None, True, [], 1.1, -1.1]), "comment": ([None, ""], [1, True, [], {}])},
    ),
    "POST /v1/channel-attachments": ([], {"file_name": ([], NO_TEXT + ["x" * 256])}),
}
PREPARED = {
    "vehicle_model_id": ([], NO_INTEGER + [UNKNOWN]),
    "vin": VIN,
    "voucher_code": VOUCHER_CODE,
    "preparer_external_reference": REFERENCE,
}
PARTNER = {
    "POST /v2/tickets/prepared-tickets": (
        ["customer_id", "vehicle_model_id", "vin", "preparer_external_reference"],
        {"customer_id": ([], NO_UUID + [None]), **PREPARED},
    ),
    "PUT /v2/tickets/prepared-tickets/{prepared-ticket-id}": (list(PREPARED), PREPARED),
    "PUT /v2/tickets/in-progress-tickets/{in-progress-ticket-id}": (
        ["operator_id"],
        {"operator_id": ([], NO_UUID + [None])},
    ),
}
LOGINS = {
    "POST /v2/authenticate/pincode": (
        [],
        {"connector_uuid": ([], NO_UUID + [None]), "pincode": (["1234"], [True, None, [], {}, 1.5])},
    ),
    "POST /v1/authenticate/pincode": (
        [],
        {"connector_id": (["940201044"], [True, None, [], {}, 1.5]), "pincode": (["1234"], [True, None, [], {}])},
    ),
    "POST /legacy/api/mobile/authentication/authenticate/forgot/password": (
        ["email_address"],
        {"email_address": (["x"], NO_TEXT)},
    ),
}


def check(condition, *what):
    global CHECKS
    if not condition:
        sys.exit("wrong: " + " ".join(map(str, what))[:1000])
    CHECKS += 1


class Sandbox:
    """The sandbox, the documented bodies, and the numbers of what a test has made."""

    def __init__(self, ready, examples):
        self.url = ready["api_url"]
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = ready["ca_file"]
        self.examples = examples
        self.names = {"{employeeId}": "me"}

    def send(self, operation, token, query="", **arguments):
        method, path = operation.split(" ")
        for name, value in self.names.items():
            path = path.replace(name, value)
        headers = {"Authorization": "Bearer " + token} if token else {}
        return self.session.request(
            method, self.url + path + query, headers=headers, allow_redirects=False, timeout=PATIENCE, **arguments
        )

    def example(self, operation):
        steps = (step for step in self.examples if step.get("operation") == operation and step["status"] < 300)
        step = next(steps)
        return step["request"], step["status"]

    def printed(self, operation, token, query=""):
        """Sends the documented body as it stands."""
        body, status = self.example(operation)
        answer = self.send(operation, token, query, json=body)
        check(answer.status_code == status, operation, answer.status_code, answer.text)
        return answer.json()


def refused(answer, status, field, *what):
    check(answer.status_code == status, *what, answer.status_code, answer.text)
    check(answer.headers["content-type"] == "application/problem+json", *what, "content type")
    problem = answer.json()
    check({"type", "title", "status", "detail"} <= set(problem) and problem["status"] == status, *what, problem)
    if problem["type"] == "/problems/violations":
        fields = [violation["field"].split(".")[0] for violation in problem["violations"]]
        check(field is None or field in fields, *what, problem)


def vary(sandbox, operation, token, rules, query=""):
    required, fields = rules
    body, status = sandbox.example(operation)
    for field in required:
        less = {name: value for name, value in body.items() if name != field}
        refused(sandbox.send(operation, token, query, json=less), 400, field, operation, "without", field)
    for field, (accepted, wrong) in fields.items():
        for value in wrong:
            answer = sandbox.send(operation, token, query, json={**body, field: value})
            refused(answer, 400, field, operation, field, value)
        for value in accepted:
            answer = sandbox.send(operation, token, query, json={**body, field: value})
            check(answer.status_code == status, operation, field, value, answer.text)
    for text in NO_JSON_OBJECT:
        refused(sandbox.send(operation, token, query, data=text), 400, None, operation, text[:20])
    refused(sandbox.send(operation, token, query, data=" " * 400_000), 413, None, operation, "too long")
    if token:
        refused(sandbox.send(operation, None, query, json=body), 401, None, operation, "without a token")


def transitions(sandbox, token, product):
    operation = "PATCH /v2/tickets/in-progress-tickets/{in-progress-ticket-id}"
    provider = sandbox.send("GET /v2/providers/providers", token).json()["result"][0]["id"]
    outsource = {"type": "outsource", "product_ids": [product], "provider_id": provider}
    wrong = [None, "x", [], {}, {"type": "explode"}, {"type": 1}, {"type": "outsource"}]
    wrong += [{**outsource, "product_ids": value} for value in NO_LIST + [[], ["x"], [UNKNOWN_UUID]]]
    wrong += [{**outsource, "provider_id": value} for value in NO_UUID + [None, UNKNOWN_UUID]]
    for flag in ["allow_customer_chat_write_access", "share_customer_information"]:
        wrong += [{**outsource, flag: value} for value in NO_BOOLEAN]
    wrong += [{"type": "cancel", "cancel_reason_id": value} for value in ["1", 1.5, 9999]]
    for transition in wrong:
        refused(sandbox.send(operation, token, json={"transition": transition}), 400, "transition", transition)
    refused(sandbox.send(operation, token, json={}), 400, "transition", operation)


def main():
    ready, examples = json.loads(sys.argv[1]), json.load(open(sys.argv[2], encoding="utf-8"))
    sandbox = Sandbox(ready, examples)
    form = {"grant_type": "client_credentials", **ready["operator"]}
    partner = sandbox.send("POST /oauth2/token", None, data=form).json()["access_token"]
    customer = sandbox.printed("POST /v2/authenticate/pincode", None)["access_token"]
    for operation, rules in LOGINS.items():
        vary(sandbox, operation, None, rules)
    rules = dict(CUSTOMER)
    of_ticket = {name: rules.pop(name) for name in ["POST /v1/tickets/{ticketId}/csat", "POST /v1/channel-attachments"]}
    for operation, each in rules.items():
        vary(sandbox, operation, customer, each)

    prepared, replaced, reassigned = PARTNER
    sandbox.names["{prepared-ticket-id}"] = sandbox.printed(prepared, partner)["id"]
    vary(sandbox, prepared, partner, PARTNER[prepared])
    vary(sandbox, replaced, partner, PARTNER[replaced])

    # a ticket in progress
    create = "POST /v1/tickets"
    ticket = sandbox.printed(create, customer)
    refused(sandbox.send(create, customer, json=sandbox.example(create)[0]), 400, None, "a pending ticket")
    sandbox.names.update({"{ticketId}": ticket["id"], "{in-progress-ticket-id}": ticket["uuid"]})
    join = {"transition": {"type": "join", "operator_id": "bodies"}}
    answer = sandbox.send("PATCH /sandbox/v2/tickets/pending-tickets/" + ticket["uuid"], partner, json=join)
    check(answer.status_code == 303, answer.text)
    csat, attachments = of_ticket
    vary(sandbox, csat, customer, of_ticket[csat])
    vary(sandbox, attachments, customer, of_ticket[attachments], "?channel_id=" + ticket["chat_id"])
    vary(sandbox, reassigned, partner, PARTNER[reassigned])
    # a product as partners name it in the sandbox
    transitions(sandbox, partner, f"97060000-0000-4000-8000-{52351:012x}")
    print(json.dumps({"checks": CHECKS}), flush=True)


main()
