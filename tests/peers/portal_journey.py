"""The way of a customer and of a partner through the documented APIs, with requests and websockets alone.

    python3 portal_journey.py READY

READY is the JSON line of `connector-sim cloud`; its first connector must be online in a vehicle. The paths are those of
the documents, but for joining a ticket, adding a product to a prepared one, writing a note, and the content of an
attachment: the documents do not print these, so that they are the sandbox's own.

Prints a JSON object for each step, {"actor", "text"}, and at the end {"checks": N}.
"""

import json
import ssl
import sys
import time

import requests
from websockets.sync.client import connect

PATIENCE = 60
CHECKS = 0


def report(actor, text):
    print(json.dumps({"actor": actor, "text": text}), flush=True)


def check(condition, what):
    global CHECKS
    if not condition:
        sys.exit(f"wrong: {what}")
    CHECKS += 1


def session(ca_file):
    """A session that takes neither another CA nor a proxy from the environment."""
    made = requests.Session()
    made.trust_env = False
    made.verify = ca_file
    return made


class Api:
    """One user of the REST API."""

    def __init__(self, ready):
        self.url = ready["api_url"]
        self.session = session(ready["ca_file"])

    def call(self, method, path, status, **arguments):
        answer = self.session.request(
            method, self.url + path, allow_redirects=False, timeout=PATIENCE, **arguments
        )
        if answer.status_code != status:
            sys.exit(f"{method} {path}: {answer.status_code} {answer.text}")
        self.headers = answer.headers
        return answer.json() if answer.content else None

    def get(self, path, **query):
        return self.call("GET", path, 200, params=query)

    def use(self, token):
        self.token = token
        self.session.headers["Authorization"] = "Bearer " + token


class Socket:
    """A documented websocket: flat requests, and updates with the action that asked for them."""

    def __init__(self, ready, token, in_header):
        context = ssl.create_default_context(cafile=ready["ca_file"])
        url, headers = ready["portal_websocket_url"], {}
        if in_header:
            headers["Authorization"] = "Bearer " + token
        else:
            url += "?access_token=" + token
        self.socket = connect(url, ssl=context, additional_headers=headers, proxy=None)

    def say(self, **request):
        self.socket.send(json.dumps(request))

    def until(self, action, wanted):
        deadline = time.monotonic() + PATIENCE
        while True:
            message = json.loads(self.socket.recv(timeout=max(0, deadline - time.monotonic())))
            if message["action"] == "sandbox-error":
                sys.exit(f"the websocket reports {message}")
            if message["action"] == action and wanted(message["message"]):
                return message


def log_in(ready):
    """Logs the customer in by the connector's UUID and pincode, and the partner by its credentials."""
    customer, partner = Api(ready), Api(ready)
    connector = ready["connector"]
    body = {"connector_uuid": connector["uuid"], "pincode": connector["pincode"]}
    tokens = customer.call("POST", "/v2/authenticate/pincode", 200, json=body)
    check(sorted(tokens) == ["access_token", "id_token", "refresh_token"], "the tokens")
    customer.use(tokens["access_token"])
    form = {"grant_type": "client_credentials"}
    form.update(client_id=ready["operator"]["client_id"], client_secret=ready["operator"]["client_secret"])
    partner.use(partner.call("POST", "/oauth2/token", 200, data=form)["access_token"])
    return customer, partner


def find_vehicle(customer, vin):
    vehicle = customer.get("/v1/vehicles/search", vin=vin)
    ids = {
        "vehicle_model_id": vehicle["model"]["id"],
        "vehicle_model_variant_id": vehicle["model_variant"]["id"],
    }
    groups = customer.get("/v1/vehicles/model-groups", vehicle_make_id=vehicle["make"]["id"])
    check(vehicle["model_group"] in groups["result"], "the model group of the make")
    report("customer", f"found the {vehicle['make']['name']} {vehicle['model']['name']} by its VIN")
    return ids


