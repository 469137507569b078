//! What a refusal teaches: which word of the request was not taken, and what to say instead.
//!
//! Pure, and careful: a lesson is only drawn where the refusal names what was sent, and it never changes what is asked.

use super::Dialect;
use caxton_proto::manifest::provider::{SystemStyle, TokensField};

/// What was learnt of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// The longest reply is called so.
    Tokens(TokensField),
    /// No longer reply may be asked for.
    TokensMax(u32),
    /// It does not stream.
    NoStream,
    /// It takes no `stream_options`.
    NoStreamUsage,
    /// It takes no tools.
    NoTools,
    /// Where instructions may stand.
    System(SystemStyle),
    /// Schemas have to be as OpenAI checks them.
    StrictSchemas,
    /// Names have to be as OpenAI checks them.
    StrictNames,
    /// It takes no temperature.
    NoTemperature,
    /// Ids have nine letters and digits.
    ShortIds,
    AlternateRoles,
    /// It does not take its own reasoning back.
    NoReasoning,
    /// It wants reasoning beside every call.
    FillReasoning,
    /// It wants a signature beside every call.
    FillSignature,
    /// It wants text, empty if need be, in every message.
    EmptyContent,
}

impl Lesson {
    /// Changes the dialect accordingly.
    pub fn apply(self, dialect: &mut Dialect) {
        match self {
            Lesson::Tokens(field) => dialect.tokens_field = field,
            Lesson::TokensMax(tokens) => dialect.tokens_max = Some(tokens),
            Lesson::NoStream => dialect.stream = false,
            Lesson::NoStreamUsage => dialect.stream_usage = false,
            Lesson::NoTools => dialect.tools = false,
            Lesson::System(style) => dialect.system = style,
            Lesson::StrictSchemas => dialect.strict_schemas = true,
            Lesson::StrictNames => dialect.strict_names = true,
            Lesson::NoTemperature => dialect.temperature = false,
            Lesson::ShortIds => dialect.short_ids = true,
            Lesson::AlternateRoles => dialect.alternate_roles = true,
            Lesson::NoReasoning => dialect.reasoning = false,
            Lesson::FillReasoning => dialect.fill_reasoning = true,
            Lesson::FillSignature => dialect.fill_signature = true,
            Lesson::EmptyContent => dialect.empty_content = true,
        }
    }
}

/// What the refused request had in it.
#[derive(Debug, Clone, Default)]
pub struct RequestFeatures {
    /// The longest reply that was asked for, and how that was called.
    pub tokens: Option<(TokensField, u32)>,
    /// It was to be streamed.
    pub stream: bool,
    pub stream_usage: bool,
    pub tools: bool,
    pub system: Option<SystemStyle>,
    /// With a temperature.
    pub temperature: bool,
    /// With what was kept of earlier replies.
    pub echo: bool,
    /// With calls of earlier replies.
    pub calls: bool,
}

/// The lesson of a refusal with this status, whose words (in lower case) are `text`; none where it is about something
/// else.
pub fn lesson(status: u16, text: &str, sent: &RequestFeatures) -> Option<Lesson> {
    let has = |words: &str| text.contains(words);
    let any = |all: &[&str]| all.iter().any(|words| text.contains(words));
    if !matches!(status, 400 | 404 | 405 | 406 | 413 | 415 | 422 | 500 | 501) {
        return None;
    }
    let refused = any(&REFUSED);
    // A node that fails says anything; only what is known to be said with 500 is believed.
    if matches!(status, 500 | 501) {
        return (sent.tools && has("tool") && any(&["--jinja", "not support", "unsupported"]))
            .then_some(Lesson::NoTools);
    }
    if let Some((field, tokens)) = sent.tokens
        && let Some(lesson) = tokens_lesson(text, field, tokens, refused)
    {
        return Some(lesson);
    }
    if sent.stream_usage && any(&["stream_options", "include_usage"]) {
        return Some(Lesson::NoStreamUsage);
    }
    let range = any(&["between", "less than or equal", "greater than", "range", "at most"]);
    if sent.temperature && has("temperature") && !range {
        return Some(Lesson::NoTemperature);
    }
    if any(&["tool_call_id", "tool call id", "tool_call.id", "toolcallid"])
        && any(&["length of 9", "length 9", "a-z, a-z, 0-9", "[a-za-z0-9]{9}"])
    {
        return Some(Lesson::ShortIds);
    }
    if let Some(lesson) = thought_lesson(text, sent, refused) {
        return Some(lesson);
    }
    if sent.tools
        && let Some(lesson) = tools_lesson(text)
    {
        return Some(lesson);
    }
    if has("alternat") {
        return Some(Lesson::AlternateRoles);
    }
    if let Some(style) = sent.system
        && has("system")
    {
        let place = any(&[
            "one system",
            "single system",
            "multiple system",
            "only one",
            "at the start",
            "at the beginning",
            "must be first",
            "must be the first",
            "first message",
        ]);
        if style == SystemStyle::Many && place {
            return Some(Lesson::System(SystemStyle::One));
        }
        if style != SystemStyle::User
            && any(&[
                "system role",
                "system message",
                "role system",
                "role 'system'",
                "role: system",
                "role \"system\"",
                "developer instruction",
                "system instruction",
            ])
            && refused
        {
            return Some(Lesson::System(SystemStyle::User));
        }
    }
    if sent.calls
        && has("content")
        && any(&["null", "none is not", "nonetype", "expected a string", "valid string", "should be a string"])
    {
        return Some(Lesson::EmptyContent);
    }
    if sent.stream && has("stream") && refused && !has("stream_options") {
        return Some(Lesson::NoStream);
    }
    None
}

