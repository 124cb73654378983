"""A web application with users of its own, as docs/tutorial.md describes it.

    .venv/bin/python examples/tutorial/app.py 9000

It serves the page, signs users in, and gives each signed-in user a short-lived token for Tailrace.
The secret stays here and at the nodes; the browser has only the token.
"""

import json
import os
import secrets
import sys
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt

HERE = Path(__file__).parent
FILES = {"/": ("index.html", "text/html"), "/talk.js": ("talk.js", "text/javascript")}
USERS = {"ann": "ann-password", "bob": "bob-password"}  # yours come from your database
TOKEN_S = 300
BODY_BYTES_MAX = 4_096
signed_in: dict[str, str] = {}  # cookie -> user


class App(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path not in FILES:
            return self.answer(404, b"not found", "text/plain")
        name, kind = FILES[self.path]
        page = (HERE / name).read_text().replace("{{TAILRACE}}", os.environ["PUBLIC_URL"])
        self.answer(200, page.encode(), kind)

    def do_POST(self) -> None:
        if self.path == "/sign-in":
            return self.sign_in()
        if self.path == "/token" and (user := self.user()):
            now = int(time.time())
            claims = {"sub": user, "iat": now, "exp": now + TOKEN_S}
            token = jwt.encode(claims, os.environ["TAILRACE_JWT_SECRET"], algorithm="HS256")
            return self.answer(200, json.dumps({"token": token}).encode())
        self.answer(401, b'{"error": "sign in first"}')

    def sign_in(self) -> None:
        size = min(int(self.headers.get("content-length") or 0), BODY_BYTES_MAX)
        asked = json.loads(self.rfile.read(size))
        known = USERS.get(asked.get("user", ""), "")
        if not known or not secrets.compare_digest(known, str(asked.get("password", ""))):
            return self.answer(401, b'{"error": "wrong name or password"}')
        cookie = secrets.token_urlsafe(24)
        signed_in[cookie] = asked["user"]
        self.answer(200, b"{}", cookie=f"app={cookie}; HttpOnly; SameSite=Strict; Path=/")

    def user(self) -> str:
        cookie = SimpleCookie(self.headers.get("cookie", "")).get("app")
        return signed_in.get(cookie.value, "") if cookie else ""

    def answer(
        self, status: int, body: bytes, kind: str = "application/json", cookie: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if cookie:
            self.send_header("set-cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