def choose_products(customer, ids):
    """The number of a product with prerequisites, and the answers to these."""
    groups = customer.get("/v1/product-groups", **ids)["result"]
    products = []
    for group in groups:
        # the favourites are the default, so that the other products are asked for too
        for is_favorite in ["true", "false"]:
            query = {"product_group_id": group["id"], "is_favorite": is_favorite, **ids}
            found = customer.get("/v1/products", **query)["result"]
            products += [product for product in found if not product["is_unattended"]]
    numbers = ",".join(str(product["id"]) for product in products)
    asked = customer.get("/v1/product-prerequisites", product_id=numbers, **ids)["result"]
    check(asked, "a product asks questions")
    answers = [
        {"definition_id": one["id"], "value": one["options"][0]["value"] if one["options"] else "none"} for one in asked
    ]
    chosen = [product["id"] for product in products]
    report("customer", f"chose {len(chosen)} products and answered {len(answers)} prerequisites")
    return chosen, answers


def prepare(ready, partner, ids, vin, reference):
    body = {
        "customer_id": ready["customer"]["id"],
        "vehicle_model_id": ids["vehicle_model_id"],
        "vin": vin,
        "preparer_external_reference": reference,
    }
    return partner.call("POST", "/v2/tickets/prepared-tickets", 201, json=body)


def partner_uuid(product):
    """A product as partners name it in the sandbox."""
    return f"97060000-0000-4000-8000-{product:012x}"


def create(customer, connector_id, ids, vin, products, answers, **more):
    body = {
        "vin": vin,
        "connector_id": connector_id,
        "product_ids": products,
        "product_prerequisites": answers,
        "metadata": {"app_name": "journey", "vin_is_found_by_reader": True},
        "reference": "aa-bb-12",
        **ids,
        **more,
    }
    return customer.call("POST", "/v1/tickets", 201, json=body)


def join(partner, ticket):
    path = "/sandbox/v2/tickets/pending-tickets/" + ticket["uuid"]
    partner.call("PATCH", path, 303, json={"transition": {"type": "join", "operator_id": "journey"}})
    return partner.get("/v2/tickets/in-progress-tickets/" + ticket["uuid"])


def end(partner, ticket, transition, collection):
    path = "/v2/tickets/in-progress-tickets/" + ticket["uuid"]
    partner.call("PATCH", path, 303, json={"transition": transition})
    location = partner.headers["Location"]
    check(location == f"/v2/tickets/{collection}/{ticket['uuid']}", "where the ended ticket is")
    ended = partner.get(location)
    check(ended["id"] == ticket["uuid"], "the ended ticket")
    return ended


def attach(customer, chat):
    query, body = {"channel_id": chat}, {"file_name": "log.txt"}
    made = customer.call("POST", "/v1/channel-attachments", 201, params=query, json=body)
    content = b"a log of the vehicle"
    # the address alone permits the upload
    upload = session(customer.session.verify).put(customer.headers["Sandbox-Upload-Url"], data=content, timeout=PATIENCE)
    upload.raise_for_status()
    found = customer.get("/v1/channel-attachments", channel_id=chat, file_reference=made["file_reference"])
    check(found == made, "the attachment")
    read = customer.session.get(customer.headers["Sandbox-Download-Url"], timeout=PATIENCE)
    check(read.content == content, "the content of the attachment")


