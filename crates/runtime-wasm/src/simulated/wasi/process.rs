//! Arguments, environment, clocks, randomness, waiting and the end.

use std::future::poll_fn;
use std::sync::{Arc, PoisonError};

use coracle_base::Instant;
use wasmtime::{Caller, Linker};
use wasmtime_wasi::I32Exit;

use super::{Answer, Errno, Guest, MODULE, Ram, call};
use crate::simulated::guest::Descriptor;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
/// The clocks' resolution, in nanoseconds: virtual time has every one of them.
const RESOLUTION: u64 = 1;
/// From here on exit codes are kept for signals.
const EXIT_CODES_END: u32 = 126;
/// The most that is waited for at one time.
const SUBSCRIPTIONS_MAX: u32 = 1_024;
/// Bytes of a subscription, and of an event.
const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: u32 = 32;
/// `subscription_clock_abstime`.
const ABSOLUTE: u32 = 1;

type G<'a> = Caller<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "args_sizes_get", |mut caller: G<'_>, count: u32, size: u32| -> Answer {
        call(&mut caller, |ram, guest| put_sizes(ram, &guest.args, count, size))
    })?;
    linker.func_wrap(MODULE, "args_get", |mut caller: G<'_>, list: u32, texts: u32| -> Answer {
        call(&mut caller, |ram, guest| put_texts(ram, &guest.args, list, texts))
    })?;
    linker.func_wrap(MODULE, "environ_sizes_get", |mut caller: G<'_>, count: u32, size: u32| -> Answer {
        call(&mut caller, |ram, guest| put_sizes(ram, &guest.env, count, size))
    })?;
    linker.func_wrap(MODULE, "environ_get", |mut caller: G<'_>, list: u32, texts: u32| -> Answer {
        call(&mut caller, |ram, guest| put_texts(ram, &guest.env, list, texts))
    })?;
    linker.func_wrap(MODULE, "clock_res_get", |mut caller: G<'_>, clock: u32, at: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            reading(guest, clock)?;
            ram.put_u64(at, RESOLUTION)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut caller: G<'_>, clock: u32, _precision: u64, at: u32| -> Answer {
            call(&mut caller, |ram, guest| ram.put_u64(at, reading(guest, clock)?))
        },
    )?;
    linker.func_wrap(MODULE, "random_get", |mut caller: G<'_>, at: u32, len: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            for piece in ram.bytes_mut(at, len)?.chunks_mut(8) {
                let drawn = guest.rng.next_u64().to_le_bytes();
                piece.copy_from_slice(&drawn[..piece.len()]);
            }
            Ok(())
        })
    })?;
    linker.func_wrap(MODULE, "proc_exit", |_: G<'_>, code: u32| -> wasmtime::Result<()> { Err(exit(code)) })?;
    linker.func_wrap_async(MODULE, "sched_yield", |caller: G<'_>, (): ()| {
        Box::new(async move {
            let left = caller.get_fuel()?;
            let guest = caller.data();
            guest.ledger().left(left);
            guest.ledger().wait(None);
            give_turn_away(guest).await;
            Ok(0_u32)
        })
    })?;
    linker.func_wrap_async(MODULE, "poll_oneoff", |caller: G<'_>, (from, to, count, done): (u32, u32, u32, u32)| {
        Box::new(poll(caller, from, to, count, done))
    })?;
    Ok(())
}

fn exit(code: u32) -> wasmtime::Error {
    if code >= EXIT_CODES_END {
        return wasmtime::Error::msg("exit with invalid exit status outside of [0..126)");
    }
    I32Exit(code.cast_signed()).into()
}

fn put_sizes(ram: &mut Ram<'_>, texts: &[String], count: u32, size: u32) -> Result<(), Errno> {
    ram.put_u32(count, texts.len() as u32)?;
    ram.put_u32(size, texts.iter().map(|text| text.len() as u32 + 1).sum())
}

fn put_texts(ram: &mut Ram<'_>, texts: &[String], list: u32, mut at: u32) -> Result<(), Errno> {
    for (index, text) in (0..).zip(texts) {
        let pointer = list.checked_add(4 * index).ok_or(Errno::FAULT)?;
        ram.put_u32(pointer, at)?;
        let ended: Vec<u8> = text.bytes().chain([0]).collect();
        ram.put(at, &ended)?;
        at = at.checked_add(ended.len() as u32).ok_or(Errno::FAULT)?;
    }
    Ok(())
}

