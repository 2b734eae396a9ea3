"""Scripts with the vendor's client openobd, unmodified.

Usage: openobd_peer.py SCENARIO JOB

JOB is a JSON object with host, port, client_id, client_secret, ticket, and what the scenario needs. Prints one JSON object.
"""

import hashlib
import json
import logging
import sys
import threading
import time
import zlib

import grpc
from openobd import *
from openobd.communication import connection_monitor, doip_socket, isotp_socket, kline_socket, raw_socket
from openobd.communication import response_exceptions as answers
from openobd.communication import terminal15_socket, tp20_socket
from openobd.communication.utils import set_bus_configuration
from openobd.core.arguments import ConnectionArguments
from openobd.core.function_broker import OpenOBDFunctionBroker
from openobd.log import ScriptLogHandler
from openobd.ui.ui_handler import UiHandler
from openobd_protocol.Communication.Messages.Doip_pb2 import DoipChannel, DoipMessage
from openobd_protocol.Communication.Messages.Isotp_pb2 import IsotpChannel, IsotpMessage, KeepAlive, Padding
from openobd_protocol.Communication.Messages.Kline_pb2 import KlineChannel, KlineMessage
from openobd_protocol.Communication.Messages.Raw_pb2 import RawChannel
from openobd_protocol.Communication.Messages.Tp20_pb2 import Tp20Channel, Tp20Message
from openobd_protocol.Configuration.Messages.BusConfiguration_pb2 import BusConfiguration
from openobd_protocol.Configuration.Messages.CanBus_pb2 import CanBitRate, CanBus, CanProtocol, TransceiverSpeed
from openobd_protocol.Configuration.Messages.DoipBus_pb2 import DoipBus, DoipNetworkConfiguration, DoipOption
from openobd_protocol.Configuration.Messages.KlineBus_pb2 import KlineBitRate, KlineBus, KlineProtocol
from openobd_protocol.Configuration.Messages.Terminal15Bus_pb2 import Terminal15Bus
from openobd_protocol.Function.Messages.Function_pb2 import ContextType, FunctionDetails, FunctionId
from openobd_protocol.FunctionBroker.Messages.FunctionBroker_pb2 import FunctionCall
from openobd_protocol.Session.Messages.ServiceResult_pb2 import Result, ServiceResult
from openobd_protocol.SessionController.Messages.SessionController_pb2 import SessionId, SessionInfo
from openobd_protocol.UserInterface.Messages.UserInterface_pb2 import (
    Continue,
    FreeText,
    InterfaceType,
    Label,
    Numbers,
    Options,
    YesNo,
)

# longer than any answer takes, even on a busy machine
PATIENCE = 60


def arguments(job, **changes):
    values = {name: job[name] for name in ("client_id", "client_secret")} | changes
    return ConnectionArguments(cluster_id="001", grpc_host=job["host"], grpc_port=job["port"], **values)


def can_bus(name="HS", protocol=CanProtocol.CAN_PROTOCOL_ISOTP, rate=CanBitRate.CAN_BIT_RATE_500, **more):
    bus = CanBus(pin_plus=6, pin_min=14, can_protocol=protocol, can_bit_rate=rate, **more)
    return BusConfiguration(bus_name=name, can_bus=bus)


def report(value):
    """Prints a line for the test."""
    print(json.dumps(value), flush=True)


def start(job):
    """A session on the job's ticket that has authenticated itself."""
    session = OpenOBD(arguments(job)).start_session_on_ticket(job["ticket"])
    SessionTokenHandler(session)
    session.mute_locals()
    return session


def success(session):
    session.finish(ServiceResult(result=[Result.RESULT_SUCCESS]))


def isotp(ecu):
    extended = {}
    if ecu.get("extended") is not None:
        extended = dict(extended_request_address=ecu["extended"], extended_response_address=ecu["extended"])
    return IsotpChannel(bus_name="HS", request_id=ecu["request_id"], response_id=ecu["response_id"], **extended)


def ask_all(session, ecus):
    """The answers of each ECU to its requests."""
    set_bus_configuration(session, [can_bus()])
    found = []
    for ecu in ecus:
        socket = isotp_socket.IsotpSocket(session, isotp(ecu), timeout=PATIENCE)
        found.append([socket.request(request, silent=True) for request in ecu["requests"]])
        socket.stop_stream()
    return found


