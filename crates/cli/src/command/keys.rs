//! `coracle keys`: the key that a cluster's data is sealed with.

use anyhow::Result;

use crate::args::KeysCommand;
use crate::connection;
use crate::terminal::say;

pub(crate) fn run(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Rotate { data_dir } => {
            let directory = data_dir.map_or_else(connection::default_data_dir, Ok)?;
            coracle::rotate_keys(&directory)?;
            say(&format!("The data in {} is sealed with a new key.", directory.display()));
            Ok(())
        }
    }
}
