//! Who made something on the Engine that nobody else will ever take over, and whether that process is still there.
//!
//! The containers of a cluster that keeps nothing are of use to the process that made them alone. An owner names that process so that another
//! one can tell for certain that it is gone: the machine, its boot, the process namespace, the process and when it began. Whatever
//! cannot be told for certain counts as living. It reads and removes nothing of the Engine's.

use std::fmt;
use std::fs;
use std::path::Path;

/// A process, for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// `/etc/machine-id`; empty where there is none.
    machine: String,
    /// The boot of the kernel.
    boot: String,
    /// The process namespace that the number is of.
    namespace: String,
    process: u32,
    /// When it began, in the kernel's ticks since the boot: numbers are used again, beginnings are not.
    began: u64,
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is there, or nobody here can tell.
    Living,
    /// Its process has ended.
    Ended,
    /// The machine was started anew since: what it made cannot run any more.
    BeforeBoot,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, boot, namespace, process, began } = self;
        write!(f, "{machine}/{boot}/{namespace}/{process}/{began}")
    }
}

impl Owner {
    /// This process; `None` where the system does not say enough of it.
    pub(crate) fn of_this_process() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// A process of this namespace.
    fn of(process: u32) -> Option<Self> {
        let machine = read("/etc/machine-id").unwrap_or_default();
        let boot = read("/proc/sys/kernel/random/boot_id").filter(|boot| !boot.is_empty())?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let namespace: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        Some(Self { machine, boot, namespace, process, began: began(process)? })
    }

    /// Reads what was written down of one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next();
        let (machine, boot, namespace) = (next()?, next()?, next()?);
        let (process, began) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let is_whole = next().is_none() && !boot.is_empty() && !namespace.is_empty();
        is_whole.then_some(Self { machine, boot, namespace, process, began })
    }

    /// Whether the process is still there.
    pub(crate) fn life(&self) -> Life {
        let Some(own) = Self::of_this_process() else { return Life::Living };
        self.life_seen_by(&own, sees_processes(), began)
    }

    /// The same, as `own` sees it: `began` says when a process began that is there.
    fn life_seen_by(&self, own: &Self, sees_processes: bool, began: impl Fn(u32) -> Option<u64>) -> Life {
        if self.boot != own.boot {
            let is_of_this_machine = !self.machine.is_empty() && self.machine == own.machine;
            return if is_of_this_machine { Life::BeforeBoot } else { Life::Living };
        }
        if self.namespace != own.namespace || !sees_processes || began(self.process) == Some(self.began) {
            Life::Living
        } else {
            Life::Ended
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether this process sees those of others: where they are hidden from it (`hidepid`), so is the first one.
fn sees_processes() -> bool {
    Path::new("/proc/1/stat").exists()
}

/// When a process began, if it is there.
fn began(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name is in parentheses and may have any; the beginning is the twentieth field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(text: &str) -> Owner {
        Owner::parse(text).unwrap()
    }

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        let own = Owner::of_this_process().unwrap();
        assert_eq!(Owner::parse(&own.to_string()), Some(own.clone()));
        assert_eq!(own.life(), Life::Living);
        for wrong in ["", "m/b/1/2", "m/b/1/2/3/4", "m//1/2/3", "m/b/1/x/3"] {
            assert_eq!(Owner::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_what_is_certainly_gone_counts_as_gone() {
        let own = owner("machine/boot/7/100/5000");
        let there = |process: u32| (process == 200).then_some(6000);
        let life = |text: &str| owner(text).life_seen_by(&own, true, there);
        assert_eq!(life("machine/boot/7/200/6000"), Life::Living);
        assert_eq!(life("machine/boot/7/201/6000"), Life::Ended);
        assert_eq!(life("machine/boot/7/200/5999"), Life::Ended, "its number is another's now");
        assert_eq!(life("machine/boot/8/201/6000"), Life::Living, "another namespace's processes are not seen");
        assert_eq!(life("machine/earlier/7/201/6000"), Life::BeforeBoot);
        assert_eq!(life("other/earlier/7/201/6000"), Life::Living, "another machine that uses the same Engine");
        assert_eq!(owner("/earlier/7/201/6000").life_seen_by(&owner("/boot/7/100/5000"), true, there), Life::Living);
        assert_eq!(owner("machine/boot/7/201/6000").life_seen_by(&own, false, there), Life::Living);
    }

    #[test]
    fn a_process_that_has_ended_is_gone_for_good() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let owner = Owner::of(child.id()).unwrap();
        assert_eq!(owner.life(), Life::Living);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(owner.life(), Life::Ended);
    }
}
