"""Drives a node with grpcio: what the node says of itself by reflection is all that is known of its services."""

import sys
import threading
from urllib.parse import urlsplit

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

url, token = sys.argv[1:]
channel = grpc.insecure_channel(urlsplit(url).netloc)
metadata = [("authorization", f"Bearer {token}")]

# Reflection lists the services, and describes their methods and messages.
database = ProtoReflectionDescriptorDatabase(channel)
services = set(database.get_services())
for name in ["Messages", "Mailbox", "Conversations", "Deployments"]:
    assert f"caxton.v1.{name}" in services, services
assert "grpc.health.v1.Health" in services, services
pool = DescriptorPool(database)


def method(service, name):
    """A method of a service, and the class of its request."""
    described = pool.FindServiceByName(f"caxton.v1.{service}").methods_by_name[name]
    request, answer = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
    kind = channel.unary_stream if described.server_streaming else channel.unary_unary
    call = kind(
        f"/caxton.v1.{service}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=answer.FromString,
    )
    return call, request


# Health, for the whole node and for a service, without a token.
health = health_pb2_grpc.HealthStub(channel)
for service in ["", "caxton.v1.Messages"]:
    answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
watch.cancel()

# A refusal has a status, the code of docs/errors.md and what to do.
ask, AskRequest = method("Messages", "Ask")
try:
    ask(AskRequest(workspace="demo", agent="talker", text="x"), timeout=30)
    raise AssertionError("let in without a token")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    infos = [error_details_pb2.ErrorInfo() for _ in range(1)]
    assert any(detail.Unpack(infos[0]) for detail in status.details), status
    assert infos[0].reason == "UNAUTHORIZED" and "Bearer" in infos[0].metadata["help"], infos[0]

# A conversation that is followed while an agent is asked, step by step.
follow, FollowConversationRequest = method("Conversations", "FollowConversation")
heard = []


def listen():
    request = FollowConversationRequest(workspace="demo", conversation="grpc", wait=True)
    for event in follow(request, metadata=metadata, timeout=60):
        heard.append(event)
        if len(heard) == 2:
            return


listener = threading.Thread(target=listen)
listener.start()
stream, AskRequest = method("Messages", "AskStream")
for turn in range(2):
    question = AskRequest(workspace="demo", agent="caller", text="How is it?", conversation="grpc", create=True)
    steps = list(stream(question, metadata=metadata, timeout=60))
    assert [step.number for step in steps] == list(range(1, len(steps) + 1)), steps
    assert steps[0].WhichOneof("event") == "routed", steps
    assert steps[-1].WhichOneof("event") == "answer", steps
    assert steps[-1].answer.text == "All is well.", steps
listener.join(60)
assert [event.number for event in heard] == [1, 2], heard
assert all(event.turn.said[-1].text == "All is well." for event in heard), heard
rest = follow(
    FollowConversationRequest(workspace="demo", conversation="grpc", after=1), metadata=metadata, timeout=60
)
assert next(rest).number == 2
rest.cancel()

# A message is sent once, however often, and its answer comes to one's own mailbox.
send, SendRequest = method("Messages", "Send")
message = {"performative": "request", "receivers": ["caller"], "content": {"text": "Well?"}, "reply_with": "r1"}
sent = [send(SendRequest(workspace="demo", message=message, key="k"), metadata=metadata, timeout=30) for _ in range(2)]
assert [it.duplicate for it in sent] == [False, True] and sent[0].id == sent[1].id, sent
mailbox, FollowMailboxRequest = method("Mailbox", "FollowMailbox")
deliveries = mailbox(FollowMailboxRequest(workspace="demo"), metadata=metadata, timeout=60)
answer = next(deliveries)
assert answer.message.in_reply_to == "r1" and answer.message.content.text == "All is well.", answer
deliveries.cancel()
current, GetCurrentRequest = method("Deployments", "GetCurrent")
assert current(GetCurrentRequest(workspace="demo"), metadata=metadata, timeout=30).revision == 1
print("fine")