def status_of(call, *args, **kwargs):
    """The gRPC status with which a call fails."""
    try:
        call(*args, **kwargs)
    except OpenOBDException as error:
        assert len(error.details.split()) > 2, error
        return error.status
    return "succeeded"


def identify(job):
    session = start(job)
    found = ask_all(session, job["ecus"])
    success(session)
    return {"answers": found}


def trouble_codes(job):
    """The trouble codes of each ECU before and after they are cleared, with their number by the ECU."""
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    found = []
    for ecu in job["ecus"]:
        socket = isotp_socket.IsotpSocket(session, isotp(ecu), timeout=PATIENCE)
        number = int(socket.request("1901FF")[8:12], 16)
        stored = socket.request("1902FF")
        found.append({"number": number, "stored": stored, "cleared": socket.request("14FFFFFF")})
        found[-1]["left"] = socket.request("1902FF")
        socket.stop_stream()
    success(session)
    return {"ecus": found}


def failure(socket):
    """The status with which the stream of a channel ends, without a request."""
    return status_of(socket.stream_handler.receive, timeout=PATIENCE)


def sessions(job):
    """Two sessions on two connectors take turns; each keeps its own vehicle and variables."""
    both = [start(job | {"ticket": ticket}) for ticket in job["tickets"]]
    sockets = []
    for number, session in enumerate(both):
        set_bus_configuration(session, [can_bus()])
        session.set_context_variable("name", str(number), ContextType.CONNECTION_CONTEXT)
        sockets.append(isotp_socket.IsotpSocket(session, isotp(job["ecus"][number]), timeout=PATIENCE))
    found = [[], []]
    for _ in range(5):
        for number, socket in enumerate(sockets):
            found[number].append(socket.request(job["ecus"][number]["requests"][0]))
    names = [session.get_context_variable("name", ContextType.CONNECTION_CONTEXT).value for session in both]
    states = sorted(one.state for one in OpenOBD(arguments(job)).get_session_list().sessions)
    success(both[0])
    after = sockets[1].request(job["ecus"][1]["requests"][0])
    ended = status_of(both[0].get_configuration)
    success(both[1])
    return {"answers": found, "names": names, "states": states, "after": after, "ended": ended}


def holds(job):
    """A script that works until its process is killed."""
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    socket = isotp_socket.IsotpSocket(session, isotp(job["ecus"][0]), timeout=PATIENCE)
    socket.request("3E00")
    print(json.dumps("working"), flush=True)
    time.sleep(600)


def takes_over(job):
    """Starts a session on the ticket as soon as the gateway lets go of the script before."""
    openobd = OpenOBD(arguments(job))
    refused = 0
    while True:
        try:
            session = openobd.start_session_on_ticket(job["ticket"])
            break
        except OpenOBDException as error:
            refused += 1
            assert error.status == 9 and refused < 100, error
            time.sleep(0.2)
    SessionTokenHandler(session)
    found = ask_all(session, job["ecus"])
    success(session)
    states = sorted(one.state for one in openobd.get_session_list().sessions)
    return {"answers": found, "states": states}


def lifecycle(job):
    """Tokens, states, and how each mistake is refused."""
    openobd = OpenOBD(arguments(job))
    checks = {}
    wrong = OpenOBDFunctionBroker(arguments(job, client_secret="wrong"))
    checks["wrong secret"] = status_of(wrong._request_function_broker_token)
    checks["unknown ticket"] = status_of(openobd.start_session_on_ticket, "999999")
    checks["unknown session"] = status_of(openobd.get_session, SessionId(value="x"))
    session = openobd.start_session_on_connector(job["connector"])
    info = session.session_info
    checks["endpoint"] = [info.grpc_endpoint, info.grpc_port]
    states = [info.state]

    def state():
        return openobd.get_session(SessionId(value=info.id)).state

    checks["not authenticated"] = status_of(session.get_configuration)
    first = session.authentication_token
    session.session.assertAuthenticationPossible(EmptyMessage(), metadata=session.metadata())
    SessionTokenHandler(session)
    states.append(state())
    again = OpenOBDSession(SessionInfo(grpc_endpoint=job["host"], grpc_port=job["port"], authentication_token=first))
    checks["token used twice"] = status_of(again.authenticate)
    none = OpenOBDSession(SessionInfo(grpc_endpoint=job["host"], grpc_port=job["port"], authentication_token="x"))
    checks["unknown token"] = status_of(none.authenticate)
    checks["second session"] = status_of(openobd.start_session_on_ticket, job["ticket"])
    socket = terminal15_socket.Terminal15Socket(session)
    try:
        socket.receive(timeout=PATIENCE)
    except OpenOBDException as error:
        checks["no terminal 15"] = error.status
    set_bus_configuration(session, [can_bus()])
    socket = isotp_socket.IsotpSocket(session, isotp(job["ecus"][0]), timeout=PATIENCE)
    socket.request("3E00")
    openobd.interrupt_session(SessionId(value=info.id))
    states.append(state())
    try:
        socket.receive(PATIENCE)
    except OpenOBDException as error:
        checks["interrupted stream"] = error.status
    checks["interrupted"] = status_of(session.get_configuration)
    second = openobd.start_session_on_ticket(job["number"])
    SessionTokenHandler(second)
    success(second)
    states.append(openobd.get_session(SessionId(value=second.id())).state)
    checks["finished"] = status_of(second.get_configuration)
    checks["listed"] = sorted(one.state for one in openobd.get_session_list().sessions)
    return {"states": states, "checks": checks}


