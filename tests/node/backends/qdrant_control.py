"""What a collection has, as Qdrant's own client reads it over REST, and one point taken away or put in on demand.

    qdrant_control.py PORT KEY COLLECTION [spoil]
"""

import json
import sys
import uuid

from qdrant_client import QdrantClient
from qdrant_client.http import models as rest

port, key, collection = sys.argv[1:4]
client = QdrantClient(url=f"http://127.0.0.1:{port}", api_key=key, check_compatibility=False)
points, _ = client.scroll(collection, limit=1000, with_payload=True, with_vectors=True)
points = [point for point in points if "text" in point.payload]
if sys.argv[4:] == ["spoil"]:
    gone, kept = points[0], points[1]
    client.delete(collection, points_selector=rest.PointIdsList(points=[gone.id]))
    strange = rest.PointStruct(id=str(uuid.uuid4()), vector=kept.vector, payload={**kept.payload, "text": "a ghost"})
    client.upsert(collection, points=[strange])
    points = []
for point in points:
    # The official client finds by both vectors what was put in.
    found = client.query_points(collection, query=point.vector["meaning"], using="meaning", limit=1).points
    assert found[0].score > 0.999, found
    words = client.query_points(collection, query=point.vector["words"], using="words", limit=1000).points
    assert point.id in [it.id for it in words], words
said = [{"id": point.id.replace("-", ""), **point.payload} for point in points]
print(json.dumps(sorted(said, key=lambda it: it["id"])))
