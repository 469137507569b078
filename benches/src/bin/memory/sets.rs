//! Public sets: what they hold, and what of it answers what they ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Documents, questions, and for each question which documents answer it.
pub struct Set {
    pub name: &'static str,
    pub documents: Vec<(String, String)>,
    pub questions: Vec<(String, BTreeSet<String>)>,
}

/// A dialogue: turns by id and session, and questions with the turns that answer them.
pub struct Dialogue {
    pub turns: Vec<(String, String)>,
    pub questions: Vec<(String, BTreeSet<String>)>,
}

/// The session of a turn's id: `D7` of `D7:12`.
pub fn session(turn: &str) -> &str {
    turn.split(':').next().unwrap_or(turn)
}

pub fn locomo(folder: &Path) -> Result<Vec<Dialogue>> {
    let text = fs::read_to_string(folder.join("conversations.json"))?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    all.iter().map(dialogue).collect()
}

fn dialogue(value: &Value) -> Result<Dialogue> {
    let conversation = value["conversation"].as_object().context("a conversation")?;
    let mut turns = Vec::new();
    for number in 1..=conversation.len() {
        let said = conversation.get(&format!("session_{number}")).and_then(Value::as_array);
        for turn in said.into_iter().flatten() {
            let field = |name: &str| turn[name].as_str().unwrap_or("");
            let mut text = format!("{}: {}", field("speaker"), field("text"));
            if !field("blip_caption").is_empty() {
                text = format!("{text} [{}]", field("blip_caption"));
            }
            turns.push((field("dia_id").to_owned(), text));
        }
    }
    let mut questions = Vec::new();
    for question in value["qa"].as_array().into_iter().flatten() {
        let evidence = question["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let ids = |text: &str| {
            text.split([' ', ';', ',']).filter(|id| id.contains(':')).map(str::to_owned).collect::<Vec<_>>()
        };
        let evidence: BTreeSet<String> = evidence.flat_map(ids).collect();
        if let (Some(text), false) = (question["question"].as_str(), evidence.is_empty()) {
            questions.push((text.to_owned(), evidence));
        }
    }
    Ok(Dialogue { turns, questions })
}

pub fn cranfield(folder: &Path) -> Result<Set> {
    let parts = |file: &str, wanted: &str| -> Result<Vec<(String, String)>> {
        let mut all: Vec<(String, String)> = Vec::new();
        let mut field = "";
        for line in fs::read_to_string(folder.join(file))?.lines() {
            match line.get(..2) {
                Some(".I") => all.push((line[2..].trim().to_owned(), String::new())),
                Some(mark @ (".T" | ".A" | ".B" | ".W")) if line.trim().len() == 2 => {
                    field = [".T", ".A", ".B", ".W"].into_iter().find(|known| *known == mark).unwrap_or("");
                }
                _ if field == wanted => {
                    if let Some((_, text)) = all.last_mut() {
                        text.push_str(line);
                        text.push(' ');
                    }
                }
                Some(_) | None => {}
            }
        }
        Ok(all)
    };
    let mut answers: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for line in fs::read_to_string(folder.join("cranqrel"))?.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if let [question, document, grade] = columns[..]
            && grade.parse::<i32>()? > 0
        {
            answers.entry(question.parse()?).or_default().insert(document.to_owned());
        }
    }
    let questions = parts("cran.qry", ".W")?.into_iter().enumerate();
    let answered = |(number, (_, text)): (usize, (String, String))| Some((text, answers.remove(&(number + 1))?));
    let questions = questions.filter_map(answered).collect();
    let documents = parts("cran.all.1400", ".W")?.into_iter().filter(|(_, text)| !text.trim().is_empty()).collect();
    Ok(Set { name: "Cranfield", documents, questions })
}

pub fn scifact(folder: &Path) -> Result<Set> {
    let mut documents = Vec::new();
    for row in csv(&fs::read_to_string(folder.join("corpus_train.csv"))?) {
        if let [id, title, sentences, ..] = &row[..]
            && id != "doc_id"
        {
            documents.push((id.clone(), format!("{title} {}", strings(sentences))));
        }
    }
    let mut claims: BTreeMap<String, String> = BTreeMap::new();
    for file in ["claims_train.csv", "claims_validation.csv", "claims_test.csv"] {
        for row in csv(&fs::read_to_string(folder.join(file))?) {
            if let [id, claim, ..] = &row[..] {
                claims.insert(id.clone(), claim.clone());
            }
        }
    }
    let mut answers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in fs::read_to_string(folder.join("beir_qrels_test.tsv"))?.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if let [claim, .., document, grade] = columns[..]
            && grade.parse::<i32>().is_ok_and(|grade| grade > 0)
        {
            answers.entry(claim.to_owned()).or_default().insert(document.to_owned());
        }
    }
    let questions = answers.into_iter().filter_map(|(id, documents)| Some((claims.get(&id)?.clone(), documents)));
    Ok(Set { name: "SciFact", documents, questions: questions.collect() })
}

/// Rows of comma-separated values, of which some are quoted.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            other => cell.push(other),
        }
    }
    rows
}

/// The texts of a list of quoted texts, one after the other.
fn strings(list: &str) -> String {
    let (mut text, mut open, mut escaped) = (String::new(), None, false);
    for character in list.chars() {
        match (open, character) {
            (None, quote @ ('\'' | '"')) => open = Some(quote),
            (None, _) => {}
            (Some(_), '\\') if !escaped => escaped = true,
            (Some(quote), character) if character == quote && !escaped => {
                open = None;
                text.push(' ');
            }
            (Some(_), character) => {
                escaped = false;
                text.push(character);
            }
        }
    }
    text
}
