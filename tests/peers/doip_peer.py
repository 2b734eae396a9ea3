"""A DoIP tester that is not ours: doipclient, told what to do by its argument.

Usage: doip_peer.py JOB

JOB is a JSON object: the gateway's ports at 127.0.0.1 ("tcp", "udp", "tls"), and "steps", a list of one-entry objects:

    {"identify": {"vin": ..., "eid": hex}}       {"status": 1}   {"power_mode": 1}   {"alive": 1}
    {"activate": type}                            on a connection of its own
    {"secure": certificate file}                  by TLS, from here on
    {"ask": {"to": address, "pdu": hex}}          its response, or {"nack": code}
    {"ask_all": {"to": address, "pdu": hex}}      with every response pending
    {"ask_final": {"to": address, "pdu": hex}}    without any
    {"functional": {"to": address, "pdu": hex, "answers": n}}

Prints a JSON list of what came of each.
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
# no machine is so busy that it is reached
TIMEOUT = 60


class Tester:
    def __init__(self, job):
        self.job = job
        self.client = None

    def connect(self):
        if self.client is None:
            self.client = DoIPClient(HOST, GATEWAY, tcp_port=self.job["tcp"], udp_port=self.job["udp"])
        return self.client

    def do(self, kind, what):
        return getattr(self, kind)(what)

    def identify(self, what):
        eid = bytes.fromhex(what["eid"]) if "eid" in what else None
        said = self.connect().request_vehicle_identification(eid=eid, vin=what.get("vin"))
        return {
            "vin": said.vin,
            "logical_address": said.logical_address,
            "eid": bytes(said.eid).hex(),
            "gid": bytes(said.gid).hex(),
            "further_action": int(said.further_action_required),
            "sync_status": None if said.vin_sync_status is None else int(said.vin_sync_status),
        }

    def status(self, _):
        said = self.connect().request_entity_status()
        return {
            "node_type": said.node_type,
            "max_sockets": said.max_concurrent_sockets,
            "open_sockets": said.currently_open_sockets,
            "max_data_size": said.max_data_size,
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
        # doipclient names no host
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

    def send(self, what):
        message = DiagnosticMessage(0x0E00, what["to"], bytes.fromhex(what["pdu"]))
        self.connect().send_doip_message(message)

    def hear(self):
        """The next diagnostic message, or negative acknowledgement."""
        while True:
            said = self.client.read_doip(timeout=TIMEOUT)
            if said is None:
                raise TimeoutError
            if not isinstance(said, DiagnosticMessagePositiveAcknowledgement):
                return said

    def ask(self, what):
        self.send(what)
        said = self.hear()
        if isinstance(said, DiagnosticMessageNegativeAcknowledgement):
            return {"nack": int(said.nack_code)}
        assert said.source_address == what["to"], said
        return bytes(said.user_data).hex()

    def ask_all(self, what):
        self.send(what)
        answers = [bytes(self.hear().user_data).hex()]
        while answers[-1].startswith("7f") and answers[-1].endswith("78"):
            answers.append(bytes(self.hear().user_data).hex())
        return answers

    def ask_final(self, what):
        """The last word: a response, or {"nack": code}."""
        self.send(what)
        while True:
            said = self.hear()
            if isinstance(said, DiagnosticMessageNegativeAcknowledgement):
                return {"nack": int(said.nack_code)}
            if not bytes(said.user_data).hex().endswith("78"):
                return bytes(said.user_data).hex()

    def functional(self, what):
        self.send(what)
        heard = [self.hear() for _ in range(what["answers"])]
        return [[said.source_address, bytes(said.user_data).hex()] for said in heard]


def main():
    logging.disable(logging.CRITICAL)
    # all as it is, but for timers: this machine may be busy
    doipclient.client.A_PROCESSING_TIME = TIMEOUT
    job = json.loads(sys.argv[1])
    tester = Tester(job)
    print(json.dumps([tester.do(*list(step.items())[0]) for step in job["steps"]]))


main()