/// Words for "not taken".
const REFUSED: [&str; 22] = [
    "not support",
    "n't support",
    "unsupported",
    "not taken",
    "not take",
    "takes no",
    "not allowed",
    "not permitted",
    "not accepted",
    "not accept",
    "not recognized",
    "unrecognized",
    "unknown",
    "unexpected",
    "not enabled",
    "not available",
    "not valid",
    "invalid",
    "deprecated",
    "extra_forbidden",
    "extra inputs",
    "cannot be used",
];

fn tokens_lesson(text: &str, field: TokensField, tokens: u32, refused: bool) -> Option<Lesson> {
    let names_new = text.contains("max_completion_tokens");
    let names_old = text.replace("max_completion_tokens", "").contains("max_tokens");
    // A smaller number beside the name is the most that it writes.
    let about = names_new
        || names_old
        || ["completion tokens", "output tokens", "maximum tokens"].iter().any(|words| text.contains(words));
    if about && let Some(most) = largest_below(text, tokens) {
        return Some(Lesson::TokensMax(most));
    }
    match field {
        TokensField::MaxTokens if names_new => Some(Lesson::Tokens(TokensField::MaxCompletionTokens)),
        TokensField::MaxCompletionTokens if names_new && (refused || names_old) => {
            Some(Lesson::Tokens(TokensField::MaxTokens))
        }
        _ => None,
    }
}

/// The largest whole number in `text` that is less than `tokens` and could be the longest reply of a model, provided that
/// the text names `tokens` too, or says that it is too much.
fn largest_below(text: &str, tokens: u32) -> Option<u32> {
    let plain = text.replace(',', "");
    let numbers = plain.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
    let numbers: Vec<u32> = numbers.collect();
    let says = numbers.contains(&tokens)
        || ["too large", "at most", "maximum", "less than or equal", "exceed", "over the"]
            .iter()
            .any(|words| plain.contains(words));
    if !says {
        return None;
    }
    numbers.into_iter().filter(|number| (256..tokens).contains(number)).max()
}

/// What is said of reasoning and signatures.
fn thought_lesson(text: &str, sent: &RequestFeatures, refused: bool) -> Option<Lesson> {
    let lacks = ["missing", "lack", "must", "require", "need", "expected"].iter().any(|words| text.contains(words));
    if text.contains("thought_signature") && lacks && sent.calls {
        return Some(Lesson::FillSignature);
    }
    let fields = [
        "reasoning_content",
        "reasoning_details",
        "thinking_blocks",
        "extra_content",
        "provider_specific_fields",
        "reasoning",
    ];
    if !fields.iter().any(|field| text.contains(field)) {
        return None;
    }
    if sent.echo && refused {
        return Some(Lesson::NoReasoning);
    }
    (lacks && sent.calls).then_some(Lesson::FillReasoning)
}

