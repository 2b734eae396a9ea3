"""An independent TP2.0 tester: the transport of kwp2000-can over python-can's slcan.

Usage: tp20_peer.py DEVICE JOB

JOB is a JSON list of ECUs: {"ecu": logical address, "asks": [hex, ...]}. For each ECU, the tester opens a
channel, sends the requests, and closes the channel. Prints a JSON list with a list of responses for each ECU.
"""

import json
import sys

import can
from tp20.can_connection import CanConnection
from tp20.transport import TP20Transport

# a limit that even a busy machine does not reach
TIMEOUT = 60


class Adapter(CanConnection):
    """The CAN connection of the transport."""

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
            responses = []
            for ask in part["asks"]:
                transport.send(bytes.fromhex(ask))
                responses.append(transport.recv(timeout=TIMEOUT).hex())
            answers.append(responses)
    bus.shutdown()
    print(json.dumps(answers))


main()
