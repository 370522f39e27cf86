//! The commands.

use anyhow::Result;

use crate::args::{Args, Command};

mod down;
mod image;
mod join;
mod keys;
mod kubeconfig;
mod logs;
mod members;
mod recover;
mod settings;
mod snapshot;
mod token;
mod up;
mod user;

pub(crate) async fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Up(up) => up::run(up).await,
        Command::Down(down) => down::run(down).await,
        Command::Image(image) => image::run(image.command).await,
        Command::Join(join) => join::run(join).await,
        Command::Keys(keys) => keys::run(keys.command),
        Command::Kubeconfig(kubeconfig) => kubeconfig::run(kubeconfig).await,
        Command::Logs(logs) => logs::run(logs).await,
        Command::Members(members) => members::run(members).await,
        Command::Recover(recover) => recover::run(&recover),
        Command::Settings(settings) => settings::run(settings).await,
        Command::Snapshot(snapshot) => snapshot::run(snapshot.command).await,
        Command::Token(token) => token::run(token.command).await,
        Command::User(user) => user::run(user.command).await,
    }
}
