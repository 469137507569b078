"""ArcadeDB with its Bolt port: a real server of Neo4j's protocol and language.

    bolt_server.py BOLT_PORT HTTP_PORT FOLDER PASSWORD
"""

import sys
import threading

import arcadedb_embedded

bolt, http, folder, password = sys.argv[1:5]
server = arcadedb_embedded.create_server(
    folder,
    root_password=password,
    config={
        "host": "127.0.0.1",
        "http_port": int(http),
        "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
        "bolt_port": int(bolt),
    },
)
server.start()
server.create_database("memory")
print("ready", flush=True)
threading.Event().wait()
