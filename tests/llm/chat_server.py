"""A real HTTP server that speaks chat completions, and misbehaves as it is told.

A server is given a script: what to do with the first request, the second, and so on; the last act
goes on for ever. An act is a function of the handler and of the request's body.
"""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


@contextmanager
def serving(*script):
    """Runs a server; gives its `url`, and the `bodies` and `headers` it has seen."""
    seen = SimpleNamespace(url="", bodies=[], headers=[], most=0, now=0, lock=threading.Lock())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with seen.lock:
                act = script[min(len(seen.bodies), len(script) - 1)]
                seen.bodies.append(body)
                seen.headers.append({k.lower(): v for k, v in self.headers.items()})
                seen.now += 1
                seen.most = max(seen.most, seen.now)
            try:
                assert self.path == "/v1/chat/completions"
                act(self, body)
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with seen.lock:
                    seen.now -= 1

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler, text, status=200, **headers):
    payload = text.encode()
    handler.send_response(status)
    for name, value in {"Content_Type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


def completion(*texts, finish="stop", usage=(11, 5)):
    choices = [
        {"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": finish}
        for i, t in enumerate(texts)
    ]
    if isinstance(usage, tuple):
        usage = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
    return {"id": "x", "object": "chat.completion", "model": "m-1", "choices": choices} | {
        "usage": usage
    }


def says(*texts, **fields):
    """Answers with these replies, whatever `n` is."""
    return lambda handler, body: send(handler, json.dumps(completion(*texts, **fields)))


def fails(status, message="no", **headers):
    """Answers with an error, as OpenAI words it."""
    error = json.dumps({"error": {"message": message, "type": "t", "code": "c"}})
    return lambda handler, body: send(handler, error, status, **headers)


def raw(text, **headers):
    """Answers 200 with this text as the body."""
    return lambda handler, body: send(handler, text, 200, **headers)


def hangs(seconds):
    """Says nothing for so long, then closes."""
    return lambda handler, body: time.sleep(seconds)


def drips(seconds):
    """Sends a byte now and then, so that no single read takes long."""

    def act(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(int(seconds / 0.05)):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    return act


def cuts(handler, body):
    """Promises more than it sends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.close()


def slow(seconds, act):
    """Waits before it acts."""

    def later(handler, body):
        time.sleep(seconds)
        act(handler, body)

    return later
