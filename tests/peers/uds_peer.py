"""An independent diagnostic tool: udsoncan over can-isotp or over doipclient, both unchanged.

Usage: uds_peer.py can DEVICE REQUEST-ID RESPONSE-ID JOB
       uds_peer.py doip HOST TCP-PORT LOGICAL-ADDRESS JOB

JOB is a JSON object:

    {"read": "<hex>",             a request whose response is printed
     "size": bytes,               the length of the generated firmware
     "timeout": seconds}          the maximum time of a single response

Prints one JSON object: the response, the trouble codes, the number of "response pending".
"""

import functools
import hashlib
import json
import logging
import sys
import zlib

import udsoncan
from udsoncan.client import Client
from udsoncan.exceptions import NegativeResponseException

ADDRESS = 0x0800_0000


class Raw(udsoncan.DidCodec):
    """A codec that does not convert the data."""

    def encode(self, value):
        return bytes(value)

    def decode(self, payload):
        return bytes(payload)

    def __len__(self):
        raise udsoncan.DidCodec.ReadAllRemainingData


def key(level, seed, params):
    """The key algorithm of the simulated ECUs, which gives no protection."""
    number = int.from_bytes(seed, "big") ^ 0x5EC0DE00 ^ level
    return ((number << 7 | number >> 25) & 0xFFFFFFFF).to_bytes(4, "big")


def firmware(size):
    return bytes((i * 7 + i // 256) % 256 for i in range(size))


def can_connection(device, request_id, response_id):
    import can
    import isotp
    from udsoncan.connections import PythonIsoTpConnection

    bus = can.Bus(interface="slcan", channel=device, bitrate=500_000, sleep_after_open=0)
    notifier = can.Notifier(bus, [])
    address = isotp.Address(isotp.AddressingMode.Normal_11bits, txid=request_id, rxid=response_id)
    # the usual values, except for timers: this machine may be busy
    params = {"tx_padding": 0xCC, "rx_flowcontrol_timeout": 20_000, "rx_consecutive_frame_timeout": 20_000}
    stack = isotp.NotifierBasedCanStack(bus, notifier, address=address, params=params)

    def close():
        notifier.stop()
        bus.shutdown()

    return PythonIsoTpConnection(stack), close


def doip_connection(host, port, address, timeout):
    import doipclient.client
    from doipclient.connectors import DoIPClientUDSConnector

    # unchanged, except for a timer: this machine may be busy
    doipclient.client.A_PROCESSING_TIME = timeout
    client = doipclient.client.DoIPClient(host, address, tcp_port=port)
    client.send_diagnostic = functools.partial(client.send_diagnostic, timeout=timeout)
    return DoIPClientUDSConnector(client), client.close


def run(connection, job):
    pending = 0

    def count_pending():
        nonlocal pending
        pending += 1

    timeout = job["timeout"]
    config = dict(udsoncan.configs.default_client_config)
    config.update(
        security_algo=key,
        data_identifiers={"default": Raw},
        request_timeout=None,
        p2_timeout=timeout,
        p2_star_timeout=timeout,
        use_server_timing=False,
        nrc78_callback=count_pending,
    )
    data = firmware(job["size"])
    result = {}
    with Client(connection, config=config) as client:
        connection.send(bytes.fromhex(job["read"]))
        result["read"] = connection.wait_frame(timeout=timeout, exception=True).hex()
        while result["read"].startswith("7f") and result["read"].endswith("78"):
            pending += 1
            result["read"] = connection.wait_frame(timeout=timeout, exception=True).hex()

        dtcs = client.get_dtc_by_status_mask(0xFF).service_data.dtcs
        result["dtcs"] = [[dtc.id, dtc.status.get_byte_as_int()] for dtc in dtcs]
        try:
            client.read_data_by_identifier([0x1234])
        except NegativeResponseException as error:
            result["refused"] = error.response.code

        client.change_session(0x02)
        client.unlock_security_access(0x01)
        client.start_routine(0xFF00)
        location = udsoncan.MemoryLocation(ADDRESS, len(data), address_format=32, memorysize_format=32)
        granted = client.request_download(location)
        block = granted.service_data.max_length - 2
        for number, start in enumerate(range(0, len(data), block)):
            client.transfer_data((number + 1) % 256, data[start : start + block])
        client.request_transfer_exit()
        checked = client.start_routine(0x0202, zlib.crc32(data).to_bytes(4, "big"))
        result["check"] = checked.service_data.routine_status_record.hex()
        digest = client.read_data_by_identifier([0xF1A1]).service_data.values[0xF1A1]
        result["image"] = digest == hashlib.sha256(data).digest()
        client.change_session(0x01)
    result["pending"] = pending
    return result


def main():
    logging.disable(logging.CRITICAL)
    kind, *rest, job = sys.argv[1:]
    job = json.loads(job)
    if kind == "can":
        connection, close = can_connection(rest[0], int(rest[1], 0), int(rest[2], 0))
    else:
        connection, close = doip_connection(rest[0], int(rest[1]), int(rest[2], 0), job["timeout"])
    try:
        result = run(connection, job)
    finally:
        close()
    print(json.dumps(result))


main()
