//! `coracle recover`: make a cluster of one survivor, and say what could be missing.

use anyhow::{Result, bail};

use crate::args::Recover;
use crate::connection;
use crate::terminal::say;

pub(crate) fn run(recover: &Recover) -> Result<()> {
    if !recover.force_new_cluster {
        bail!("say --force-new-cluster when the other members are lost for good");
    }
    let directory = recover.data_dir.clone().map_or_else(connection::default_data_dir, Ok)?;
    let recovered = coracle::recover(&directory, recover.member)?;
    for unreadable in &recovered.unreadable {
        say(&format!("Not usable: {unreadable}"));
    }
    say(&format!(
        "Member {} goes on alone, with everything up to entry {} of term {}, made at {}.",
        recovered.member, recovered.index, recovered.term, recovered.time
    ));
    say(&format!(
        "It knew entry {} to be decided; what is behind that was kept, because some of it may have been answered.",
        recovered.commit
    ));
    say("What other members wrote later is lost. Do not start them again with the data that they have.");
    if let Some(aside) = &recovered.aside {
        say(&format!("The data of the other members lies in {}.", aside.display()));
    }
    say(&format!("Revisions begin at {}: clients list again.", recovered.revision));
    say(&format!("Start it: coracle up --data-dir {}", directory.display()));
    Ok(())
}
