//! One member of three that hears what the other two would never say, or say twice, or too late.

use bytes::Bytes;
use coracle_base::wire::{Reader, Writer};
use coracle_base::{Now, Rng};
use coracle_raft::{Config, Input, Member, MemberId, Message, Output, ProposalId};
use std::time::Duration;

/// What can happen to it, a byte each.
const TICK: u8 = 0;
const PERSISTED: u8 = 1;
const PROPOSE: u8 = 2;

fn member(id: u64) -> Member {
    let voters = vec![MemberId(1), MemberId(2), MemberId(3)];
    let config = Config { voters, ..Config::single(MemberId(id)) };
    Member::new(Now::default(), config, None, Rng::seeded(id))
}

/// The bytes are steps: a tick, what was written is durable, a proposal, or a message of member 2 or 3.
pub fn run(bytes: &[u8]) {
    let mut member = member(1);
    let mut now = Now::default();
    let mut written = None;
    let r = &mut Reader::new(bytes);
    while let Ok(step) = r.byte() {
        let input = match step {
            TICK => {
                now = now.after(Duration::from_millis(50));
                Input::Tick
            }
            PERSISTED => match written {
                Some(id) => Input::Persisted(id),
                None => continue,
            },
            PROPOSE => Input::Propose(ProposalId(1), Bytes::from_static(b"x")),
            other => match r.bytes().map(Message::decode) {
                Ok(Ok(message)) => Input::Message(MemberId(2 + u64::from(other % 2)), message),
                _ => return,
            },
        };
        for output in member.step(now, input) {
            if let Output::Persist(id, _) = output {
                written = Some(id);
            }
        }
    }
}

/// What three members say to each other until one leads and something is written.
pub(crate) fn messages() -> Vec<Message> {
    talk().0
}

/// That talk, and what member 1 hears in it, as steps.
fn talk() -> (Vec<Message>, Vec<u8>) {
    let mut members = [member(1), member(2), member(3)];
    let (mut said, mut steps) = (Vec::new(), Writer::default());
    let mut waiting: Vec<(usize, MemberId, Message)> = Vec::new();
    let mut now = Now::default();
    for round in 0..200 {
        now = now.after(Duration::from_millis(50));
        let mut inputs: Vec<(usize, Input)> = (0..3).map(|member| (member, Input::Tick)).collect();
        steps.byte(TICK);
        if round == 100 {
            for member in 0..3 {
                inputs.push((member, Input::Propose(ProposalId(1), Bytes::from_static(b"x"))));
            }
        }
        for (to, from, message) in waiting.drain(..) {
            if to == 0 {
                steps.byte(4 + (from.0 % 2) as u8);
                steps.bytes(&message.encode());
            }
            inputs.push((to, Input::Message(from, message)));
        }
        while let Some((at, input)) = inputs.pop() {
            for output in members[at].step(now, input) {
                match output {
                    Output::Persist(id, _) => {
                        if at == 0 {
                            steps.byte(PERSISTED);
                        }
                        inputs.push((at, Input::Persisted(id)));
                    }
                    Output::Send { to, message, .. } => {
                        said.push(message.clone());
                        waiting.push(((to.0 - 1) as usize, MemberId(at as u64 + 1), message));
                    }
                    _ => {}
                }
            }
        }
    }
    said.truncate(100);
    (said, steps.finish())
}

/// The talk as it was, and its beginning.
pub fn seeds() -> Vec<Vec<u8>> {
    let (_, steps) = talk();
    let half = steps.len() / 2;
    vec![steps[..half].to_vec(), steps]
}
