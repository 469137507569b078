"""Sends a message with the client that openapi-python-client made of docs/openapi.json: its folder, BASE_URL and TOKEN are the
arguments."""

import sys

sys.path.insert(0, sys.argv[1])

from caxton_client import AuthenticatedClient
from caxton_client.api.messages import message, messages_list
from caxton_client.api.agents import agents_list
from caxton_client.models import Attachment, MessageAnswer, MessageRequest, Problem

client = AuthenticatedClient(base_url=sys.argv[2], token=sys.argv[3])
names = [agent.name for agent in agents_list.sync(workspace="demo", client=client).agents]
assert "data-analyzer" in names, names

sales = Attachment(name="sales.csv", media_type="text/csv", text="quarter,sales\nQ1,100\nQ2,120\n")
asked = MessageRequest(text="Draw a chart of sales by quarter", attachments=[sales])
answer = message.sync(workspace="demo", client=client, body=asked)
assert isinstance(answer, MessageAnswer), answer
assert answer.agent == "data-analyzer" and answer.text, answer
assert answer.attachments[0].name == "chart-generator.svg", answer.attachments
assert "<svg" in answer.attachments[0].text

listed = messages_list.sync(workspace="demo", client=client)
assert answer.conversation in [row.id for row in listed.conversations], listed

# A refusal is a problem, which says its code.
refused = message.sync_detailed(workspace="demo", client=client, body=MessageRequest(text="x", agent="nobody"))
assert refused.status_code == 404 and isinstance(refused.parsed, Problem) and refused.parsed.code == "not_found", refused

print("the generated client is content")
