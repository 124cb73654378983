#!/bin/sh
# Compiles the files of this folder for Python: compile.sh PYTHON [FOLDER]. `make proto` runs it.
# With FOLDER all code goes there; without it, the interface of the API node goes to api/.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here/../workers/backends/grpc/generated}
out_api=${2:-$here/../api/dialects/grpc/generated}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" -m grpc_tools.protoc --proto_path="$here" --python_out="$work" --pyi_out="$work" \
    tailrace/backend/v1/backend.proto tailrace/inference/v2/inference.proto tailrace/v1/tailrace.proto
# No file imports another, so the modules can stand in one folder.
cp "$work"/tailrace/v1/*_pb2.py* "$out_api"
find "$work/tailrace/backend" "$work/tailrace/inference" -name '*_pb2.py*' -exec cp {} "$out" \;
