"""A server that answers a pod as Kubernetes does when it asks how many of its kind there are to be."""

import http.server
import shutil
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path

NAME = "kubernetes.default.svc"


def scale(replicas):
    """What Kubernetes says of a StatefulSet's scale."""
    return f"""{{
  "kind": "Scale",
  "apiVersion": "autoscaling/v1",
  "metadata": {{ "name": "caxton", "namespace": "agents" }},
  "spec": {{ "replicas": {replicas} }},
  "status": {{ "replicas": 5, "selector": "app.kubernetes.io/name=caxton" }}
}}"""


def certificate(folder):
    """Makes a certificate for the name of Kubernetes' API that vouches for itself, as `ca.crt` with `key`."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
         "-keyout", str(folder / "key"), "-out", str(folder / "ca.crt")],
        check=True, capture_output=True,
    )  # fmt: skip


class ScaleServer:
    """Answers every GET with `answer`, a status and a body, and keeps who asked for what in `asked`."""

    def __init__(self, address="127.0.0.1"):
        self.folder = Path(tempfile.mkdtemp(prefix="caxton-kubernetes-"))
        certificate(self.folder)
        self.ca = self.folder / "ca.crt"
        self.asked = []
        self.answer = (200, scale(3))
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, self.headers.get("Authorization")))
                status, body = outer.answer
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.port = self.server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, self.folder / "key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.folder)
