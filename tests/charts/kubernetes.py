"""As much of a Kubernetes API server as Helm needs: it keeps objects in memory, and checks nothing.

It stands in for a cluster where the question is what the chart does at an upgrade with what an installation left. Whether
the objects are right is for the schemas to say, and what becomes of them for a real cluster.
"""

import http.server
import json
import threading
import urllib.parse

import yaml

RESOURCES = {
    "v1": ["ConfigMap", "Namespace", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["StatefulSet"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
}


def plural(kind):
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


def merge(old, new):
    for key, value in new.items():
        if value is None:
            old.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            merge(old[key], value)
        else:
            old[key] = value


class Kubernetes:
    """A server on a free port of this machine; use it as a context."""

    def __init__(self):
        self.objects = {}
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                status, answer = fake.answer(self.command, url.path, query, yaml.safe_load(body) if body else None)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                self.wfile.flush()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method, path, query, body):
        discovered = self.discover(path)
        if discovered:
            return 200, discovered
        *_, last = path.split("/")
        if last in {plural(kind) for kinds in RESOURCES.values() for kind in kinds} | {"pods"}:
            if method == "POST":
                path = f"{path}/{body['metadata']['name']}"
                if path in self.objects:
                    return 409, status(409, "AlreadyExists")
                return 201, self.keep(path, body)
            return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": self.list(path, query)}
        if method == "PATCH" and (path in self.objects or "fieldManager" in query):
            merge(self.objects.setdefault(path, {}), body)
            return 200, self.keep(path, self.objects[path])
        if method == "PUT":
            return 200, self.keep(path, body)
        if path not in self.objects:
            return 404, status(404, "NotFound")
        if method == "DELETE":
            return 200, self.objects.pop(path)
        return 200, self.objects[path]

    def keep(self, path, body):
        body["metadata"].setdefault("uid", path)
        body["metadata"]["resourceVersion"] = str(int(body["metadata"].get("resourceVersion", "0")) + 1)
        self.objects[path] = body
        return body

    def list(self, path, query):
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if "=" in part)
        of = [it for name, it in self.objects.items() if name.rsplit("/", 1)[0] == path]
        return [it for it in of if wanted.items() <= it["metadata"].get("labels", {}).items()]

    @staticmethod
    def discover(path):
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = [version for version in RESOURCES if "/" in version]
            group = lambda it: {"groupVersion": it, "version": it.split("/")[1]}
            groups = [{"name": it.split("/")[0], "versions": [group(it)], "preferredVersion": group(it)} for it in versions]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path == "/openapi/v3":
            where = lambda it: "apis/" + it if "/" in it else "api/" + it
            return {"paths": {where(it): {"serverRelativeURL": f"/openapi/v3/{where(it)}"} for it in RESOURCES}}
        version = path.removeprefix("/openapi/v3").removeprefix("/apis/").removeprefix("/api/")
        if path.startswith("/openapi/v3/") and version in RESOURCES:
            return described(version)
        if version in RESOURCES:
            one = lambda kind: {
                "name": plural(kind),
                "singularName": kind.lower(),
                "namespaced": kind != "Namespace",
                "kind": kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": version,
                "resources": [one(kind) for kind in RESOURCES[version]],
            }
        return None


def described(version):
    """Enough of the API's description to tell Helm that the server checks fields itself."""
    *group, name = version.split("/")
    operation = lambda kind: {
        "responses": {},
        "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
        "x-kubernetes-group-version-kind": {"group": "".join(group), "version": name, "kind": kind},
    }
    paths = {f"/{plural(kind)}/{{name}}": {"patch": operation(kind)} for kind in RESOURCES[version]}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.37.0"}, "paths": paths}


def status(code, reason):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
