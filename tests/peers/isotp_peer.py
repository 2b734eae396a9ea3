"""An independent ISO-TP peer: can-isotp over python-can's slcan, controlled line by line.

Usage: isotp_peer.py DEVICE

Reads one JSON object per line, and answers each with one:

    {"open": {"address": {...}, "params": {...}}}   -> {"opened": true}
    {"send": "<hex>"}                               -> {"sent": true, "errors": [...]}
    {"receive": seconds}                            -> {"received": "<hex>" or null, "errors": [...]}
"""

import json
import logging
import sys
import time

import can
import isotp


def main():
    # the answers report errors
    logging.disable(logging.CRITICAL)
    timing = can.BitTimingFd.from_sample_point(
        f_clock=80_000_000, nom_bitrate=500_000, nom_sample_point=80.0, data_bitrate=2_000_000, data_sample_point=80.0
    )
    bus = can.Bus(interface="slcan", channel=sys.argv[1], timing=timing, sleep_after_open=0)
    stack = None
    errors = []
    for line in sys.stdin:
        command = json.loads(line)
        errors.clear()
        if "open" in command:
            stack = open_stack(bus, command["open"], errors)
            answer = {"opened": True}
        elif "send" in command:
            send(stack, bytes.fromhex(command["send"]))
            answer = {"sent": not errors, "errors": errors}
        else:
            pdu = receive(stack, command["receive"])
            answer = {"received": None if pdu is None else pdu.hex(), "errors": errors}
        print(json.dumps(answer), flush=True)
    bus.shutdown()


def address_of(settings):
    settings = dict(settings)
    mode = isotp.AddressingMode[settings.pop("mode")]
    return isotp.Address(mode, **settings)


def open_stack(bus, settings, errors):
    address = settings["address"]
    if "tx" in address:
        one = {side: address_of({**address[side], f"{side}_only": True}) for side in ("tx", "rx")}
        address = isotp.AsymmetricAddress(tx_addr=one["tx"], rx_addr=one["rx"])
    else:
        address = address_of(address)
    return isotp.CanStack(
        bus,
        address=address,
        params=settings["params"],
        error_handler=lambda error: errors.append(repr(error)),
    )


def send(stack, pdu):
    stack.send(pdu)
    while stack.transmitting():
        stack.process(rx_timeout=0)


def receive(stack, seconds):
    deadline = time.monotonic() + seconds
    while not stack.available():
        if time.monotonic() > deadline:
            return None
        stack.process(rx_timeout=0.001)
    return stack.recv()


main()
