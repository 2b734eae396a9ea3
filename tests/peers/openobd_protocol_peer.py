"""Compares openobd.proto, and its compiled form, with the protocol of the client openobd.

Usage: openobd_protocol_peer.py DIRECTORY

Prints one JSON object: the differences, and the number of messages and services.
"""

import importlib
import json
import pathlib
import sys
import tempfile

import grpc_tools
import openobd_protocol
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_tools import protoc


def compiled(text):
    descriptors = descriptor_pb2.FileDescriptorSet()
    descriptors.ParseFromString(text)
    return descriptors.file[-1]


def field(message):
    def union(one):
        has = one.HasField("oneof_index") and not one.proto3_optional
        return message.oneof_decl[one.oneof_index].name if has else ""

    return sorted(
        (one.name, one.number, one.type, one.label, one.type_name, one.proto3_optional, union(one))
        for one in message.field
    )


def main():
    here = pathlib.Path(sys.argv[1])
    standard = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as work:
        target = pathlib.Path(work, "x")
        options = [f"-I{here}", f"-I{standard}", "--include_imports", f"--descriptor_set_out={target}"]
        protoc.main(["protoc", *options, "openobd.proto"])
        source = compiled(target.read_bytes())
    ours = compiled((here / "openobd.binpb").read_bytes())
    differences = [] if ours == source else ["openobd.binpb is not openobd.proto: run compile.py"]
    services = {}
    root = pathlib.Path(list(openobd_protocol.__path__)[0])
    for file in root.glob("**/*_pb2.py"):
        module = ".".join(file.relative_to(root.parent).with_suffix("").parts)
        services |= dict(importlib.import_module(module).DESCRIPTOR.services_by_name.items())
    pool = descriptor_pool.Default()
    for message in ours.message_type:
        theirs = descriptor_pb2.DescriptorProto()
        pool.FindMessageTypeByName(f"openOBD.v1.{message.name}").CopyToProto(theirs)
        if field(theirs) != field(message):
            differences.append(message.name)
    for enum in ours.enum_type:
        theirs = descriptor_pb2.EnumDescriptorProto()
        pool.FindEnumTypeByName(f"openOBD.v1.{enum.name}").CopyToProto(theirs)
        if [(value.name, value.number) for value in theirs.value] != [(one.name, one.number) for one in enum.value]:
            differences.append(enum.name)
    for service in ours.service:
        theirs = descriptor_pb2.ServiceDescriptorProto()
        services[service.name].CopyToProto(theirs)

        def calls(one):
            return sorted(
                (call.name, call.input_type, call.output_type, call.client_streaming, call.server_streaming)
                for call in one.method
            )

        if calls(theirs) != calls(service):
            differences.append(service.name)
    differences += sorted(set(services) - {service.name for service in ours.service})
    result = {"differences": differences, "messages": len(ours.message_type), "services": len(ours.service)}
    print(json.dumps(result))


main()
