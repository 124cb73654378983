#!/bin/sh
# Compiles the files of this folder for Python: compile.sh PYTHON [FOLDER]. `make proto` runs it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here/../workers/backends/grpc/generated}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" -m grpc_tools.protoc --proto_path="$here" --python_out="$work" --pyi_out="$work" \
    tailrace/backend/v1/backend.proto tailrace/inference/v2/inference.proto
# No file imports another, so the modules can stand in one folder.
find "$work" -name '*_pb2.py*' -exec cp {} "$out" \;