def paddings(job):
    """The answers with each padding and keep-alive, and the status without a request identifier."""
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    answers = []
    for padding in Padding.values():
        for keep_alive in KeepAlive.values():
            channel = isotp(job["ecus"][0])
            channel.padding, channel.keep_alive = padding, keep_alive
            socket = isotp_socket.IsotpSocket(session, channel, timeout=PATIENCE)
            answers.append(socket.request("3E00"))
            socket.stop_stream()
    refused = failure(isotp_socket.IsotpSocket(session, IsotpChannel(bus_name="HS"), timeout=PATIENCE))
    success(session)
    return {"answers": answers, "no identifier": refused}


def configuration(job):
    """Buses and channels as they were configured, and the refusal of what does not exist."""
    session = start(job)
    buses = [can_bus("first"), can_bus("HS", transceiver=TransceiverSpeed.TRANSCEIVER_SPEED_HIGH)]
    set_bus_configuration(session, buses)
    socket = isotp_socket.IsotpSocket(session, isotp(job["ecus"][0]), timeout=PATIENCE)
    socket.request("3E00")
    configured = session.get_configuration()
    result = {"buses": [bus.bus_name for bus in configured.buses], "channels": len(configured.channels)}
    assert configured.channels[0].isotp_channel == isotp(job["ecus"][0])
    # the same buses again leave the channel open; other ones open it again
    set_bus_configuration(session, buses)
    socket.request("3E00")
    set_bus_configuration(session, [can_bus("HS")])
    socket.request("3E00", tries=10)
    session.mute_locals()
    session.unmute_locals()
    refused = {
        "no bit rate": [can_bus(rate=CanBitRate.CAN_BIT_RATE_UNDEFINED)],
        "no protocol": [can_bus(protocol=CanProtocol.CAN_PROTOCOL_UNDEFINED)],
        "no definition": [BusConfiguration(bus_name="HS")],
        "no name": [can_bus("")],
        "bad pin": [BusConfiguration(bus_name="K", kline_bus=KlineBus(pin=17, kline_protocol=1003, kline_bit_rate=11))],
        "missing hardware": [
            BusConfiguration(bus_name="K", kline_bus=KlineBus(pin=15, kline_protocol=1003, kline_bit_rate=11))
        ],
    }
    result["refused"] = {name: status_of(set_bus_configuration, session, list) for name, list in refused.items()}
    success(session)
    return result


def raw(job):
    session = start(job)
    set_bus_configuration(session, [can_bus(protocol=CanProtocol.CAN_PROTOCOL_FRAMES)])
    one = raw_socket.RawSocket(session, RawChannel(bus_name="HS", request_id=0x7E0, response_id=0x7E8), timeout=PATIENCE)
    everything = raw_socket.RawSocket(session, RawChannel(bus_name="HS"), timeout=PATIENCE)
    time.sleep(1)
    one.send("023e00cccccccccc")
    answer = one.receive()
    seen = []
    while len(seen) < 1:
        frame = everything.stream_handler.receive(timeout=PATIENCE)
        seen.append([frame.channel.response_id, frame.payload])
    result = {"answer": answer, "seen": seen}
    for name, payload in (("too long", "00" * 9), ("not hexadecimal", "0")):
        socket = raw_socket.RawSocket(session, RawChannel(bus_name="HS", request_id=0x7E0), timeout=PATIENCE)
        socket.send(payload)
        result[name] = status_of(socket.receive)
    everything.send("00")
    for name, channel in (
        ("no bus", RawChannel(bus_name="X")),
        ("no bus name", RawChannel()),
        ("identifier too great", RawChannel(bus_name="HS", request_id=0x2000_0000)),
    ):
        result[name] = failure(raw_socket.RawSocket(session, channel, timeout=PATIENCE))
    result["receive-only"] = status_of(lambda: [everything.receive() for _ in range(100)])
    success(session)
    return result


