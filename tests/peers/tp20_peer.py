"""A TP2.0 tester that is not ours: the transport of kwp2000-can over python-can's slcan.

Usage: tp20_peer.py DEVICE JOB

JOB is a JSON list of ECUs: {"ecu": logical address, "asks": [hex, ...]}. Each ECU's channel is set up, all is asked on it,
and it is closed. Prints a JSON list of lists of the responses.
"""

import json
import sys

import can
from tp20.can_connection import CanConnection
from tp20.transport import TP20Transport

# no machine is so busy that it is reached
TIMEOUT = 60


class Adapter(CanConnection):
    """What the transport sends and receives by."""

    def __init__(self, bus):
        self.bus = bus

    def open(self):
        pass

    def close(self):
        pass

    def send_can_frame(self, can_id, data):
        self.bus.send(can.Message(arbitration_id=can_id, data=data, is_extended_id=False))

    def recv_can_frame(self, timeout=1.0):
        message = self.bus.recv(timeout)
        return None if message is None else (message.arbitration_id, bytes(message.data))


def main():
    device, job = sys.argv[1:]
    bus = can.Bus(interface="slcan", channel=device, bitrate=500_000, sleep_after_open=0)
    answers = []
    for part in json.loads(job):
        with TP20Transport(Adapter(bus), dest=part["ecu"], timeout=TIMEOUT) as transport:
            told = []
            for ask in part["asks"]:
                transport.send(bytes.fromhex(ask))
                told.append(transport.recv(timeout=TIMEOUT).hex())
            answers.append(told)
    bus.shutdown()
    print(json.dumps(answers))


main()
