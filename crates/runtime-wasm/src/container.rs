//! A container: an image with its environment, its account, and the one run that it gets.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use coracle_node::runtime::{ContainerId, Exit, LogStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi::I32Exit;

use crate::account::Account;
use crate::exit;
use crate::flow::{Flow, FromGuest, GuestIn};
use crate::guest::{Environment, Guest, Stdio, settle_last_fuel};
use crate::program::{Command, Linked, Program};
use crate::service;
use crate::shared::Shared;
use crate::slices::Sliced;
use crate::stdio::Log;
use crate::volume;

/// What was asked of a container; it only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// To run on.
    No,
    /// To finish what it does and end.
    Stop,
    /// To end now.
    Kill,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) environment: Environment,
    pub(crate) program: Arc<Program>,
    pub(crate) account: Arc<Account>,
    pub(crate) ports: Vec<u16>,
    pub(crate) termination_message: PathBuf,
    /// The standard input of its program, where it has one.
    pub(crate) input: Option<Input>,
    state: Mutex<State>,
    /// Becomes true when the run is over and told.
    over: watch::Sender<bool>,
}

/// A standard input that stays open for who attaches.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) flow: Flow,
    /// It ends with the first who attaches.
    pub(crate) once: bool,
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Ended(Exit),
}

impl Container {
    pub(crate) fn new(
        environment: Environment,
        program: Arc<Program>,
        account: Arc<Account>,
        ports: Vec<u16>,
        termination_message: PathBuf,
        input: Option<Input>,
    ) -> Self {
        Self {
            environment,
            program,
            account,
            ports,
            termination_message,
            input,
            state: Mutex::new(State::Created),
            over: watch::Sender::new(false),
        }
    }

