//! Votes, log ids and members as bytes, and how a value is sealed. Each value starts with a CRC-32 of its key and the rest, so that a flipped bit
//! or a value in another's place is noticed when it is read.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId, LeaderId};

use crate::types::{LogId, Membership, StoredMembership, Vote};

/// The version of every value.
const FORMAT: u8 = 1;

/// Stands where a node's id would: in a vote for nobody, and in the id of an entry, which its term tells apart. No node has it.
const NOBODY: u64 = u64::MAX;

/// Why a value is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is not what was written.
    #[error("its checksum does not match")]
    Checksum,
    /// A newer build wrote it.
    #[error("it was written in version {found} of the format, and this build reads {FORMAT}; use a newer build")]
    Version { found: u8 },
    /// The checksum matches, and yet it makes no sense.
    #[error("it has a shape that was never written")]
    Shape,
}

/// A value under `key`, made by `write`.
pub fn seal(key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut value = vec![0, 0, 0, 0, FORMAT];
    write(&mut value);
    let sum = checksum(key, &value[4..]);
    value[..4].copy_from_slice(&sum.to_le_bytes());
    value
}

/// What [`seal`] put in, once it has been checked.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<Fields<'a>, Damage> {
    let (sum, rest) = value.split_first_chunk::<4>().ok_or(Damage::Checksum)?;
    if u32::from_le_bytes(*sum) != checksum(key, rest) {
        return Err(Damage::Checksum);
    }
    match rest.split_first() {
        Some((&FORMAT, rest)) => Ok(Fields(rest)),
        Some((&found, _)) => Err(Damage::Version { found }),
        None => Err(Damage::Shape),
    }
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(rest);
    sum.finalize()
}

/// Takes fields off the front of a value.
#[derive(Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields in `bytes`, whose checksum the caller has compared.
    pub fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    pub fn u8(&mut self) -> Result<u8, Damage> {
        let (&first, rest) = self.0.split_first().ok_or(Damage::Shape)?;
        self.0 = rest;
        Ok(first)
    }

    pub fn u32(&mut self) -> Result<u32, Damage> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Damage::Shape)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*first))
    }

    pub fn u64(&mut self) -> Result<u64, Damage> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Damage::Shape)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*first))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let len = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(len).ok_or(Damage::Shape)?;
        self.0 = rest;
        Ok(first)
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing is left.
    pub fn end(self) -> Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err(Damage::Shape) }
    }
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // The group's limits keep every length far below 4 GiB.
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

pub fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.extend(id.leader_id.term.to_le_bytes());
    out.extend(NOBODY.to_le_bytes());
    out.extend(id.index.to_le_bytes());
}

pub fn take_log_id(fields: &mut Fields) -> Result<LogId, Damage> {
    let (term, leader) = (fields.u64()?, fields.u64()?);
    Ok(LogId::new(CommittedLeaderId::new(term, leader), fields.u64()?))
}

pub fn put_optional_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

pub fn take_optional_log_id(fields: &mut Fields) -> Result<Option<LogId>, Damage> {
    match fields.u8()? {
        0 => Ok(None),
        1 => take_log_id(fields).map(Some),
        _ => Err(Damage::Shape),
    }
}

pub fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.extend(vote.leader_id.term.to_le_bytes());
    out.extend(vote.leader_id.voted_for.unwrap_or(NOBODY).to_le_bytes());
    out.push(u8::from(vote.committed));
}

pub fn take_vote(mut fields: Fields) -> Result<Vote, Damage> {
    let vote = next_vote(&mut fields)?;
    fields.end()?;
    Ok(vote)
}

/// The vote at the front of some fields.
pub fn next_vote(fields: &mut Fields) -> Result<Vote, Damage> {
    let (term, node) = (fields.u64()?, fields.u64()?);
    let committed = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Damage::Shape),
    };
    let voted_for = (node != NOBODY).then_some(node);
    Ok(Vote { leader_id: LeaderId { term, voted_for }, committed })
}

pub fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.extend((configs.len() as u32).to_le_bytes());
    for config in configs {
        out.extend((config.len() as u32).to_le_bytes());
        config.iter().for_each(|node| out.extend(node.to_le_bytes()));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.extend((nodes.len() as u32).to_le_bytes());
    for (id, node) in nodes {
        out.extend(id.to_le_bytes());
        put_bytes(out, node.addr.as_bytes());
    }
}

pub fn take_membership(fields: &mut Fields) -> Result<Membership, Damage> {
    let mut configs = Vec::new();
    for _ in 0..fields.u32()? {
        let config = (0..fields.u32()?).map(|_| fields.u64());
        configs.push(config.collect::<Result<BTreeSet<u64>, _>>()?);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..fields.u32()? {
        let id = fields.u64()?;
        let addr = std::str::from_utf8(fields.bytes()?).map_err(|_| Damage::Shape)?;
        nodes.insert(id, BasicNode::new(addr));
    }
    Ok(Membership::new(configs, nodes))
}

pub fn put_stored_membership(out: &mut Vec<u8>, stored: &StoredMembership) {
    put_optional_log_id(out, stored.log_id().as_ref());
    put_membership(out, stored.membership());
}

pub fn take_stored_membership(fields: &mut Fields) -> Result<StoredMembership, Damage> {
    let log_id = take_optional_log_id(fields)?;
    Ok(StoredMembership::new(log_id, take_membership(fields)?))
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub fn take_text(fields: &mut Fields) -> Result<String, Damage> {
    String::from_utf8(fields.bytes()?.to_vec()).map_err(|_| Damage::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_named() {
        let mut value = seal(b"k", |_| ());
        value[4] = 2;
        let sum = checksum(b"k", &value[4..]);
        value[..4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(unseal(b"k", &value).err(), Some(Damage::Version { found: 2 }));
    }
}