def tp20(job):
    session = start(job)
    set_bus_configuration(session, [can_bus(protocol=CanProtocol.CAN_PROTOCOL_TP20)])
    found = []
    for ecu in job["ecus"]:
        channel = Tp20Channel(bus_name="HS", logical_address=ecu["logical_address"])
        socket = tp20_socket.Tp20Socket(session, channel, timeout=PATIENCE)
        found.append([socket.request(request, silent=True) for request in ecu["requests"]])
        socket.stop_stream()
    socket = tp20_socket.Tp20Socket(session, Tp20Channel(bus_name="HS", logical_address=0x7A), timeout=PATIENCE)
    failures = {"absent": failure(socket)}
    for name, channel in (
        ("no bus", Tp20Channel(bus_name="X", logical_address=1)),
        ("address too great", Tp20Channel(bus_name="HS", logical_address=0x100)),
    ):
        failures[name] = failure(tp20_socket.Tp20Socket(session, channel, timeout=PATIENCE))
    success(session)
    return {"answers": found, "failures": failures}


def cuts(job):
    """Sends requests in turns; the test cuts a link after each but the last. Reads every message of the stream."""
    session = start(job)
    can_tp20 = can_bus("TP", protocol=CanProtocol.CAN_PROTOCOL_TP20)
    fast, rate = KlineProtocol.KLINE_PROTOCOL_ISO14230_FAST, KlineBitRate.KLINE_BIT_RATE_10400
    kline_bus = BusConfiguration(bus_name="K", kline_bus=KlineBus(pin=1, kline_protocol=fast, kline_bit_rate=rate))
    network = DoipNetworkConfiguration.DOIP_NETWORK_CONFIGURATION_1
    doip_bus = DoipBus(doip_option=DoipOption.DOIP_OPTION_2, doip_network_configuration=network)
    bus, channel, message, open_socket = {
        "tp20": (can_tp20, Tp20Channel, Tp20Message, tp20_socket.Tp20Socket),
        "kline": (kline_bus, KlineChannel, KlineMessage, kline_socket.KlineSocket),
        "doip": (BusConfiguration(bus_name="ETH", doip_bus=doip_bus), DoipChannel, DoipMessage, doip_socket.DoipSocket),
    }[job["kind"]]
    set_bus_configuration(session, [bus])
    channel = channel(**job["channel"])
    # the stream ends with its socket
    socket = open_socket(session, channel, timeout=PATIENCE)
    stream = socket.stream_handler
    answers = []
    for number in range(job["cuts"] + 1):
        stream.send(message(channel=channel, payload=job["requests"][number % len(job["requests"])]))
        if number < job["cuts"]:
            report("sent")
        answers.append(stream.receive(timeout=PATIENCE).payload)
    success(session)
    return {"answers": answers}


def log(job):
    """Writes a line of each level, a deceptive one and a very long one, and stays until the test ends."""
    session = start(job)
    report(session.id())
    logger = logging.getLogger("script")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(ScriptLogHandler(session))
    logger.debug("one")
    logger.info("two")
    logger.warning("three")
    logger.error("a\x1b[2Jb\nc")
    logger.critical("x" * 100_000)
    sys.stdin.read()


def waits(job):
    """Waits for a message of a channel that ends, and reports how."""
    openobd = OpenOBD(arguments(job))
    session = openobd.start_session_on_ticket(job["ticket"])
    SessionTokenHandler(session)
    set_bus_configuration(session, [can_bus()])
    socket = isotp_socket.IsotpSocket(session, isotp(job["ecus"][0]), timeout=PATIENCE)
    socket.request("3E00")
    report("open")
    try:
        result = {"message": socket.stream_handler.receive(timeout=PATIENCE).payload}
    except OpenOBDException as error:
        result = {"status": error.status, "sentence": error.details}
    return result | {"state": openobd.get_session(SessionId(value=session.id())).state}