def main():
    ready = json.loads(sys.argv[1])
    connector_id = ready["connector"]["id"]
    customer, partner = log_in(ready)
    report("customer", "logged in by UUID and pincode")

    portal = Socket(ready, customer.token, in_header=False)
    portal.say(action="subscribeToConnector", connector_id=connector_id)
    update = portal.until("subscribeToConnector", lambda message: message["vin_number"])["message"]
    check(sorted(update) == ["connector_id", "round_trip_time", "vin_number", "voltage"], "the update's fields")
    vin = update["vin_number"]
    check(customer.get(f"/v1/connectors/{connector_id}")["is_online"], "the connector is online")
    report("customer", f"sees the connector online in {vin}")
    events = Socket(ready, partner.token, in_header=True)
    events.say(action="subscribe-to-event", event_type="tickets.ticket.created")
    events.say(action="subscribe-to-connector", connector_id=ready["connector"]["uuid"])
    events.until("subscribe-to-connector", lambda message: message["vin_number"] == vin)

    ids = find_vehicle(customer, vin)
    products, answers = choose_products(customer, ids)
    prepared = prepare(ready, partner, ids, vin, "journey")
    line = f"/sandbox/v2/tickets/prepared-tickets/{prepared['id']}/product-lines"
    partner.call("POST", line, 204, json={"product_id": partner_uuid(products[0])})
    listed = partner.get("/v2/tickets/prepared-tickets", preparer_external_reference="journey")
    check([one["id"] for one in listed["result"]] == [prepared["id"]], "the list of prepared tickets")
    report("partner", f"prepared ticket {prepared['ticket_number']}")

    picked = customer.get("/v1/prepared-tickets", vin=vin)["result"][0]
    check(picked["id"] == prepared["id"] and picked["product_lines"], "the prepared ticket")
    cart = {"product_ids": products, "vin": vin, "prepared_ticket_id": picked["id"], **ids}
    price = customer.call("POST", "/v1/cart/calculate-prices", 200, json=cart)
    check(len(price["items"]) == len(products), "the items of the cart")
    total = price["total"]["net_price"]
    report("customer", f"will pay {total['localized_value']:.2f} {total['localized_currency']}")

    ticket = create(customer, connector_id, ids, vin, products, answers, prepared_ticket_id=picked["id"])
    check(ticket["uuid"] == prepared["id"] and ticket["state"] == 1, "the new ticket")
    check(customer.get(f"/v1/connectors/{connector_id}/active-ticket") == ticket, "the active ticket")
    portal.say(action="subscribeToTicket", ticket_id=int(ticket["id"]))
    portal.until("subscribeToTicket", lambda message: message["state"] == 1)
    event = events.until("event-received", lambda message: message["ticket"]["id"] == ticket["uuid"])
    check(event["event_type"] == "tickets.ticket.created" and len(event["event_id"]) == 26, "the event")
    report("customer", f"picked it up: ticket {ticket['id']} is pending")

    joined = join(partner, ticket)
    update = portal.until("subscribeToTicket", lambda message: message["connection_uuid"] is not None)["message"]
    check(update["connection_uuid"] == joined["connection_id"], "the connection")
    portal.say(action="subscribeToConnection", connection_uuid=update["connection_uuid"])
    portal.until("subscribeToConnection", lambda message: message["connection_uuid"] == joined["connection_id"])
    report("partner", "joined the ticket, which the customer sees")

    attach(customer, ticket["chat_id"])
    customer.call("POST", f"/v1/channels/{ticket['chat_id']}/actions/send-control-message", 200)
    partner.call("POST", f"/sandbox/v1/tickets/{ticket['id']}/notes", 201, json={"value": "coded"})
    notes = customer.get(f"/v1/tickets/{ticket['id']}/notes")["result"]
    check([note["value"] for note in notes] == ["coded"], "the notes")
    translation = {"message": {"original": "Hello world!"}, "target_language": "de"}
    translated = customer.call("POST", "/v1/translate", 201, json=translation)
    check(translated["message"]["translated"] == "Hallo Welt!", "the translation")
    report("customer", "read the note, and sent an attachment")

    end(partner, ticket, {"type": "complete"}, "closed-tickets")
    portal.until("subscribeToTicket", lambda message: message["state"] == 7)
    customer.call("POST", f"/v1/tickets/{ticket['id']}/csat", 200, json={"score": 1, "comment": None})
    history = customer.get("/v1/historical-tickets", vin=vin, connector_id=connector_id)["result"]
    check(history[0]["id"] == int(ticket["id"]), "the history, the latest ticket first")
    check(customer.get(f"/v1/historical-tickets/{ticket['id']}") == history[0], "the historical ticket")
    check(customer.get("/v1/serviced-vehicles")["result"][0]["vin"] == vin, "the serviced vehicle")
    report("customer", "gave a score, and found the ticket in the history")

    other = prepare(ready, partner, ids, vin, "removed")
    partner.call("DELETE", "/v2/tickets/prepared-tickets/" + other["id"], 204)
    provider = partner.get("/v2/providers/providers")["result"][0]["id"]
    reason = partner.get("/v2/tickets/cancel-reasons")["result"][0]["id"]
    outsource = {"type": "outsource", "product_ids": [partner_uuid(products[0])], "provider_id": provider}
    for transition, collection in [
        (outsource, "outsourced-tickets"),
        ({"type": "cancel", "cancel_reason_id": reason}, "cancelled-tickets"),
    ]:
        ticket = create(customer, connector_id, ids, vin, products, answers)
        join(partner, ticket)
        end(partner, ticket, transition, collection)
    report("partner", "removed a prepared ticket, outsourced a ticket, and cancelled another one")
    print(json.dumps({"checks": CHECKS}), flush=True)


main()
