// negotiator: sells desks and chairs, and haggles over the price within bounds. One file, no dependency;
// `export const handler` is the interface `caxton:agent/handler` of the world `agent`.
//
// A call for proposals names the goods: {"item": "desk", "quantity": 2}. The bid follows from what was sold before, which
// is in the agent's state. A further call in the same conversation may have an `offer`: the bid comes down half-way to it,
// and never below the least that the goods are sold for. An accepted bid is a sale.

import log from "caxton:agent/log@0.1.0";
import state from "caxton:agent/state@0.1.0";

// For a piece: the price as long as nothing was sold, the least that it is sold for, and how many there are.
const GOODS = {
  desk: { price: 120, least: 90, stock: 10 },
  chair: { price: 40, least: 32, stock: 24 },
};
const DELIVERY = "within 3 days";
// An agent's state has 256 keys; each negotiation that is open takes one.
const OPEN_MAX = 200;

const soldOf = (item) => Number(state.get(`sold:${item}`) ?? 0);
const leftOf = (item) => GOODS[item].stock - soldOf(item);
// What is nearly sold out costs up to half as much again.
const priceOf = (item) => Math.round(GOODS[item].price * (1 + soldOf(item) / GOODS[item].stock / 2));
const bidKey = (conversation) => `bid:${conversation}`;

function json(message) {
  const body = message.content?.body;
  const value = body?.tag === "json" ? JSON.parse(body.val) : null;
  if (value === null) notUnderstood(`a ${message.performative} has JSON as its content, such as {"item": "desk"}`);
  return value;
}

// What is thrown is the interface's error.
function notUnderstood(why) {
  throw { tag: "not-understood", val: why };
}

// The goods that a message is about, checked.
function wanted(message) {
  const { item, quantity = 1, offer, cost } = json(message);
  if (!Object.hasOwn(GOODS, item)) throw { tag: "refused", val: `there is no ${item}; there are: ${Object.keys(GOODS).join(", ")}` };
  if (!Number.isInteger(quantity) || quantity < 1) notUnderstood("`quantity` is a whole number, at least 1");
  for (const amount of [offer, cost]) {
    if (amount !== undefined && !(Number.isFinite(amount) && amount >= 0)) notUnderstood("`offer` and `cost` are amounts of money");
  }
  if (quantity > leftOf(item)) throw { tag: "refused", val: `${quantity} of ${item} are wanted, and ${leftOf(item)} are left` };
  return { item, quantity, offer, cost };
}

// The first bid is the price. Each further one comes half-way to the offer, within the bounds.
function bid(message) {
  const conversation = message.conversationId ?? notUnderstood("a call for proposals belongs to a conversation");
  const { item, quantity, offer } = wanted(message);
  const before = JSON.parse(state.get(bidKey(conversation)) ?? "null");
  if (before === null && state.keys("bid:").length >= OPEN_MAX) {
    throw { tag: "refused", val: `${OPEN_MAX} negotiations are open already; call again later` };
  }
  const last = before?.item === item && before.quantity === quantity ? before.cost : priceOf(item) * quantity;
  const least = GOODS[item].least * quantity;
  const cost = offer === undefined ? last : Math.min(last, Math.max(least, Math.ceil((last + offer) / 2)));
  state.set(bidKey(conversation), JSON.stringify({ item, quantity, cost }));
  log.write("info", `bids ${cost} for ${quantity} ${item} in ${conversation}${offer === undefined ? "" : `, where ${offer} is offered`}`);
  return reply(message, "propose", { item, quantity, cost, deadline: DELIVERY });
}

// A bid was accepted: the goods go out of the stock, unless another customer had them first.
function sell(message) {
  const agreed = JSON.parse(state.get(bidKey(message.conversationId)) ?? "null");
  if (agreed === null) notUnderstood("nothing was bid in this conversation");
  state.delete(bidKey(message.conversationId));
  const { item, quantity, cost } = agreed;
  if (quantity > leftOf(item)) return reply(message, "failure", { reason: `only ${leftOf(item)} of ${item} are left` });
  state.set(`sold:${item}`, String(soldOf(item) + quantity));
  log.write("info", `sold ${quantity} ${item} for ${cost}, ${leftOf(item)} left`);
  return reply(message, "inform", { item, quantity, cost, left: leftOf(item) });
}

// Somebody else's proposal to buy is accepted from the least on.
function consider(message) {
  const { item, quantity, cost } = wanted(message);
  if (cost === undefined) notUnderstood("a proposal has a `cost`");
  const least = GOODS[item].least * quantity;
  if (cost < least) return reply(message, "reject-proposal", { reason: `${cost} is too little for ${quantity} ${item}` });
  state.set(`sold:${item}`, String(soldOf(item) + quantity));
  log.write("info", `sold ${quantity} ${item} for ${cost}, as proposed, ${leftOf(item)} left`);
  return reply(message, "accept-proposal", { item, quantity, cost, left: leftOf(item) });
}

function forget(message) {
  state.delete(bidKey(message.conversationId));
}

function listed(numbers) {
  return Object.fromEntries(Object.keys(GOODS).map((item) => [item, numbers(item)]));
}

const TAKES = {
  cfp: (message) => [bid(message)],
  "accept-proposal": (message) => [sell(message)],
  propose: (message) => [consider(message)],
  // In a contract net each proposer gets one answer, so that no bid is kept for ever.
  "reject-proposal": (message) => (forget(message), []),
  cancel: (message) => (forget(message), [reply(message, "inform", { cancelled: true })]),
  "query-ref": (message) => [reply(message, "inform", listed((item) => ({ price: priceOf(item), left: leftOf(item) })))],
  // Also what `caxton ask` sends, which has no state: the list prices are the same for everybody.
  request: (message) => [reply(message, "inform", listed((item) => GOODS[item].price))],
  // That it was deployed, for example.
  inform: () => [],
};

function reply(message, performative, content) {
  return {
    performative,
    receivers: message.replyTo.length > 0 ? message.replyTo : [message.sender],
    replyTo: [],
    content: { mediaType: "application/json", body: { tag: "json", val: JSON.stringify(content) } },
    protocol: message.protocol,
    conversationId: message.conversationId,
    inReplyTo: message.replyWith,
    extensions: [],
  };
}

// An exception that nobody expected ends the call: its message and its line are in the node's log and, after the last
// attempt, the reason of the dead letter.
export const handler = {
  handle(message) {
    if (!Object.hasOwn(TAKES, message.performative)) {
      notUnderstood(`this agent takes ${Object.keys(TAKES).join(", ")}, not ${message.performative}`);
    }
    return TAKES[message.performative](message);
  },
};