/// What is said of tools: how one of them is written, or that there are any.
fn tools_lesson(text: &str) -> Option<Lesson> {
    let any = |all: &[&str]| all.iter().any(|words| text.contains(words));
    let about = any(&["tool", "function"]);
    if !about {
        return None;
    }
    if any(&["schema", "properties", "oneof", "anyof", "allof", "parameters", "items"]) {
        return Some(Lesson::StrictSchemas);
    }
    if any(&["pattern", "a-za-z0-9_-", "name"])
        && any(&["function name", "tools", "functions", "string does not match"])
        && !any(&["does not support tools", "not support tool"])
    {
        return Some(Lesson::StrictNames);
    }
    let none = [
        "no tools",
        "not support tool",
        "n't support tool",
        "not support function",
        "support tool use",
        "tools are not",
        "tools is not",
        "tool use is not",
        "tool calling is not",
        "tool calls are not",
        "function calling is not",
        "not support the tools",
        "without tools",
        "unsupported parameter: 'tools'",
        "unsupported parameter: tools",
        "'tools' is unsupported",
        "unrecognized request argument supplied: tools",
        "body.tools",
        "(param: tools)",
        "--enable-auto-tool-choice",
        "--jinja",
        "tools not supported",
        "tool_choice",
        "tools param",
    ];
    any(&none).then_some(Lesson::NoTools)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> RequestFeatures {
        RequestFeatures {
            tokens: Some((TokensField::MaxTokens, 100_000)),
            stream: true,
            stream_usage: true,
            tools: true,
            system: Some(SystemStyle::Many),
            temperature: true,
            echo: true,
            calls: true,
        }
    }

    #[test]
    fn refusals_are_understood() {
        let new = Lesson::Tokens(TokensField::MaxCompletionTokens);
        for (status, text, expected) in [
            (400, "max_tokens is not taken by this model, send max_completion_tokens", new),
            (
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                new,
            ),
            (
                400,
                "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
                Lesson::TokensMax(16_384),
            ),
            (400, "max_tokens 100000 is over the 16384 that this model writes", Lesson::TokensMax(16_384)),
            (
                400,
                "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for m",
                Lesson::TokensMax(8_192),
            ),
            (400, "Unrecognized request argument supplied: stream_options", Lesson::NoStreamUsage),
            (
                422,
                r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#,
                Lesson::NoStreamUsage,
            ),
            (
                400,
                "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
                Lesson::NoTemperature,
            ),
            (400, "`temperature` is deprecated for this model.", Lesson::NoTemperature),
            (400, "this model takes no tools", Lesson::NoTools),
            (400, "registry.ollama.ai/library/gemma:2b does not support tools", Lesson::NoTools),
            (404, "No endpoints found that support tool use. Try disabling \"x\".", Lesson::NoTools),
            (
                400,
                "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
                Lesson::NoTools,
            ),
            (500, "tools param requires --jinja flag", Lesson::NoTools),
            (400, "only one system message, and only at the start", Lesson::System(SystemStyle::One)),
            (400, "System role not supported", Lesson::System(SystemStyle::User)),
            (400, "Conversation roles must alternate user/assistant/user/assistant/...", Lesson::AlternateRoles),
            (400, "Tool call id was call_1_0 but must be a-z, A-Z, 0-9, with a length of 9.", Lesson::ShortIds),
            (
                400,
                "Invalid schema for function 'look': schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level.",
                Lesson::StrictSchemas,
            ),
            (
                400,
                "Invalid 'tools[0].function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
                Lesson::StrictNames,
            ),
            (400, "property 'messages.2.reasoning' is unsupported", Lesson::NoReasoning),
            (400, "Function call is missing a thought_signature in functionCall parts.", Lesson::FillSignature),
            (400, "messages.2.content: none is not an allowed value; expected a string", Lesson::EmptyContent),
            (400, "stream is not supported for this model", Lesson::NoStream),
        ] {
            assert_eq!(lesson(status, &text.to_lowercase(), &everything()), Some(expected), "{text}");
        }
        let without = RequestFeatures { echo: false, ..everything() };
        let text = "missing `reasoning_content` field in the assistant message";
        assert_eq!(lesson(400, text, &without), Some(Lesson::FillReasoning));
    }

    #[test]
    fn what_is_not_about_the_dialect_teaches_nothing() {
        for (status, text) in [
            (400, "no such model"),
            (400, "this model's maximum context length is 8192 tokens, however you requested 9000 tokens"),
            (401, "max_tokens: use max_completion_tokens"),
            (429, "this model takes no tools"),
            (500, "internal error in stream_options"),
            (400, "temperature must be between 0 and 1"),
            (400, "your request was flagged by the content policy"),
        ] {
            assert_eq!(lesson(status, text, &everything()), None, "{text}");
        }
        // Nor what names something that was not sent.
        for text in
            ["use max_completion_tokens", "stream_options", "temperature is unsupported", "this model takes no tools"]
        {
            assert_eq!(lesson(400, text, &RequestFeatures::default()), None, "{text}");
        }
    }
}