def wrong_bit_rate(job):
    session = start(job)
    try:
        set_bus_configuration(session, [can_bus(rate=CanBitRate.CAN_BIT_RATE_250)])
        return "configured"
    except OpenOBDException as error:
        return {"status": error.status, "sentence": error.details}


def cut_frames(job):
    """Receives numbered frames until the last one."""
    session = start(job)
    set_bus_configuration(session, [can_bus(protocol=CanProtocol.CAN_PROTOCOL_FRAMES)])
    socket = raw_socket.RawSocket(session, RawChannel(bus_name="HS", response_id=0x7E8), timeout=PATIENCE)
    while not session.get_configuration().channels:
        pass
    report("open")
    received = []
    while not received or received[-1] != "63":
        received.append(socket.receive())
        if len(received) % 20 == 0:
            report(len(received))
    success(session)
    return {"received": received}


def kline(job):
    session = start(job)
    protocol = KlineProtocol.KLINE_PROTOCOL_ISO14230_FAST
    bus = KlineBus(pin=job["pin"], kline_protocol=protocol, kline_bit_rate=KlineBitRate.KLINE_BIT_RATE_10400)
    set_bus_configuration(session, [BusConfiguration(bus_name="K", kline_bus=bus)])
    for _ in range(10):
        socket = kline_socket.KlineSocket(session, KlineChannel(bus_name="K", ecu_id=0x11), timeout=PATIENCE)
        try:
            answer = socket.request("1A90")
            codes = [socket.request(request) for request in ("1800FF00", "14FF00", "1800FF00")]
            break
        except OpenOBDException as error:
            # a busy machine may miss an answer
            print(error, file=sys.stderr)
    socket.stop_stream()
    failures = {}
    for name, channel in (
        ("absent", KlineChannel(bus_name="K", ecu_id=0x77)),
        ("no bus", KlineChannel(bus_name="X", ecu_id=0x11)),
        ("address too great", KlineChannel(bus_name="K", ecu_id=0x100)),
    ):
        failures[name] = failure(kline_socket.KlineSocket(session, channel, timeout=PATIENCE))
    success(session)
    return {"answer": answer, "codes": codes, "failures": failures}


def doip(job):
    session = start(job)
    bus = DoipBus(
        doip_option=DoipOption.DOIP_OPTION_2,
        doip_network_configuration=DoipNetworkConfiguration.DOIP_NETWORK_CONFIGURATION_1,
    )
    set_bus_configuration(session, [BusConfiguration(bus_name="ETH", doip_bus=bus)])
    channel = DoipChannel(bus_name="ETH", gateway_id=job["gateway"], tester_id=0x0E80, ecu_id=job["ecu"])
    socket = doip_socket.DoipSocket(session, channel, timeout=PATIENCE)
    answer = socket.request(job["request"])
    codes = [socket.request(request) for request in ("1902FF", "14FFFFFF", "1902FF")]
    socket.stop_stream()
    failures = {}
    known = dict(bus_name="ETH", gateway_id=job["gateway"], tester_id=0x0E80, ecu_id=job["ecu"])
    for name, change in (
        ("no bus", {"bus_name": "X"}),
        ("address too great", {"ecu_id": 0x10000}),
        ("another gateway", {"gateway_id": 0x0001}),
    ):
        channel = DoipChannel(**(known | change))
        failures[name] = failure(doip_socket.DoipSocket(session, channel, timeout=PATIENCE))
    absent = doip_socket.DoipSocket(session, DoipChannel(**(known | {"ecu_id": 0x0FFE})), timeout=PATIENCE)
    failures["absent"] = status_of(absent.request, "3E00")
    success(session)
    return {"answer": answer, "codes": codes, "failures": failures}


def terminal15(job):
    session = start(job)
    set_bus_configuration(session, [BusConfiguration(bus_name="T15", terminal15_bus=Terminal15Bus(pin=1))])
    socket = terminal15_socket.Terminal15Socket(session, timeout=PATIENCE)
    states = []
    for _ in range(2):
        states.append(socket.receive())
        # the test switches the ignition off when it reads this line
        print(json.dumps(states[-1]), flush=True)
    success(session)
    return {"states": states}


