"""What a graph has, as Neo4j's own driver reads it over Bolt, and one memory taken away and one put in on demand.

    bolt_control.py BOLT_PORT PASSWORD [spoil]
"""

import json
import sys

from neo4j import GraphDatabase

port, password = sys.argv[1:3]
driver = GraphDatabase.driver(f"bolt://127.0.0.1:{port}", auth=("root", password))


def rows(statement, **parameters):
    records, _, _ = driver.execute_query(statement, parameters_=parameters, database_="memory")
    return [record.data() for record in records]


if sys.argv[3:] == ["spoil"]:
    one = rows("MATCH (m:CaxtonMemory) RETURN m.key AS key, m.workspace AS workspace ORDER BY key LIMIT 1")[0]
    rows("MATCH (m:CaxtonMemory {key: $key}) DETACH DELETE m", key=one["key"])
    ghost = {"key": one["workspace"] + "/ghost", "id": "0" * 32, "workspace": one["workspace"], "text": "a ghost"}
    rows("CREATE (m:CaxtonMemory) SET m = $ghost", ghost={**ghost, "version": 0})
memories = rows("MATCH (m:CaxtonMemory) RETURN properties(m) AS m ORDER BY m.id")
edges = rows("MATCH (a:CaxtonEntity)-[r:RELATES]->(b:CaxtonEntity) RETURN a.name AS a, r.kind AS kind, b.name AS b")
about = rows("MATCH (m:CaxtonMemory)-[:ABOUT]->(e:CaxtonEntity) RETURN e.name AS name, m.id AS id")
print(json.dumps({"memories": [it["m"] for it in memories], "edges": edges, "about": about}))
