"""router: passes each message on to the agent or the capability that fits what it says, and the answers back to its sender.

`componentize-py` makes a component of this module and of Python itself. The class `Handler` is the interface
`caxton:agent/handler` of the world `agent`; what it may raise besides is the interface's `error`.

A message that is passed on belongs to a conversation of its own; who waits for its answers is in the agent's state.
"""

import json
import re
from dataclasses import dataclass, replace

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log, mailbox, models, state
from wit_world.imports.types import (
    Body_Json,
    Body_Text,
    Content,
    Error_NotUnderstood,
    Error_Refused,
    Message,
)


@dataclass(frozen=True)
class Route:
    """To whom a message goes, and the words by which it is known."""

    to: str
    about: str
    words: frozenset[str]


# The route with the most words in a message has it; the first of those that have as many.
ROUTES = (
    Route("negotiator", "prices and stock of furniture", frozenset("price prices cost costs buy desk desks chair chairs".split())),
    Route("counter", "how many messages were sent, and by whom", frozenset("count counts many messages".split())),
    Route("capability:translation", "translations", frozenset("translate translation".split())),
)
# Messages whose answers are waited for. A state has 256 keys; each takes one.
WAITING_MAX = 200
ASKS = ("request", "query-if", "query-ref")
# What ends a request or a query; an `agree` does not.
ENDS = ("inform", "failure", "refuse", "not-understood")
# The state's keys: the number of the last message that was passed on, and who waits for the answer to one.
LAST = "last"
WAITS = "waits:"


def text_of(message: Message) -> str:
    """What a message says, as text; JSON is read as it is written."""
    match message.content:
        case Content(body=Body_Text(value=text) | Body_Json(value=text)):
            return text
        case _:
            raise Err(Error_NotUnderstood("this agent reads text and JSON, and this message has neither"))


def chosen(message: Message) -> Route:
    """The route whose words are in the message; where none are, the one that the agent's model names."""
    text = text_of(message)
    words = re.findall(r"\w+", text.lower())
    best = max(ROUTES, key=lambda route: sum(word in route.words for word in words))
    return best if best.words.intersection(words) else asked(text)


def asked(text: str) -> Route:
    """Asks the model of the agent's file, where it has one."""
    offers = "\n".join(f"{route.to}: {route.about}" for route in ROUTES)
    prompt = f"Who deals with this message? Answer with one of the names before a colon, or with `nobody`.\n\n{offers}\n\nThe message:\n{text}"
    try:
        answer = models.ask_model(models.Question("You sort messages.", prompt, 20))
    except Err as error:
        raise Err(Error_Refused(f"no word of it says who deals with it, and no model could be asked: {error.value}"))
    for route in ROUTES:
        if route.to in answer:
            return route
    raise Err(Error_Refused("nobody here deals with this"))


def pass_on(message: Message) -> list[Message]:
    """Sends a message on, and notes who waits for its answers."""
    route = chosen(message)
    number = int(state.get(LAST) or 0) + 1
    word = f"routed-{number}"
    onward = replace(
        message, receivers=[route.to], reply_to=[], conversation_id=None, reply_with=word, in_reply_to=None, extensions=[]
    )
    if message.performative not in ASKS:
        sent(replace(onward, reply_with=None, protocol=None))
        log.write(log.Level.INFO, f"{message.performative} of {message.sender} goes to {route.to}")
        return []
    waiting = {
        "to": message.reply_to or [message.sender],
        "conversation": message.conversation_id,
        "protocol": message.protocol,
        "word": message.reply_with,
        "number": number,
    }
    given_up = make_room()
    kept(LAST, str(number))
    kept(WAITS + word, json.dumps(waiting))
    sent(onward)
    log.write(log.Level.INFO, f"{message.performative} of {message.sender} goes to {route.to} as {word}")
    return given_up


def make_room() -> list[Message]:
    """Gives the oldest one up where too many answers are waited for, and tells whoever waits for it."""
    waiting = {key: json.loads(state.get(key) or "{}") for key in state.keys(WAITS)}
    if len(waiting) < WAITING_MAX:
        return []
    oldest = min(waiting, key=lambda key: waiting[key]["number"])
    state.delete(oldest)
    content = Content("text/plain", Body_Text("no answer came before too many others were waited for"))
    return [answer(waiting[oldest], "failure", content, None)]


def pass_back(message: Message) -> list[Message]:
    """Sends an answer to whoever waits for it."""
    key = WAITS + (message.in_reply_to or "")
    waiting = state.get(key)
    if waiting is None:
        log.write(log.Level.WARN, f"{message.performative} of {message.sender} answers nothing that was passed on")
        return []
    if message.performative in ENDS:
        state.delete(key)
    return [answer(json.loads(waiting), message.performative, message.content, message.sender)]


def answer(waiting: dict, performative: str, content: Content | None, sender: str | None) -> Message:
    return Message(
        performative=performative,
        sender=None,
        receivers=waiting["to"],
        reply_to=[],
        content=content,
        language=None,
        encoding=None,
        ontology=None,
        protocol=waiting["protocol"],
        conversation_id=waiting["conversation"],
        reply_with=None,
        in_reply_to=waiting["word"],
        reply_by=None,
        extensions=[("X-Answered-By", sender)] if sender else [],
    )


def sent(message: Message) -> None:
    """Sends a message; whoever cannot be reached is a reason to refuse."""
    try:
        mailbox.send(message)
    except Err as error:
        raise Err(Error_Refused(f"it cannot be passed on to {message.receivers[0]}: {error.value}"))


def kept(key: str, value: str) -> None:
    """Keeps something. A direct request, as `caxton ask` makes one, keeps nothing and so cannot be passed on."""
    try:
        state.set(key, value)
    except Err as error:
        raise Err(Error_Refused(f"{error.value}; send it as a message, with caxton messages send"))


class Handler(exports.Handler):
    # An exception that nobody expected ends the call: its message and its line are in the node's log and, after the last
    # attempt, the reason of the dead letter.
    def handle(self, message: Message) -> list[Message]:
        if message.in_reply_to is not None:
            return pass_back(message)
        if message.sender == "platform:":
            return []
        if message.performative in ASKS or message.performative == "inform":
            return pass_on(message)
        raise Err(Error_NotUnderstood(f"this agent takes {', '.join(ASKS)} and inform, not {message.performative}"))