def information(job):
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    monitor = connection_monitor.ConnectionMonitor(session)
    once = session.get_connector_information()
    time.sleep(3)
    samples = monitor.get_connector_info_list()
    ecus = [[ecu.isotp_ecu.request_id, ecu.isotp_ecu.response_id] for ecu in session.get_ecu_list().ecus]
    vehicle, ticket = session.get_vehicle_details(), session.get_ticket_details()
    products = [[product.number, product.name] for product in session.get_product_list().products]
    success(session)
    return {
        "connected": [once.connected] + [sample.connected for sample in samples],
        "healthy": once.healthy,
        "since": once.connected_since,
        "ecus": ecus,
        "vehicle": [vehicle.name, vehicle.tecdoc_id, vehicle.vin],
        "ticket": [ticket.number, ticket.id],
        "products": products,
    }


def exceptions(job):
    """Each exception that the client documents for communication."""
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    ecu = job["ecus"][0]
    socket = isotp_socket.IsotpSocket(session, isotp(ecu), timeout=PATIENCE)
    raised = {}

    def record(name, call, *args, **kwargs):
        try:
            call(*args, **kwargs)
            raised[name] = "nothing"
        except Exception as error:
            raised[name] = [type(error).__name__, getattr(error, "status", None)]

    record("unknown identifier", socket.request, "221234")
    record("unknown service", socket.request, "BA")
    record("wrong session", socket.request, "2701")
    record("wrong length", socket.request, "22F1")
    absent = isotp_socket.IsotpSocket(session, isotp({"request_id": 0x6F0, "response_id": 0x6F8}), timeout=2)
    record("no answer", absent.request, "3E00")
    record("no flow control", absent.request, "22" + "F190" * 20, timeout=PATIENCE)
    record("after the failure", absent.request, "3E00")
    record("bad payload", isotp_socket.IsotpSocket(session, isotp(ecu)).request, "3E0")
    record("no bus", isotp_socket.IsotpSocket(session, IsotpChannel(bus_name="X", request_id=1, response_id=2)).request, "3E00")
    silent = socket.request("221234", silent=True)
    socket.stop_stream()
    record("stopped stream", socket.request, "3E00")
    success(session)
    record("finished session", session.get_configuration)
    return {"raised": raised, "silent": silent}


def key(seed, level):
    """The key algorithm of the simulated ECUs, which gives no protection."""
    number = int.from_bytes(seed, "big") ^ 0x5EC0DE00 ^ level
    return ((number << 7 | number >> 25) & 0xFFFFFFFF).to_bytes(4, "big")


