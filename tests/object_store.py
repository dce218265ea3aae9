"""An S3 server of its own behind a proxy that fails where it is told, and a root of literal tables.

The server is moto's. The proxy stands between it and the clients, so that what fails is the
network: nothing of the code under test is replaced.
"""

import contextlib
import hashlib
import http.client
import json
import logging
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
from moto.server import ThreadedMotoServer

from pipeline.files import fetch

KEY_ID, SECRET = "AKIATESTTESTTESTTEST", "test-secret-AbCdEf0123456789/+"
BUCKET = "bucket"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
FAULTS = ("error", "reset", "cut", "stall")
"""An answer 500, a connection that is reset, a body that ends half way, an answer that never comes.
"""


class ObjectStore:
    """The server, its proxy and the environment that leads to it.

    Attributes:
        fault: ``fault(method, path, n)`` names the fault of the n-th such request (from 0); None
            is no fault.
        requests: (method, path) -> how many there were.
        met: fault -> how many there were.
        seconds: a stalled answer is held back for.
    """

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self._upstream = self._moto.get_host_and_port()
        # Buckets live in this process: those of an earlier server would still be there.
        reset_all = http.client.HTTPConnection(*self._upstream, timeout=60)
        with contextlib.closing(reset_all):
            reset_all.request("POST", "/moto-api/reset")
            reset_all.getresponse().read()
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self._lock = threading.Lock()
        self.seconds = 6.0
        self.calm()

    @property
    def environment(self):
        """All that a client is told: no credentials stand in any uri or configuration."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self._proxy.server_port}",
            "AWS_MAX_ATTEMPTS": "3",
            "AWS_EC2_METADATA_DISABLED": "true",
            "FSSPEC_S3": json.dumps({"config_kwargs": {"read_timeout": 3, "connect_timeout": 3}}),
        }

    def calm(self):
        """No faults from here on, no requests so far."""
        self.fault, self.requests, self.met = (lambda *_: None), Counter(), Counter()

    def stop(self):
        """End both servers."""
        self._proxy.shutdown()
        self._proxy.server_close()
        self._moto.stop()

    def answer(self, request):
        """Pass a request on, unless it fails."""
        path = request.path.partition("?")[0]
        with self._lock:
            number = self.requests[request.command, path]
            self.requests[request.command, path] += 1
            fault = self.fault(request.command, path, number)
            self.met[fault] += fault is not None
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if fault == "stall":
            time.sleep(self.seconds)
        if fault in ("reset", "stall"):
            reset(request)
            return
        if fault == "error":
            text = b"<Error><Code>InternalError</Code><Message>planted</Message></Error>"
            send(request, 500, {"Content-Type": "application/xml", "Content-Length": len(text)})
            request.wfile.write(text)
            return
        status, headers, content = self._forward(request, body)
        send(request, status, headers)
        if fault == "cut" and len(content) > 1:
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
        elif request.command != "HEAD":
            request.wfile.write(content)

    def _forward(self, request, body):
        link = http.client.HTTPConnection(*self._upstream, timeout=60)
        with contextlib.closing(link):
            link.request(request.command, request.path, body, dict(request.headers))
            found = link.getresponse()
            content = found.read()
            headers = {k: v for k, v in found.getheaders() if k.lower() not in HOP_BY_HOP}
        if request.command != "HEAD":
            headers["Content-Length"] = len(content)
        return found.status, headers, content

    def _handler(self):
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                with contextlib.suppress(OSError, ValueError):  # of a closed connection
                    super().handle_one_request()
                    return
                self.close_connection = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                store.answer(self)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        return Handler


def send(request, status, headers):
    request.send_response_only(status)
    for name, value in headers.items():
        request.send_header(name, str(value))
    request.end_headers()


def reset(request):
    """Close with RST instead of FIN."""
    option = struct.pack("ii", 1, 0)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
    request.close_connection = True
    for side in (request.rfile, request.wfile, request.connection):
        side.close()


def seeded_faults(seed, share, most=1, methods=("GET", "PUT", "HEAD", "POST")):
    """The first tries of a share of all requests fail, each in a way of its own.

    Args:
        seed: another one fails elsewhere.
        share: of requests that fail.
        most: times that one request fails.
        methods: others never fail.
    """

    def fault(method, path, number):
        if method not in methods or number >= most:
            return None
        digest = hashlib.sha256(f"{seed} {method} {path}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        is_chosen, kind = rng.random() < share, FAULTS[rng.integers(len(FAULTS))]
        if kind == "cut" and method != "GET":
            kind = "reset"
        return kind if is_chosen else None

    return fault


@contextlib.contextmanager
def object_store(patch):
    """A running store with one bucket, which this process reaches by its environment.

    Args:
        patch: a MonkeyPatch.
    """
    store = ObjectStore()
    try:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        fsspec.config.set_conf_env(fsspec.config.conf)
        forget_clients()
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield store
    finally:
        forget_clients()
        fsspec.config.conf.pop("s3", None)
        store.stop()


def forget_clients():
    """Clients keep the endpoint that they were made with."""
    fetch._filesystem.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
