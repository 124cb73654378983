"""The committed code of proto/ is what the files give, and the interface only grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workers.backends.grpc.generated import backend_pb2 as wire

ROOT = Path(__file__).parents[5]
FOLDERS = (
    ROOT / "workers" / "backends" / "grpc" / "generated",
    ROOT / "api" / "dialects" / "grpc" / "generated",
)


def test_the_committed_code_is_what_the_files_give(tmp_path: Path) -> None:
    subprocess.run([ROOT / "proto" / "compile.sh", sys.executable, tmp_path], check=True)

    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for folder in FOLDERS for path in folder.glob("*_pb2.py*")}
    assert made == kept, "run `make proto`"


def test_no_number_of_a_published_field_changes() -> None:
    """Servers of third parties are built on these numbers."""
    numbers = {
        message.name: {field.name: field.number for field in message.fields}
        for message in wire.DESCRIPTOR.message_types_by_name.values()
    }

    assert numbers["GenerateRequest"] == {
        "model": 1,
        "messages": 2,
        "max_tokens": 3,
        "temperature": 4,
        "top_p": 5,
        "seed": 6,
        "stop": 7,
        "params_json": 8,
        "continue_last_message": 9,
    }
    assert numbers["Message"] == {"role": 1, "text": 2, "json": 3}
    assert numbers["GenerateResponse"] == {"text": 1, "reasoning": 2, "tool_call": 3, "finish": 4}
    assert numbers["ToolCall"] == {"index": 1, "id": 2, "name": 3, "arguments": 4}
    assert numbers["Finish"] == {"reason": 1, "usage": 2}
    assert numbers["Usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "cached_tokens": 3,
        "reasoning_tokens": 4,
    }