def flash(job):
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    socket = isotp_socket.IsotpSocket(session, isotp(job["ecus"][0]), timeout=PATIENCE)
    data = bytes((i * 7 + i // 256) % 256 for i in range(job["size"]))
    socket.request("1002")
    seed = bytes.fromhex(socket.request("2701"))[2:]
    socket.request("2702" + key(seed, 1).hex())
    socket.request("3101FF00")
    granted = bytes.fromhex(socket.request(f"340044{0x08000000:08X}{len(data):08X}"))
    block = int.from_bytes(granted[2:], "big") - 2
    for number, begin in enumerate(range(0, len(data), block)):
        socket.request(f"36{(number + 1) % 256:02X}" + data[begin : begin + block].hex())
    socket.request("37")
    check = socket.request(f"31010202{zlib.crc32(data):08X}")
    digest = socket.request("22F1A1")
    socket.request("1001")
    success(session)
    return {"check": check, "image": bytes.fromhex(digest)[3:] == hashlib.sha256(data).digest()}


def latency(job):
    """The time of a request in the middle of many, and that of a call that the gateway answers by itself."""
    session = start(job)
    set_bus_configuration(session, [can_bus()])
    socket = isotp_socket.IsotpSocket(session, isotp(job["ecus"][0]), timeout=PATIENCE)

    def median(call):
        """The time in the middle, and how many calls a second there were."""
        times = []
        for _ in range(job["requests"]):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return [round(sorted(times)[len(times) // 2] * 1e6), round(len(times) / sum(times))]

    socket.request("3E00")
    result = {"request": median(lambda: socket.request("3E00")), "call": median(session.get_configuration)}
    success(session)
    return result


def user_interface(job):
    session = start(job)
    ui = UiHandler(session)
    shown = [
        ui.show_ui(Label(label="Hello")),
        ui.show_ui(Continue(label="Go on")),
        ui.show_ui(YesNo(label="Ignition?")),
        ui.show_ui(Options(label="Variant", options=["A", "B"])),
        ui.show_ui(FreeText(label="Name")),
        ui.show_ui(Numbers(label="Odometer", minimum=1, maximum=999999)),
    ]
    unanswered = status_of(ui.show_ui, YesNo(label="Something else?"))
    handler = ScriptLogHandler(session)
    handler.emit(logging.makeLogRecord({"msg": "a line of the script", "levelname": "ERROR"}))
    time.sleep(1)
    handler.close()
    success(session)
    return {"shown": shown, "unanswered": unanswered}


def button(job):
    """Controls for the connector's button. The test says on standard input when to show them."""
    session = start(job)
    ui = UiHandler(session)
    operator = UiHandler(session, target=InterfaceType.INTERFACE_OPERATOR)
    shown = [ui.show_ui(Continue(label="Prepared")), operator.show_ui(Continue(label="Go on"))]
    shown.append(ui.show_ui(YesNo(label="Sure?")))
    report({"without the button": shown})
    continued = 0
    for line in sys.stdin:
        match line.strip():
            case "show":
                assert ui.show_ui(Continue(label="Open the bonnet")) is None
                report({"continued": continued})
                continued += 1
            case "write":
                set_bus_configuration(session, [can_bus()])
                channel = IsotpChannel(bus_name="HS", request_id=0x7E0, response_id=0x7E8)
                socket = isotp_socket.IsotpSocket(session, channel, timeout=PATIENCE)
                report({"write": status_of(socket.request, "2EF1900102")})
            case "refuse":
                try:
                    ui.show_ui(Continue(label="Open the bonnet"))
                except OpenOBDException as error:
                    report({"refused": error.status, "sentence": error.details})


def variables(job):
    """Scopes of variables, and function contexts without a host."""
    session = start(job)
    checks = {}
    for scope in (ContextType.GLOBAL_CONTEXT, ContextType.FUNCTION_CONTEXT, ContextType.CONNECTION_CONTEXT):
        session.set_context_variable("a.x", f"{scope}", scope)
        session.set_context_variable("b", "2", scope)
        listed = session.get_context_variable_list("a.", scope).variables
        assert [(one.key, one.value) for one in listed] == [("a.x", f"{scope}")], listed
        session.delete_context_variable("b", scope)
        checks[f"deleted {scope}"] = status_of(session.get_context_variable, "b", scope)
    checks["no scope"] = status_of(session.set_context_variable, "x", "y", ContextType.UNDEFINED_CONTEXT)
    checks["no details"] = status_of(session.get_function_details)
    session.register_function_details(FunctionDetails(id="f", name="F", version="1"))
    assert session.get_function_details().name == "F"
    checks["no call"] = status_of(session.set_function_argument, "x", "y")
    context = session.start_context()
    session.set_function_argument("x", "y")
    broker = OpenOBDFunctionBroker(arguments(job))
    info = SessionInfo(id=session.id(), authentication_token=context.authentication_token)
    checks["not hosted"] = status_of(broker.run_function, FunctionCall(id="absent", session_info=info))
    checks["not registered"] = status_of(broker.get_function_registration, FunctionId(value="absent"))
    inner = OpenOBDSession(
        SessionInfo(
            grpc_endpoint=job["host"], grpc_port=job["port"], authentication_token=context.authentication_token
        )
    )
    SessionTokenHandler(inner)
    checks["global inside"] = inner.get_context_variable("a.x", ContextType.GLOBAL_CONTEXT).value
    checks["function inside"] = status_of(inner.get_context_variable, "a.x", ContextType.FUNCTION_CONTEXT)
    arguments_inside = inner.function.getFunctionArgumentList(EmptyMessage(), metadata=inner.metadata()).variables
    checks["argument"] = [[one.key, one.value] for one in arguments_inside]
    inner.set_function_result("r", "s")
    success(inner)
    checks["after finish"] = status_of(inner.get_context_variable, "a.x", ContextType.GLOBAL_CONTEXT)
    results = session.function.getFunctionResultList(EmptyMessage(), metadata=session.metadata()).variables
    checks["result"] = [[one.key, one.value] for one in results]
    success(session)
    return checks


def main():
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    scenario, job = sys.argv[1], json.loads(sys.argv[2])
    result = globals()[scenario](job)
    print(json.dumps(result), flush=True)
    # the client's threads may still wait for streams
    sys.stdout.flush()
    import os

    os._exit(0)


main()
