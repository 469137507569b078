"""Qdrant's REST API as far as a memory backend uses it, over the local mode of Qdrant's own client.

No server of Qdrant can be had from a package index. What comes in and what goes out are the types that Qdrant generates from
its published OpenAPI description, so that what does not fit it fails here.

    qdrant_server.py PORT FOLDER KEY
"""

import json
import sys
import threading

from json_http import JsonHandler, serve
from pydantic import TypeAdapter, ValidationError
from qdrant_client import QdrantClient
from qdrant_client.http import models as rest

PORT, FOLDER, KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = QdrantClient(path=FOLDER, force_disable_check_same_thread=True)
alone = threading.Lock()


class Refused(Exception):
    def __init__(self, status, said):
        super().__init__(said)
        self.status = status


def shown(kind, value):
    """A value as JSON, once it is what the description says."""
    return TypeAdapter(kind).dump_python(TypeAdapter(kind).validate_python(value), mode="json", exclude_none=True)


def answer(method, collection, rest_of_path, body):
    if (method, rest_of_path) == ("PUT", ""):
        wanted = rest.CreateCollection.model_validate(body)
        return client.create_collection(
            collection, vectors_config=wanted.vectors, sparse_vectors_config=wanted.sparse_vectors
        )
    if not client.collection_exists(collection):
        raise Refused(404, f"Not found: Collection `{collection}` doesn't exist!")
    match (method, rest_of_path):
        case ("GET", ""):
            return shown(rest.CollectionInfo, client.get_collection(collection))
        case ("DELETE", ""):
            return client.delete_collection(collection)
        case ("PUT", "/index"):
            rest.CreateFieldIndex.model_validate(body)
            return shown(rest.UpdateResult, {"operation_id": 0, "status": "completed"})
        case ("PUT", "/points"):
            wanted = rest.PointsList.model_validate(body)
            done = client.upsert(collection, points=wanted.points, update_filter=wanted.update_filter)
            return shown(rest.UpdateResult, done)
        case ("POST", "/points/delete"):
            kind = rest.PointIdsList if "points" in body else rest.FilterSelector
            wanted = kind.model_validate(body)
            return shown(rest.UpdateResult, client.delete(collection, points_selector=wanted))
        case ("POST", "/points"):
            wanted = rest.PointRequest.model_validate(body)
            found = client.retrieve(
                collection, ids=wanted.ids, with_payload=wanted.with_payload, with_vectors=wanted.with_vector
            )
            return shown(list[rest.Record], found)
        case ("POST", "/points/scroll"):
            wanted = rest.ScrollRequest.model_validate(body)
            points, following = client.scroll(
                collection,
                scroll_filter=wanted.filter,
                limit=wanted.limit or 10,
                offset=wanted.offset,
                with_payload=wanted.with_payload,
                with_vectors=wanted.with_vector or False,
            )
            return shown(rest.ScrollResult, {"points": points, "next_page_offset": following})
        case ("POST", "/points/query"):
            wanted = rest.QueryRequest.model_validate(body)
            return shown(rest.QueryResponse, client.query_batch_points(collection, requests=[wanted])[0])
        case ("POST", "/points/query/batch"):
            wanted = rest.QueryRequestBatch.model_validate(body)
            return shown(list[rest.QueryResponse], client.query_batch_points(collection, requests=wanted.searches))
    raise Refused(404, f"no route {method} {rest_of_path}")


class Handler(JsonHandler):
    def answers(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            if self.headers.get("api-key") != KEY:
                raise Refused(401, "Must provide an API key or an Authorization bearer token")
            path = self.path.split("?")[0].removeprefix("/collections/")
            collection, _, rest_of_path = path.partition("/")
            rest_of_path = f"/{rest_of_path}" if rest_of_path else ""
            with alone:
                result = answer(self.command, collection, rest_of_path, json.loads(body) if body else None)
            self.say(200, {"result": result, "status": "ok", "time": 0.001})
        except Refused as refused:
            self.say(refused.status, {"status": {"error": str(refused)}, "time": 0.001})
        except (ValidationError, ValueError) as wrong:
            print(f"REFUSED {self.command} {self.path}: {wrong}", file=sys.stderr, flush=True)
            self.say(400, {"status": {"error": str(wrong)}, "time": 0.001})

    do_GET = do_PUT = do_POST = do_DELETE = answers


serve(PORT, Handler)