    pub(crate) fn id(&self) -> &ContainerId {
        &self.environment.id
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Asks it to end; a weaker wish than an earlier one changes nothing.
    pub(crate) fn end(&self, ending: Ending) {
        self.environment.platform.ending.send_if_modified(|current| {
            let stronger = ending > *current;
            *current = ending.max(*current);
            stronger
        });
    }

    /// What ends it from outside: who asked to be told ends by itself, within the grace that the agent gives.
    pub(crate) fn ended_by(&self) -> Ending {
        if self.program.hears_termination { Ending::Kill } else { Ending::Stop }
    }

    /// Waits until its run is over, if it has one.
    pub(crate) async fn wait(&self) {
        if self.state() != State::Created {
            let _ = self.over.subscribe().wait_for(|over| *over).await;
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self.state() {
            State::Ended(exit) => Some(exit.code),
            State::Created | State::Running => None,
        }
    }

    pub(crate) fn finish(&self, exit: Exit) {
        self.environment.outputs.end();
        if let Some(input) = &self.input {
            // Nobody reads it any more.
            drop(FromGuest(input.flow.clone()));
        }
        self.set_state(State::Ended(exit));
        self.over.send_replace(true);
    }

    pub(crate) fn store(&self, shared: &Shared) -> wasmtime::Result<Store<Guest>> {
        self.environment.store(&self.program.flavor, &self.account, shared)
    }

    /// A store for the instance that is the container's program: it alone reads the input.
    fn own_store(&self, shared: &Shared) -> wasmtime::Result<Store<Guest>> {
        let Some(input) = &self.input else { return self.store(shared) };
        let stdin = GuestIn { flow: input.flow.clone(), terminal: false };
        let environment = Environment { stdio: Stdio::Open(stdin), ..self.environment.clone() };
        environment.store(&self.program.flavor, &self.account, shared)
    }

    pub(crate) fn stderr(&self, shared: &Shared) -> Log {
        Log::new(Arc::clone(&shared.host), self.id().clone(), LogStream::Stderr, Arc::clone(&self.environment.outputs))
    }
}

/// Waits until a container is asked for at least this; for ever when it is never asked.
pub(crate) async fn asked(container: &Container, at_least: Ending) -> Ending {
    let mut ending = container.environment.platform.ending.subscribe();
    let asked = ending.wait_for(|ending| *ending >= at_least).await.map(|ending| *ending);
    match asked {
        Ok(ending) => ending,
        // The sender is in the container, which is borrowed here.
        Err(_) => std::future::pending().await,
    }
}

/// Runs a container to its end. The permit is for its one instance, or for a service's start.
pub(crate) async fn run(shared: &Arc<Shared>, container: &Arc<Container>, permit: OwnedSemaphorePermit) -> Exit {
    let exit = match container.program.linked.clone() {
        Ok(Linked::Module(pre)) => command(shared, container, Entry::Module(pre), permit).await,
        Ok(Linked::Command(pre)) => command(shared, container, Entry::Command(pre), permit).await,
        Ok(Linked::Service { handler, start }) => {
            let started = if let Some(start) = start {
                command(shared, container, Entry::Command(start), permit).await
            } else {
                // Its requests have permits of their own.
                drop(permit);
                exit::code(0)
            };
            if started.code == 0 { service::serve(shared, container, handler).await } else { started }
        }
        Err(missing) => exit::failed(&missing),
    };
    let path = container.termination_message.clone();
    let left = tokio::task::spawn_blocking(move || volume::termination_message(&path)).await.ok().flatten();
    Exit { message: left.or(exit.message), ..exit }
}

/// Where an instance is entered.
pub(crate) enum Entry {
    Module(wasmtime::InstancePre<Guest>),
    Command(Command),
}

async fn command(shared: &Arc<Shared>, container: &Arc<Container>, entry: Entry, permit: OwnedSemaphorePermit) -> Exit {
    let store = match container.own_store(shared) {
        Ok(store) => store,
        Err(error) => return exit::failed(&format!("{error:#}")),
    };
    let guest = Sliced::new(enter(entry, store), Arc::clone(&container.account), shared.slicing.clone());
    let mut task = shared.guests.spawn(async move {
        let _permit = permit;
        guest.await
    });
    tokio::select! {
        biased;
        ended = &mut task => match ended {
            Ok(result) => {
                if let Err(error) = &result && exit::is_unexplained(error) {
                    container.stderr(shared).line(&exit::explanation(error));
                }
                exit::of(&result)
            }
            Err(error) => exit::failed(&format!("the runtime failed: {error}")),
        },
        ending = asked(container, container.ended_by()) => {
            // The guest goes at its next yield, which is at most a slice away.
            task.abort();
            let _ = task.await;
            if ending == Ending::Kill { exit::killed() } else { exit::terminated() }
        }
    }
}

/// Makes an instance and runs it to its end.
pub(crate) async fn enter(entry: Entry, mut store: Store<Guest>) -> wasmtime::Result<()> {
    let started = Instant::now();
    let result = call(entry, &mut store).await;
    settle_last_fuel(&store);
    tracing::debug!(elapsed = ?started.elapsed(), "guest ended");
    result
}

/// `wasi:cli/run` knows only success and failure.
fn ended(result: Result<(), ()>) -> wasmtime::Result<()> {
    result.map_err(|()| I32Exit(1).into())
}

async fn call(entry: Entry, store: &mut Store<Guest>) -> wasmtime::Result<()> {
    match entry {
        Entry::Module(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
            start.call_async(&mut *store, ()).await
        }
        Entry::Command(Command::Wasi2(pre)) => {
            let command = pre.instantiate_async(&mut *store).await?;
            ended(command.wasi_cli_run().call_run(&mut *store).await?)
        }
        Entry::Command(Command::Wasi3(pre)) => {
            let command = pre.instantiate_async(&mut *store).await?;
            let run = async |accessor: &Accessor<Guest>| command.wasi_cli_run().call_run(accessor).await;
            ended(store.run_concurrent(run).await??)
        }
    }
}
