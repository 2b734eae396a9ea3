"""Compiles openobd.proto into openobd.binpb, from which the build generates code.

Usage: .venv/bin/python operator/proto/compile.py

The compiler is protoc, in the package grpcio-tools, which comes with the peer openobd.
"""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent


def compile_into(target):
    standard = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    return protoc.main(
        ["protoc", f"-I{HERE}", f"-I{standard}", "--include_imports", f"--descriptor_set_out={target}", "openobd.proto"]
    )


if __name__ == "__main__":
    sys.exit(compile_into(HERE / "openobd.binpb"))
