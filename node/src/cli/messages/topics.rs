//! `caxton messages topics|subscribe|unsubscribe|publish|replay`.

use serde_json::{Map, Value};

use super::{Around, content, given, show};
use crate::api::mailbox::SendResponse;
use crate::api::paths;
use crate::api::topics::{
    PublicationInfo, PublicationPage, SubscribeRequest, SubscriptionChange, SubscriptionPage, TopicPage,
};
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, GOOD, Table, paint};
use crate::cli::{CliError, Context, stream, text};
use crate::client::Retry;

/// Things that are asked for at once.
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub struct Topics {
    /// Those who subscribed, in place of the topics.
    #[arg(long)]
    subscriptions: bool,
    /// Only the subscriptions of this agent, or of subject:NAME.
    #[arg(long, value_name = "WHOSE", requires = "subscriptions")]
    subscriber: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Subscribe {
    /// The topics, with wildcards or without.
    pattern: String,
    /// The subscription's name; one of this name is changed.
    #[arg(long)]
    name: Option<String>,
    /// Only messages of which this holds, such as content.amount>=100; several have to hold together.
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    /// Who receives: oneself unless told. An agent's name, or subject:NAME.
    #[arg(long, value_name = "WHOSE")]
    subscriber: Option<String>,
    /// The position after which it begins, 0 for all that is kept; without it one that is there goes on where it was.
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Unsubscribe {
    /// The subscription's name: its pattern, unless it was made with another one.
    name: String,
    /// Whose it is: one's own unless told. An agent's name, or subject:NAME.
    #[arg(long, value_name = "WHOSE")]
    subscriber: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Publish {
    /// Where: levels between slashes.
    topic: String,
    /// What it says; `-` is standard input.
    text: String,
    /// The text is JSON.
    #[arg(long)]
    content_json: bool,
    /// What it does.
    #[arg(long, short = 'p', default_value = "inform")]
    performative: String,
    #[command(flatten)]
    around: Around,
}

#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Which topics: every one unless told.
    pattern: Option<String>,
    /// Only messages of which this holds, such as content.amount>=100; several have to hold together.
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<String>,
    /// Begin after this position; without it with all that is kept, and with --follow with what comes from now on.
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// How many, at most 500.
    #[arg(long, short = 'n', default_value_t = 50, conflicts_with = "follow")]
    limit: u32,
    /// Go on with every message as it is published, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
}

/// Lists topics, or subscriptions.
pub fn list(context: &Context, remote: &Remote<'_>, args: Topics) -> Result<(), CliError> {
    if args.subscriptions { subscriptions(context, remote, args.subscriber) } else { topics(context, remote) }
}

fn topics(context: &Context, remote: &Remote<'_>) -> Result<(), CliError> {
    let mut all = TopicPage { topics: Vec::new(), next: None };
    loop {
        let query = given([("limit", Some(PAGE.to_string())), ("after", all.next.take())]);
        let path = paths::with_query(remote.path(paths::TOPICS), &query);
        let page: TopicPage = context.block_on(async { Ok(remote.client.get(&path).await?) })?;
        all.topics.extend(page.topics);
        match page.next {
            None => break,
            next => all.next = next,
        }
    }
    let out = &context.out;
    if all.topics.is_empty() {
        out.line("Nothing was published. Try: caxton messages publish TOPIC \"...\"")?;
    } else {
        let mut table = Table::new(["TOPIC", "KEPT", "FIRST", "LAST"]);
        for one in &all.topics {
            let numbers = [one.publications, one.first, one.last].map(|number| number.to_string());
            let [kept, first, last] = numbers;
            table.row([text::one_line(&one.topic), kept, first, last]);
        }
        out.table(table)?;
    }
    out.json(&all)
}

fn subscriptions(context: &Context, remote: &Remote<'_>, subscriber: Option<String>) -> Result<(), CliError> {
    let mut all = SubscriptionPage { subscriptions: Vec::new(), next: None };
    loop {
        let after = all.next.take().map(|after| after.to_string());
        let query = given([("limit", Some(PAGE.to_string())), ("subscriber", subscriber.clone()), ("after", after)]);
        let path = paths::with_query(remote.path(paths::SUBSCRIPTIONS), &query);
        let page: SubscriptionPage = context.block_on(async { Ok(remote.client.get(&path).await?) })?;
        all.subscriptions.extend(page.subscriptions);
        match page.next {
            None => break,
            next => all.next = next,
        }
    }
    let out = &context.out;
    if all.subscriptions.is_empty() {
        out.line("Nobody subscribed. Try: caxton messages subscribe '#'")?;
    } else {
        let mut table = Table::new(["NAME", "SUBSCRIBER", "PATTERN", "FILTER", "POSITION", "MISSED"]);
        for one in &all.subscriptions {
            let filter = if one.filter.is_empty() { "-".to_owned() } else { one.filter.join(" and ") };
            let words = [&one.name, &one.subscriber, &one.pattern, &filter].map(|word| text::one_line(word));
            table.row(words.into_iter().chain([one.position.to_string(), one.missed.to_string()]));
        }
        out.table(table)?;
    }
    out.json(&all)
}

pub fn subscribe(context: &Context, remote: &Remote<'_>, args: Subscribe) -> Result<(), CliError> {
    let Subscribe { pattern, name, filter, subscriber, after } = args;
    let request = SubscribeRequest { pattern, name, subscriber, filter, after };
    let path = remote.path(paths::SUBSCRIPTIONS);
    let done: SubscriptionChange =
        context.block_on(async { Ok(remote.client.post(&path, &request, Retry::Once).await?) })?;
    changed(context, &done)
}

/// Ends a subscription.
pub fn unsubscribe(context: &Context, remote: &Remote<'_>, args: Unsubscribe) -> Result<(), CliError> {
    let path = remote.path_of(paths::SUBSCRIPTION, &args.name);
    let path = paths::with_query(path, &given([("subscriber", args.subscriber)]));
    let done: SubscriptionChange = context.block_on(async { Ok(remote.client.delete(&path).await?) })?;
    changed(context, &done)
}

fn changed(context: &Context, done: &SubscriptionChange) -> Result<(), CliError> {
    let style = if done.change == "subscribed" { GOOD } else { BAD };
    let [change, subscriber, name] = [&done.change, &done.subscriber, &done.name].map(|word| text::one_line(word));
    let line = format!("{} {subscriber} as {name}, at position {}", paint(style, change), done.position);
    context.out.line(line)?;
    context.out.json(done)
}

/// Publishes a message.
pub fn publish(context: &Context, remote: &Remote<'_>, args: Publish) -> Result<(), CliError> {
    let mut request = Map::new();
    request.insert("topic".to_owned(), args.topic.into());
    request.insert("performative".to_owned(), args.performative.into());
    content(context, &mut request, args.text, args.content_json)?;
    args.around.add(&mut request);
    let (path, request) = (remote.path(paths::PUBLICATIONS), Value::Object(request));
    let sent: SendResponse = context.block_on(async { Ok(remote.client.post(&path, &request, Retry::Once).await?) })?;
    show::sent(context, &sent)
}

/// Shows or follows what was published.
pub fn replay(context: &Context, remote: &Remote<'_>, args: Replay) -> Result<(), CliError> {
    let filter = Some(args.filter.join("\n")).filter(|filter| !filter.is_empty());
    let path = |more: [(&'static str, Option<String>); 2]| {
        let mut query = given([("pattern", args.pattern.clone()), ("filter", filter.clone())]);
        query.extend(given(more));
        paths::with_query(remote.path(paths::PUBLICATIONS), &query)
    };
    if args.follow {
        let path =
            |after: Option<u64>| path([("follow", Some("true".to_owned())), ("after", after.map(|it| it.to_string()))]);
        let each = |event: &crate::llm::sse::Event| {
            // Of a newer server, if it cannot be read.
            let Ok(one) = serde_json::from_str::<PublicationInfo>(&event.data) else { return Ok(None) };
            if context.out.is_json() {
                context.out.raw(format_args!("{}\n", event.data))?;
            } else {
                context.out.line(line(&one))?;
            }
            Ok(Some(one.position))
        };
        return context.block_on(stream::follow(context, remote, args.after, path, each));
    }
    let path = path([("limit", Some(args.limit.to_string())), ("after", args.after.map(|it| it.to_string()))]);
    let page: PublicationPage = context.block_on(async { Ok(remote.client.get(&path).await?) })?;
    if page.missed > 0 {
        context.out.warn(format_args!("{} after that position are no longer kept", page.missed));
    }
    for one in &page.publications {
        context.out.line(line(one))?;
    }
    if page.more {
        context.out.note(paint(DIM, format!("there are more: --after {}", page.reached)));
    }
    context.out.json(&page)
}

fn line(one: &PublicationInfo) -> String {
    let said = match &one.message["content"] {
        Value::String(said) => text::one_line(said),
        Value::Null => String::new(),
        json => text::one_line(&json.to_string()),
    };
    let (topic, time) = (text::one_line(&one.topic), text::time(&one.time));
    let sender = text::one_line(one.message["sender"].as_str().unwrap_or("-"));
    format!(
        "{:>6} {} {} {said} {}",
        one.position,
        paint(DIM, time),
        paint(BOLD, topic),
        paint(DIM, format!("(from {sender})"))
    )
}
