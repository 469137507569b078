// timezone: what a moment is called in other time zones. A WASI command: it reads MCP's messages from standard input,
// one a line, and answers each request with a line on standard output.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // the zones are part of the program, since it has no files
)

const lineBytesMax = 8 << 20

const tools = `{"tools":[{"name":"timezone","description":"Says what time a moment is in other time zones.",
"inputSchema":{"type":"object","required":["time","zones"],"properties":{
"time":{"type":"string","description":"2026-11-21T15:04:05Z, or without an offset: 2026-11-21 15:04, which is read in the zone of from"},
"from":{"type":"string","default":"UTC","description":"The zone of a time without an offset, such as Europe/Zurich"},
"zones":{"type":"array","items":{"type":"string"},"minItems":1,"maxItems":50}}},
"annotations":{"readOnlyHint":true,"idempotentHint":true,"openWorldHint":false}}]}`

const server = `{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},
"serverInfo":{"name":"timezone","version":"0.1.0"}}`

type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name      string `json:"name"`
		Arguments struct {
			Time  string   `json:"time"`
			From  string   `json:"from"`
			Zones []string `json:"zones"`
		} `json:"arguments"`
	} `json:"params"`
}

type failure struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type response struct {
	Version string   `json:"jsonrpc"`
	ID      any      `json:"id"`
	Result  any      `json:"result,omitempty"`
	Error   *failure `json:"error,omitempty"`
}

type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type result struct {
	Content    []text `json:"content"`
	Structured any    `json:"structuredContent,omitempty"`
	IsError    bool   `json:"isError,omitempty"`
}

type reading struct {
	Zone         string `json:"zone"`
	Time         string `json:"time"`
	Abbreviation string `json:"abbreviation"`
	Weekday      string `json:"weekday"`
}

// moment reads a time with an offset, or one without in the zone that it is from.
func moment(written, from string) (time.Time, error) {
	if from == "" {
		from = "UTC"
	}
	zone, err := time.LoadLocation(from)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time zone", from)
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, written, zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2026-11-21T15:04:05Z or 2026-11-21 15:04", written)
}

func readings(at time.Time, zones []string) ([]reading, error) {
	all := make([]reading, 0, len(zones))
	for _, name := range zones {
		zone, err := time.LoadLocation(name)
		if err != nil || name == "" || name == "Local" {
			return nil, fmt.Errorf("%q is no time zone", name)
		}
		there := at.In(zone)
		abbreviation, _ := there.Zone()
		all = append(all, reading{name, there.Format(time.RFC3339), abbreviation, there.Weekday().String()})
	}
	return all, nil
}

// A call that cannot be answered is answered with isError, so that the model reads why.
func call(r request) result {
	at, err := moment(r.Params.Arguments.Time, r.Params.Arguments.From)
	var all []reading
	if err == nil {
		all, err = readings(at, r.Params.Arguments.Zones)
	}
	if err != nil {
		return result{Content: []text{{"text", err.Error()}}, IsError: true}
	}
	lines := make([]string, len(all))
	for i, there := range all {
		lines[i] = fmt.Sprintf("%s: %s, %s", there.Zone, there.Time, there.Weekday)
	}
	return result{Content: []text{{"text", strings.Join(lines, "\n")}}, Structured: map[string]any{"times": all}}
}

func answer(r request) response {
	switch {
	case r.Method == "initialize":
		return response{Result: json.RawMessage(server)}
	case r.Method == "tools/list":
		return response{Result: json.RawMessage(tools)}
	case r.Method == "tools/call" && r.Params.Name == "timezone":
		return response{Result: call(r)}
	case r.Method == "tools/call":
		return response{Error: &failure{-32602, "the only tool is `timezone`"}}
	default:
		return response{Error: &failure{-32601, "this server has `initialize`, `tools/list` and `tools/call`"}}
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 64<<10), lineBytesMax)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil || r.ID == nil {
			continue // a notification, or no message: neither is answered
		}
		said := answer(r)
		said.Version, said.ID = "2.0", r.ID
		if out.Encode(said) != nil {
			return
		}
	}
}
