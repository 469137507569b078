// extract: what a regular expression finds in a text. One file, no dependency; `export const tools` is the interface
// `caxton:tool/tools` of the world.

const MATCHES_MAX = 1000;

const inputSchema = {
  type: "object",
  required: ["text", "pattern"],
  properties: {
    text: { type: "string" },
    pattern: { type: "string", description: "A regular expression as JavaScript has them; groups may be named: (?<year>\\d{4})" },
    ignore_case: { type: "boolean", default: false },
  },
};

const definition = {
  name: "extract",
  description: "Finds everything in a text that a regular expression describes, with its groups.",
  inputSchema: JSON.stringify(inputSchema),
  annotations: JSON.stringify({ readOnlyHint: true, idempotentHint: true, openWorldHint: false }),
};

function extract({ text, pattern, ignore_case = false }) {
  const expression = new RegExp(pattern, ignore_case ? "giu" : "gu");
  const matches = [];
  for (const found of text.matchAll(expression)) {
    if (matches.length === MATCHES_MAX) return { matches, more: true };
    const match = { text: found[0], at: found.index };
    if (found.length > 1) match.groups = found.groups ? { ...found.groups } : found.slice(1);
    matches.push(match);
  }
  return { matches, more: false };
}

function said(text, structured, isError = false) {
  return {
    content: [{ tag: "text", val: text }],
    structured: structured === undefined ? undefined : JSON.stringify(structured),
    isError,
  };
}

// An error that nobody expected reaches the caller with its message and its line, instead of as a crash.
function reported(call) {
  return (...given) => {
    try {
      return call(...given);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const place = String(error.stack ?? "").trim().split("\n")[0].trim();
      throw { tag: "failed", val: `${error.name}: ${error.message} (${place})` };
    }
  };
}

export const tools = {
  listTools: () => [definition],

  // What is thrown is the interface's `tool-error`.
  callTool: reported((name, args) => {
    if (name !== definition.name) throw { tag: "unknown-tool" };
    let request;
    try {
      request = JSON.parse(args);
    } catch (error) {
      throw { tag: "invalid-arguments", val: String(error) };
    }
    try {
      const found = extract(request);
      return said(found.matches.map((match) => match.text).join("\n"), found);
    } catch (error) {
      // Not a failed call but an answer: the model reads it and writes a better pattern.
      if (!(error instanceof SyntaxError)) throw error;
      return said(`the pattern is not a regular expression: ${error.message}`, undefined, true);
    }
  }),
};
