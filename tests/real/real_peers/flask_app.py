"""A service on Flask for tests/real, served by gunicorn; FILE in the environment names the file it serves.

Its routes, which aiohttp_app.py has too:
    GET  /file             the file, with ranges and revalidation
    GET  /stream           the same in chunks, its length unknown
    any  /digest           SHA-256, length and framing of the body that came
    GET  /compressed       a long text, in gzip for those who accept it
    GET  /events/NAME      `count` server-sent events; each waits until the one before is acknowledged
    POST /acknowledge/NAME
    GET  /process          the id of the process that answered
"""

import gzip
import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request, send_file

FILE = os.environ["FILE"]
app = Flask(__name__)
acknowledged: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))


def blocks() -> Iterator[bytes]:
    with open(FILE, "rb") as content:
        while block := content.read(2**16):
            yield block


@app.get("/file")
def file() -> Response:
    return send_file(FILE, conditional=True)


@app.get("/stream")
def stream() -> Response:
    return Response(blocks())


@app.route("/digest", methods=["POST", "PUT"])
def digest() -> Response:
    sha256, length = hashlib.sha256(), 0
    while block := request.stream.read(2**16):
        sha256.update(block)
        length += len(block)
    framing = {name: request.headers.get(name) for name in ("Content-Length", "Transfer-Encoding")}
    return jsonify({"sha256": sha256.hexdigest(), "length": length, **framing})


@app.get("/compressed")
def compressed() -> Response:
    body = b"all work and no play " * 10_000
    if not request.accept_encodings["gzip"]:
        return Response(body)
    return Response(gzip.compress(body), headers={"Content-Encoding": "gzip"})


@app.get("/events/<name>")
def events(name: str) -> Response:
    def tokens(count: int) -> Iterator[str]:
        for number in range(count):
            yield f"data: token {number}\n\n"
            acknowledged[name].acquire()

    return Response(tokens(int(request.args["count"])), content_type="text/event-stream")


@app.post("/acknowledge/<name>")
def acknowledge(name: str) -> str:
    acknowledged[name].release()
    return ""


@app.get("/process")
def process() -> str:
    return str(os.getpid())
