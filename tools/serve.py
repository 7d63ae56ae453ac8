"""Serve a folder of pages to this machine only: serve.py FOLDER PORT (or the next free port)."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    allow_reuse_port = False  # so that a port in use is refused, not shared


class Quiet(SimpleHTTPRequestHandler):
    def log_request(self, *args):
        """Say nothing of pages that were found; errors are still logged."""


def bind(folder: Path, port: int) -> Server:
    """A server on `port`, or on the next free one of the nine that follow it."""
    for candidate in range(port, port + 10):
        try:
            return Server(("127.0.0.1", candidate), partial(Quiet, directory=folder))
        except OSError as error:
            refusal = error
    raise SystemExit(f"No free port from {port} to {port + 9}: {refusal}")


if __name__ == "__main__":
    with bind(Path(sys.argv[1]), int(sys.argv[2])) as server:
        print(f"The book is at http://127.0.0.1:{server.server_port}/ (Ctrl-C stops serving it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
