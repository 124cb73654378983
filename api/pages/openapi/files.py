"""The files' part of the OpenAPI document: data, written by hand.

Source: docs/protocol.md, "Files".
"""

from __future__ import annotations

from api.intake.batch_members import FILE_EXPIRES_S_MAX, FILE_EXPIRES_S_MIN
from api.intake.upload import PURPOSES
from api.pages.openapi.schemas import (
    INTEGER,
    SHARED,
    STRING,
    Json,
    answer,
    array,
    content,
    errors,
    nullable,
    parameter,
    record,
    ref,
)
from api.resources.files import LIMIT_MAX, LISTED
from shared.files.store import FILE_ID

ID = parameter("id", "path", "The file.", {"type": "string", "pattern": f"^{FILE_ID.pattern}$"})
BYTES: Json = {"type": "string", "format": "binary"}

SCHEMAS: Json = {
    "NewFile": record(
        {"file": {**BYTES, "minLength": 1}, "purpose": {"enum": list(PURPOSES)}},
        {
            "expires_after[anchor]": {"const": "created_at"},
            "expires_after[seconds]": {
                "type": "integer", "minimum": FILE_EXPIRES_S_MIN, "maximum": FILE_EXPIRES_S_MAX,
            },
        },
    )
    | {
        "description": "Parts in any order. By default a file expires after 30 days.",
        "dependentRequired": {
            "expires_after[anchor]": ["expires_after[seconds]"],
            "expires_after[seconds]": ["expires_after[anchor]"],
        },
    },
    "File": record(
        {
            "id": STRING,
            "object": {"const": "file"},
            "bytes": INTEGER,
            "created_at": INTEGER,
            "expires_at": INTEGER,
            "filename": STRING,
            "purpose": {"enum": list(LISTED)},
            "status": {"const": "processed"},
        }
    ),
    "Files": record(
        {
            "object": {"const": "list"},
            "data": array(ref("File")),
            "first_id": nullable(STRING),
            "last_id": nullable(STRING),
            "has_more": {"type": "boolean"},
        }
    ),
    "DeletedFile": record({"id": STRING, "object": {"const": "file"}, "deleted": {"const": True}}),
}  # fmt: skip

PATHS: Json = {
    "/v1/files": {
        "post": {
            "operationId": "createFile",
            "summary": "Upload a file.",
            "requestBody": {
                "required": True,
                "content": content(ref("NewFile"), "multipart/form-data"),
            },
            "responses": {
                "200": answer("The file.", ref("File")),
                **errors(
                    "invalid_multipart", "request_timeout", "body_too_large",
                    "unsupported_media_type", "invalid_request", "draining", "owner_files_full",
                    "too_many_transfers", "storage_full", *SHARED,
                    schema="OpenAiError",
                ),
            },
        },
        "get": {
            "operationId": "listFiles",
            "summary": "The owner's files, newest first.",
            "parameters": [
                parameter(
                    "limit", "query", "Files of a page; default 100.",
                    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
                ),
                parameter(
                    "order", "query", "By creation time; default `desc`.", {"enum": ["asc", "desc"]}
                ),
                parameter("after", "query", "`last_id` of the previous page.", STRING),
                parameter(
                    "purpose", "query", "Only files of this purpose.", {"enum": list(LISTED)}
                ),
            ],
            "responses": {
                "200": answer("A page.", ref("Files")),
                **errors("not_found", "invalid_request", *SHARED, schema="OpenAiError"),
            },
        },
    },
    "/v1/files/{id}": {
        "get": {
            "operationId": "getFile",
            "summary": "The record of a file.",
            "parameters": [ID],
            "responses": {
                "200": answer("The file.", ref("File")),
                **errors("not_found", *SHARED, schema="OpenAiError"),
            },
        },
        "delete": {
            "operationId": "deleteFile",
            "summary": "Delete a file: its record and its bytes.",
            "parameters": [ID],
            "responses": {
                "200": answer("Deleted.", ref("DeletedFile")),
                **errors("not_found", *SHARED, schema="OpenAiError"),
            },
        },
    },
    "/v1/files/{id}/content": {
        "get": {
            "operationId": "getFileContent",
            "summary": "The file's bytes, or the single range that the header Range asks for.",
            "parameters": [ID],
            "responses": {
                "200": {
                    "description": "The complete file.",
                    "content": content(BYTES, "application/octet-stream"),
                },
                "206": {
                    "description": "The range.",
                    "content": content(BYTES, "application/octet-stream"),
                },
                **errors("not_found", "too_many_transfers", *SHARED, schema="OpenAiError"),
            },
        }
    },
}  # fmt: skip