/// A clock's reading in nanoseconds. Clocks of CPU time are not there, as in production.
fn reading(guest: &Guest, clock: u32) -> Result<u64, Errno> {
    let now = guest.ledger().now();
    match clock {
        REALTIME => Ok(u64::try_from(now.wall.as_nanos()).unwrap_or_default()),
        MONOTONIC => Ok(now.mono.as_nanos()),
        _ => Err(Errno::BADF),
    }
}

/// Ends the turn, and goes on when what the ledger says has come.
fn give_turn_away(guest: &Guest) -> impl Future<Output = ()> + Send + use<> {
    let ledger = Arc::clone(&guest.ledger);
    poll_fn(move |_| ledger.lock().unwrap_or_else(PoisonError::into_inner).poll())
}

/// Something that is waited for.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    userdata: u64,
    /// `clock`, `fd_read` or `fd_write`.
    kind: u8,
    when: When,
}

#[derive(Clone, Copy, Debug)]
enum When {
    /// At once, with this many bytes to be had, or with an error.
    Now(Result<u64, Errno>),
    At(Instant),
}

async fn poll(mut caller: G<'_>, from: u32, to: u32, count: u32, done: u32) -> Answer {
    let mut wanted = Vec::new();
    let failed = call(&mut caller, |ram, guest| {
        wanted = subscriptions(ram, guest, from, count)?;
        Ok(())
    })?;
    if failed != 0 {
        return Ok(failed);
    }
    let first = wanted.iter().map(|one| match one.when {
        When::Now(_) => Instant::ZERO,
        When::At(due) => due,
    });
    let first = first.min().unwrap_or(Instant::ZERO);
    let guest = caller.data();
    if first > guest.ledger().now().mono {
        guest.ledger().wait(Some(first));
        give_turn_away(guest).await;
    }
    call(&mut caller, |ram, guest| {
        let now = guest.ledger().now().mono;
        ram.bytes(to, count * EVENT_BYTES)?;
        let mut happened = 0;
        for one in &wanted {
            let outcome = match one.when {
                When::Now(outcome) => outcome,
                When::At(due) if due <= now => Ok(0),
                When::At(_) => continue,
            };
            put_event(ram, to + happened * EVENT_BYTES, one, outcome)?;
            happened += 1;
        }
        ram.put_u32(done, happened)
    })
}

fn subscriptions(ram: &Ram<'_>, guest: &Guest, from: u32, count: u32) -> Result<Vec<Subscription>, Errno> {
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Err(Errno::INVAL);
    }
    ram.bytes(from, count * SUBSCRIPTION_BYTES)?;
    (0..count).map(|index| subscription(ram, guest, from + index * SUBSCRIPTION_BYTES)).collect()
}

fn subscription(ram: &Ram<'_>, guest: &Guest, at: u32) -> Result<Subscription, Errno> {
    let (userdata, kind, what) = (ram.u64(at)?, ram.bytes(at + 8, 1)?[0], ram.u32(at + 16)?);
    let when = match kind {
        0 => {
            let (timeout, flags) = (ram.u64(at + 24)?, ram.u32(at + 40)? & 0xffff);
            let now = guest.ledger().now();
            let wait = match reading(guest, what) {
                Ok(reading) if flags & ABSOLUTE != 0 => Ok(timeout.saturating_sub(reading)),
                Ok(_) => Ok(timeout),
                Err(_) => Err(Errno::INVAL),
            }?;
            When::At(now.mono + std::time::Duration::from_nanos(wait))
        }
        1 | 2 => When::Now(readiness(guest, kind, what)),
        _ => return Err(Errno::INVAL),
    };
    Ok(Subscription { userdata, kind, when })
}

/// Files and standard streams are ready at any time; the input's end, too, is something to be read.
fn readiness(guest: &Guest, kind: u8, number: u32) -> Result<u64, Errno> {
    match (guest.descriptors.get(number)?, kind) {
        (Descriptor::Input, 1) => Ok(0),
        (Descriptor::File(open), 1) => Ok(open.file.len().saturating_sub(open.offset)),
        (Descriptor::Output(_), 2) | (Descriptor::File(_), _) => Ok(1),
        _ => Err(Errno::BADF),
    }
}

fn put_event(ram: &mut Ram<'_>, at: u32, one: &Subscription, outcome: Result<u64, Errno>) -> Result<(), Errno> {
    let mut event = [0; EVENT_BYTES as usize];
    event[..8].copy_from_slice(&one.userdata.to_le_bytes());
    event[8..10].copy_from_slice(&outcome.err().map_or(0, |errno| errno.0).to_le_bytes());
    event[10] = one.kind;
    event[16..24].copy_from_slice(&outcome.unwrap_or_default().to_le_bytes());
    ram.put(at, &event)
}
