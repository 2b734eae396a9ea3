"""An independent DoIP tester: doipclient, controlled by its argument.

Usage: doip_peer.py JOB

JOB is a JSON object: the gateway's ports at 127.0.0.1 ("tcp", "udp", "tls"), and "steps", a list of one-entry objects:

    {"identify": {"vin": ..., "eid": hex}}       {"status": 1}   {"power_mode": 1}   {"alive": 1}
    {"activate": type}                            on a separate connection
    {"secure": certificate file}                  uses TLS for this and all later steps
    {"ask": {"to": address, "pdu": hex}}          the response, or {"nack": code}
    {"ask_all": {"to": address, "pdu": hex}}      the responses, including "response pending"
    {"ask_final": {"to": address, "pdu": hex}}    the response, without "response pending"
    {"functional": {"to": address, "pdu": hex, "answers": n}}

Prints a JSON list of the results.
"""

import json
import logging
import ssl
import sys

import doipclient.client
from doipclient.client import DoIPClient
from doipclient.messages import (
    DiagnosticMessage,
    DiagnosticMessageNegativeAcknowledgement,
    DiagnosticMessagePositiveAcknowledgement,
)

HOST = "127.0.0.1"
GATEWAY = 0x4010
# a limit that even a busy machine does not reach
TIMEOUT = 60


class Tester:
    def __init__(self, job):
        self.job = job
        self.client = None

    def connect(self):
        if self.client is None:
            self.client = DoIPClient(HOST, GATEWAY, tcp_port=self.job["tcp"], udp_port=self.job["udp"])
        return self.client

    def do(self, kind, argument):
        return getattr(self, kind)(argument)

    def identify(self, argument):
        eid = bytes.fromhex(argument["eid"]) if "eid" in argument else None
        message = self.connect().request_vehicle_identification(eid=eid, vin=argument.get("vin"))
        return {
            "vin": message.vin,
            "logical_address": message.logical_address,
            "eid": bytes(message.eid).hex(),
            "gid": bytes(message.gid).hex(),
            "further_action": int(message.further_action_required),
            "sync_status": None if message.vin_sync_status is None else int(message.vin_sync_status),
        }

    def status(self, _):
        message = self.connect().request_entity_status()
        return {
            "node_type": message.node_type,
            "max_sockets": message.max_concurrent_sockets,
            "open_sockets": message.currently_open_sockets,
            "max_data_size": message.max_data_size,
        }

    def power_mode(self, _):
        return int(self.connect().request_diagnostic_power_mode().diagnostic_power_mode)

    def alive(self, _):
        return self.connect().request_alive_check().source_address

    def activate(self, kind):
        client = DoIPClient(
            HOST, GATEWAY, tcp_port=self.job["tcp"], udp_port=self.job["udp"], activation_type=None
        )
        try:
            return int(client.request_activation(kind).response_code)
        finally:
            client.close()

    def secure(self, certificate):
        context = ssl.create_default_context(cafile=certificate)
        # doipclient passes no host name
        context.check_hostname = False
        self.client = DoIPClient(
            HOST,
            GATEWAY,
            tcp_port=self.job["tls"],
            udp_port=self.job["udp"],
            activation_type=None,
            use_secure=context,
        )
        return int(self.client.request_activation(0).response_code)

    def send(self, argument):
        message = DiagnosticMessage(0x0E00, argument["to"], bytes.fromhex(argument["pdu"]))
        self.connect().send_doip_message(message)

    def hear(self):
        """The next diagnostic message or negative acknowledgement."""
        while True:
            message = self.client.read_doip(timeout=TIMEOUT)
            if message is None:
                raise TimeoutError
            if not isinstance(message, DiagnosticMessagePositiveAcknowledgement):
                return message

    def ask(self, argument):
        self.send(argument)
        message = self.hear()
        if isinstance(message, DiagnosticMessageNegativeAcknowledgement):
            return {"nack": int(message.nack_code)}
        assert message.source_address == argument["to"], message
        return bytes(message.user_data).hex()

    def ask_all(self, argument):
        self.send(argument)
        answers = [bytes(self.hear().user_data).hex()]
        while answers[-1].startswith("7f") and answers[-1].endswith("78"):
            answers.append(bytes(self.hear().user_data).hex())
        return answers

    def ask_final(self, argument):
        """The final response, or {"nack": code}."""
        self.send(argument)
        while True:
            message = self.hear()
            if isinstance(message, DiagnosticMessageNegativeAcknowledgement):
                return {"nack": int(message.nack_code)}
            if not bytes(message.user_data).hex().endswith("78"):
                return bytes(message.user_data).hex()

    def functional(self, argument):
        self.send(argument)
        heard = [self.hear() for _ in range(argument["answers"])]
        return [[message.source_address, bytes(message.user_data).hex()] for message in heard]


def main():
    logging.disable(logging.CRITICAL)
    # unchanged, except for a timer: this machine may be busy
    doipclient.client.A_PROCESSING_TIME = TIMEOUT
    job = json.loads(sys.argv[1])
    tester = Tester(job)
    print(json.dumps([tester.do(*list(step.items())[0]) for step in job["steps"]]))


main()
