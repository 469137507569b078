//! The log's entries as bytes, on disk and between nodes.

use bytes::Bytes;
use openraft::EntryPayload;

use crate::codec::{self, Damage, Fields};
use crate::type_config::RaftEntry;
use crate::types::Batch;

const BLANK: u8 = 0;
const COMMANDS: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub fn put_entry(out: &mut Vec<u8>, entry: &RaftEntry) {
    codec::put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.push(BLANK),
        EntryPayload::Normal(Batch(commands)) => {
            out.reserve(5 + commands.iter().map(|command| 4 + command.len()).sum::<usize>());
            out.push(COMMANDS);
            out.extend((commands.len() as u32).to_le_bytes());
            commands.iter().for_each(|command| codec::put_bytes(out, command));
        }
        EntryPayload::Membership(membership) => {
            out.push(MEMBERSHIP);
            codec::put_membership(out, membership);
        }
    }
}

/// The entry under `key`. Its commands share one copy of the value.
pub fn entry(key: &[u8], value: &[u8]) -> Result<RaftEntry, Damage> {
    take_entry(codec::unseal(key, value)?)
}

/// The entry that some fields are. Its commands share one copy of them.
pub fn take_entry(mut fields: Fields) -> Result<RaftEntry, Damage> {
    let log_id = codec::take_log_id(&mut fields)?;
    let payload = match fields.u8()? {
        BLANK => EntryPayload::Blank,
        COMMANDS => {
            let whole = Bytes::copy_from_slice(fields.rest());
            let mut fields = Fields::of(&whole);
            let commands = (0..fields.u32()?).map(|_| fields.bytes().map(|command| whole.slice_ref(command)));
            let commands = commands.collect::<Result<_, _>>()?;
            fields.end()?;
            return Ok(RaftEntry { log_id, payload: EntryPayload::Normal(Batch(commands)) });
        }
        MEMBERSHIP => EntryPayload::Membership(codec::take_membership(&mut fields)?),
        _ => return Err(Damage::Shape),
    };
    fields.end()?;
    Ok(RaftEntry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::{BasicNode, CommittedLeaderId};

    use super::*;
    use crate::codec::seal;
    use crate::types::{LogId, Membership};

    fn entries() -> Vec<RaftEntry> {
        let log_id = |index| LogId::new(CommittedLeaderId::new(3, 0xfeed), index);
        let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::default()), (9, BasicNode::new("l"))]);
        let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
        let commands = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 300])];
        [
            EntryPayload::Blank,
            EntryPayload::Normal(Batch(commands)),
            EntryPayload::Membership(Membership::new(configs, nodes)),
        ]
        .into_iter()
        .zip(1..)
        .map(|(payload, index)| RaftEntry { log_id: log_id(index), payload })
        .collect()
    }

    #[test]
    fn entries_read_back_as_they_were_written() {
        for it in entries() {
            let value = seal(b"key", |out| put_entry(out, &it));
            assert_eq!(entry(b"key", &value), Ok(it));
        }
    }

    #[test]
    fn a_flipped_bit_and_another_key_and_a_missing_end_are_noticed() {
        for it in entries() {
            let value = seal(b"key", |out| put_entry(out, &it));
            assert_eq!(entry(b"kez", &value), Err(Damage::Checksum));
            for bit in 0..value.len() * 8 {
                let mut bad = value.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(entry(b"key", &bad), Err(Damage::Checksum), "bit {bit}");
            }
            for len in 0..value.len() {
                assert_eq!(entry(b"key", &value[..len]), Err(Damage::Checksum), "{len} bytes");
            }
        }
    }
}
