//! Letting machines in: a token is checked, the member put into the list, and given what the cluster proves itself with.

use std::sync::Arc;

use coracle_api::{Reason, Status};
use coracle_engine::{MemberRecord, Wants};
use coracle_raft::MemberId;
use coracle_store::View;
use tokio::sync::Semaphore;

use super::{Admission, Application, token};
use crate::identity::Identity;
use crate::process::Process;

/// How many machines are looked at at a time: strangers can ask, too.
const APPLICATIONS_MAX: usize = 8;
/// How often a place in the list is tried to be had, where others join at the same time.
const TRIES: u32 = 20;
/// How many addresses a member tells of.
const ADDRESSES_MAX: usize = 16;
/// The longest address, which may be a name.
const ADDRESS_BYTES_MAX: usize = 300;

/// What lets others in.
#[derive(Debug)]
pub(crate) struct Gate {
    identity: Arc<Identity>,
    room: Semaphore,
}

impl Gate {
    /// The gate of a cluster with this identity.
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        Self { identity, room: Semaphore::new(APPLICATIONS_MAX) }
    }

    /// Lets a machine in, or says why not.
    pub(crate) async fn admit(&self, process: &Process, asked: &[u8]) -> Result<Admission, Status> {
        let busy = || Status::failure(429, Some(Reason::TooManyRequests), "too many machines join at once; try again");
        let _room = self.room.try_acquire().map_err(|_| busy())?;
        let asked: Application =
            serde_json::from_slice(asked).map_err(|error| Status::bad_request(error.to_string()))?;
        // What could not be a member does not use a token up.
        check(&asked)?;
        process.read().await?;
        token::spend(process, &asked.credential).await?;
        let record = list(process, &asked).await?;
        tracing::info!(member = record.id.0, name = record.name, "a machine joins the cluster");
        Ok(Admission {
            id: record.id,
            name: record.name,
            members: MemberRecord::all(&process.view()),
            identity: self.identity.files(),
        })
    }
}

fn check(asked: &Application) -> Result<(), Status> {
    let identity = asked.identity.len() == 64 && asked.identity.bytes().all(|byte| byte.is_ascii_hexdigit());
    let addresses = asked.addresses.len() <= ADDRESSES_MAX
        && asked.addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX);
    if !identity || !addresses {
        return Err(Status::bad_request("who joins must name its key and its addresses"));
    }
    if !coracle_api::selector::is_dns_subdomain(&asked.name) {
        return Err(Status::bad_request(format!("{:?} cannot be the name of a node", asked.name)));
    }
    Ok(())
}

/// Puts the machine into the list; one that asks again, because it did not hear the answer, has its place.
async fn list(process: &Process, asked: &Application) -> Result<MemberRecord, Status> {
    for _ in 0..TRIES {
        let view = process.view();
        let all = MemberRecord::all(&view);
        let again = |record: &&MemberRecord| record.identity == asked.identity && record.wants != Wants::Removed;
        if let Some(record) = all.iter().find(again) {
            return Ok(record.clone());
        }
        let id = MemberRecord::next_id(&view);
        let record = MemberRecord {
            id,
            name: free_name(&all, &asked.name, id),
            addresses: asked.addresses.clone(),
            wants: if asked.worker { Wants::Worker } else { Wants::Auto },
            identity: asked.identity.clone(),
        };
        let full = || Status::failure(403, Some(Reason::Forbidden), "the cluster has as many members as it can have");
        let transaction = record.create(&view).ok_or_else(full)?;
        if process.propose(transaction).await?.is_ok() {
            return Ok(record);
        }
        newer(process, &view).await;
    }
    Err(Status::failure(503, Some(Reason::ServiceUnavailable), "too many machines join at once; try again"))
}

/// Waits until somebody else's change is seen.
async fn newer(process: &Process, before: &View) {
    let mut views = process.views.clone();
    let seen = views.wait_for(|view| view.revision() > before.revision());
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), seen).await;
}

/// The name that is asked for; with the member's id where another has it, as when several share a machine.
fn free_name(members: &[MemberRecord], asked: &str, id: MemberId) -> String {
    let taken = |record: &MemberRecord| record.name == asked && record.wants != Wants::Removed;
    if members.iter().any(taken) { format!("{asked}-{}", id.0) } else { asked.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_share_a_machine_have_names_of_their_own() {
        let first = MemberRecord {
            id: MemberId(1),
            name: "laptop".into(),
            addresses: Vec::new(),
            wants: Wants::Auto,
            identity: String::new(),
        };
        assert_eq!(free_name(std::slice::from_ref(&first), "laptop", MemberId(2)), "laptop-2");
        assert_eq!(free_name(std::slice::from_ref(&first), "desk", MemberId(2)), "desk");
        let gone = MemberRecord { wants: Wants::Removed, ..first };
        assert_eq!(free_name(&[gone], "laptop", MemberId(2)), "laptop");
    }
}
