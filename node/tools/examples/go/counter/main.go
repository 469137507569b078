// counter: counts the messages of each sender, and tells the counts to whoever asks with query-ref. A WASI command: each
// message is a run of it, with the message as JSON on standard input and the agent's state in CAXTON_STATE. What it prints
// is what it sends and keeps.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

const (
	// The state's key for the counts: one for all, since a state has 256 keys and there may be more senders.
	countsKey = "counts"
	// Senders that are counted by their names. Those that come later are counted together.
	sendersMax = 1000
	others     = "others"
	// What the platform says, such as that the agent was deployed, is not counted.
	platform = "platform:"

	notUnderstood = 3
)

// addresses are receivers: one or a list of them.
type addresses []string

func (a *addresses) UnmarshalJSON(written []byte) error {
	var one string
	if json.Unmarshal(written, &one) == nil {
		*a = addresses{one}
		return nil
	}
	return json.Unmarshal(written, (*[]string)(a))
}

// message has the fields that this agent needs.
type message struct {
	Performative   string    `json:"performative"`
	Sender         string    `json:"sender,omitempty"`
	Receiver       addresses `json:"receiver,omitempty"`
	ReplyTo        addresses `json:"reply_to,omitempty"`
	Content        any       `json:"content,omitempty"`
	Protocol       string    `json:"protocol,omitempty"`
	ConversationID string    `json:"conversation_id,omitempty"`
	ReplyWith      string    `json:"reply_with,omitempty"`
	InReplyTo      string    `json:"in_reply_to,omitempty"`
}

type outcome struct {
	Messages []message         `json:"messages,omitempty"`
	State    map[string]string `json:"state,omitempty"`
}

type counts map[string]uint64

func (c counts) total() (all uint64) {
	for _, count := range c {
		all += count
	}
	return all
}

// add counts a message, and says as whose.
func (c counts) add(sender string) string {
	if _, known := c[sender]; !known && len(c) >= sendersMax {
		sender = others
	}
	c[sender]++
	return sender
}

// kept reads the counts from the state that the node gives.
func kept() (counts, error) {
	state := map[string]string{}
	if given := os.Getenv("CAXTON_STATE"); given != "" {
		if err := json.Unmarshal([]byte(given), &state); err != nil {
			return nil, fmt.Errorf("CAXTON_STATE: %w", err)
		}
	}
	c := counts{}
	if written, there := state[countsKey]; there {
		if err := json.Unmarshal([]byte(written), &c); err != nil {
			return nil, fmt.Errorf("the state's %q: %w", countsKey, err)
		}
	}
	return c, nil
}

func reply(to message, content any) message {
	receivers := to.ReplyTo
	if len(receivers) == 0 {
		receivers = addresses{to.Sender}
	}
	return message{Performative: "inform", Receiver: receivers, Content: content, Protocol: to.Protocol,
		ConversationID: to.ConversationID, InReplyTo: to.ReplyWith}
}

// handle says what becomes of a message.
func handle(m message, c counts) (outcome, error) {
	switch {
	case m.Sender == platform:
		return outcome{}, nil
	case m.Performative == "query-ref":
		return outcome{Messages: []message{reply(m, map[string]any{"total": c.total(), "senders": c})}}, nil
	}
	counted := c.add(m.Sender)
	written, err := json.Marshal(c)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{State: map[string]string{countsKey: string(written)}}
	if m.Performative == "request" {
		o.Messages = []message{reply(m, map[string]any{"sender": counted, "count": c[counted]})}
	}
	return o, nil
}

func run() error {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var m message
	if err := json.Unmarshal(input, &m); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(notUnderstood)
	}
	c, err := kept()
	if err != nil {
		return err
	}
	o, err := handle(m, c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}

// An error ends the run with a status, and the line that says why is in the node's log and in the reason of the dead letter
// that the message becomes after the last attempt.
func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}
