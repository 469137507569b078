//! A map behind a group of the log, as etcd has one behind its own: what the log's puts go into.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;

use bytes::Bytes;
use caxton_raft::{Entry, FrozenState, Group, Machine, MachineError};
use tonic::{Request, Response, Status};

use crate::etcd::kv_server::Kv;
use crate::etcd::{PutRequest, PutResponse};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 16;
const KEYS_PER_CLIENT: u64 = 1000;

/// Values by their keys, and the index of the last command.
#[derive(Default)]
pub struct Map(Mutex<(HashMap<Bytes, Bytes>, u64)>);

impl Machine for Map {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        let mut map = self.0.lock().map_err(|_| MachineError::new("the map is of no use", "a put panicked"))?;
        for entry in entries {
            map.0.insert(entry.command.slice(..KEY_BYTES), entry.command.slice(KEY_BYTES..));
            map.1 = entry.index;
        }
        Ok(vec![Bytes::new(); entries.len()])
    }

    fn freeze(&self) -> Result<FrozenState, MachineError> {
        let map = self.0.lock().map_err(|_| MachineError::new("the map is of no use", "a put panicked"))?.0.clone();
        Ok(Box::new(move |out| {
            map.into_iter().try_for_each(|(key, value)| out.write_all(&key).and_then(|()| out.write_all(&value)))
        }))
    }

    fn restore(&self, _: &mut dyn Read) -> Result<(), MachineError> {
        Err(MachineError::new("each measurement has a store of its own", "this one was used before"))
    }

    fn applied(&self) -> u64 {
        self.0.lock().map_or(0, |map| map.1)
    }
}

/// The key of a client's `put`-th put: it has a thousand, in turn.
pub fn key(client: usize, put: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    key[..8].copy_from_slice(&(client as u64).to_be_bytes());
    key[8..].copy_from_slice(&(put % KEYS_PER_CLIENT).to_be_bytes());
    key
}

/// A group behind the part of etcd's protocol that puts need.
pub struct Front(pub Group);

#[tonic::async_trait]
impl Kv for Front {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value } = request.into_inner();
        let proposed = self.0.propose([key, value].concat().into()).await;
        proposed.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(PutResponse {}))
    }
}
