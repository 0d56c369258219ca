"""A web server with one file, which may misbehave."""

import contextlib
import http.server
import re
import threading


class Server(http.server.ThreadingHTTPServer):
    """A web server with one file, which is at every path.

    Attributes:
        data: The file.
        ranges: Whether it sends ranges.
        asked: (path, headers) of each request.
        sent: Bytes of bodies sent.
        spoil: Called with (handler, status, headers, body); returns what to send.
        cut: Called with a body; returns after how many bytes to hang up, or None.
    """

    daemon_threads = True

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.ranges = True
        self.asked = []
        self.sent = 0
        self.spoil = lambda _handler, *answer: answer
        self.cut = lambda _body: None
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://localhost:{self.server_address[1]}/image.tar"

    def handle_error(self, *_):
        """Say nothing: clients may leave."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers)))
        data = self.server.data
        headers = {"ETag": '"1"', "Content-Type": "application/x-tar"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status, body = 200, data
        if self.server.ranges and wanted:
            start, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            if start >= len(data):
                status, body = 416, b""
                headers["Content-Range"] = f"bytes */{len(data)}"
            else:
                status, body = 206, data[start : last + 1]
                headers["Content-Range"] = f"bytes {start}-{last}/{len(data)}"
        self.answer(*self.server.spoil(self, status, headers, body))

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        at = self.server.cut(body)
        with self.server.lock:
            self.server.sent += len(body[:at])
        self.wfile.write(body[:at])
        self.close_connection = at is not None


@contextlib.contextmanager
def serving(data):
    with Server(data) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
