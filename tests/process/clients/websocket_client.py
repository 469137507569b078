"""Drives a node with the package `websockets`: an agent is asked, a conversation resumed, a mailbox followed."""

import asyncio
import json
import sys

import websockets

url, token = sys.argv[1:]
address = url.replace("http", "ws", 1) + "/api/v1/socket"


async def say(socket, **frame):
    await socket.send(json.dumps(frame))


async def hear(socket, kind, id=None):
    """The next frame, which has to be of this kind."""
    frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
    assert frame["type"] == kind and (id is None or frame["id"] == id), frame
    return frame


async def ask(socket, text):
    request = {"agent": "caller", "text": text, "conversation": "ws", "create": True}
    await say(socket, type="ask", id="a", workspace="demo", request=request)
    numbers = []
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if frame["type"] == "end":
            return numbers, last
        assert frame["type"] == "event", frame
        numbers.append(frame["number"])
        last = frame


async def main():
    # A browser cannot set a header: the token is in the first frame.
    async with websockets.connect(address) as socket:
        await say(socket, type="authenticate", token=token)
        assert (await hear(socket, "authenticated"))["role"] == "admin"
        numbers, last = await ask(socket, "How is it?")
        assert numbers == list(range(1, len(numbers) + 1)) and last["event"] == "answered", (numbers, last)
        assert last["data"]["text"] == "All is well.", last
        await ask(socket, "And now?")
    # A program can, and goes on after the last number that it saw.
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(address, additional_headers=headers) as socket:
        await hear(socket, "authenticated")
        await say(socket, type="subscribe", id="s", workspace="demo", to={"conversation": "ws"}, after=1)
        await hear(socket, "subscribed", "s")
        assert (await hear(socket, "event", "s"))["number"] == 2
        await say(socket, type="subscribe", id="box", workspace="demo", to="own_mailbox")
        await hear(socket, "subscribed", "box")
        message = {"performative": "request", "receiver": "caller", "content": "Well?", "reply_with": "ws-1"}
        await say(socket, type="send", id="m", workspace="demo", request={"message": message})
        frames = [json.loads(await asyncio.wait_for(socket.recv(), 60)) for _ in range(2)]
        kinds = {frame["type"]: frame for frame in frames}
        assert kinds["reply"]["id"] == "m", frames
        assert kinds["event"]["data"]["message"]["in_reply_to"] == "ws-1", frames
        await say(socket, type="subscribe", id="bad", workspace="No name", to="own_mailbox")
        assert (await hear(socket, "error", "bad"))["problem"]["code"] == "invalid_request"
    # With a bad token there is no connection.
    try:
        async with websockets.connect(address, additional_headers={"Authorization": "Bearer none"}):
            raise AssertionError("let in")
    except websockets.exceptions.InvalidStatus as refused:
        assert refused.response.status_code == 401, refused
    print("fine")


asyncio.run(main())
