"""ISO-TP receivers of can-isotp without a bus: they reassemble PDUs from given frames.

Reads one JSON object per line, and answers each with the PDUs that the receiver reassembled:

    {"address": {...}, "id": number, "frames": ["<hex>", ...]}   -> ["<hex>", ...]
"""

import json
import logging
import sys

import isotp


def main():
    # hostile frames cause many warnings
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        print(json.dumps(reassemble(json.loads(line))), flush=True)


def reassemble(job):
    address = dict(job["address"])
    mode = isotp.AddressingMode[address.pop("mode")]
    waiting = [isotp.CanMessage(arbitration_id=job["id"], data=bytes.fromhex(data)) for data in job["frames"]]
    stack = isotp.TransportLayerLogic(
        rxfn=lambda timeout: waiting.pop(0) if waiting else None,
        txfn=lambda message: None,
        address=isotp.Address(mode, **address),
        params={"can_fd": False, "max_frame_size": 5000, "blocking_send": False},
    )
    received = []
    for _ in range(len(job["frames"]) + 1):
        stack.process(rx_timeout=0)
        while stack.available():
            received.append(bytes(stack.recv()).hex())
    return received


main()
