"""Neo4j's HTTP Query API (`POST /db/NAME/query/v2`) in front of a Bolt server, with Neo4j's own driver.

Requests and answers have the form that Neo4j documents; what a statement does, and what is wrong with it, says the server.

    query_api.py PORT BOLT_PORT PASSWORD
"""

import base64
import json
import sys

from json_http import JsonHandler, serve
from neo4j import GraphDatabase
from neo4j.exceptions import Neo4jError

PORT, BOLT, PASSWORD = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
driver = GraphDatabase.driver(f"bolt://127.0.0.1:{BOLT}", auth=("root", PASSWORD))
driver.verify_connectivity()
ACCOUNT = "Basic " + base64.b64encode(f"root:{PASSWORD}".encode()).decode()


class Handler(JsonHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        if self.headers.get("authorization") != ACCOUNT:
            code = "Neo.ClientError.Security.Unauthorized"
            return self.say(401, {"errors": [{"code": code, "message": "Invalid credential."}]})
        _, db, name, *rest = self.path.split("/")
        assert (db, rest) == ("db", ["query", "v2"]), self.path
        assert set(body) == {"statement", "parameters"}, body
        try:
            result = driver.execute_query(body["statement"], parameters_=body["parameters"], database_=name)
        except Neo4jError as error:
            print(f"REFUSED {body['statement']}: {error}", file=sys.stderr, flush=True)
            return self.say(400, {"errors": [{"code": error.code, "message": error.message}]})
        values = [list(record.values()) for record in result.records]
        self.say(202, {"data": {"fields": list(result.keys), "values": values}, "bookmarks": []})


serve(PORT, Handler)
