//! What the log carries. The log has checksums of its own, so an entry has none.

use bytes::Bytes;
use coracle_base::Timestamp;

use super::{Damage, ReadKeys, Reader, WriteKeys, Writer, error};
use crate::{CodecError, Entry, Pool, Precondition, Render, Settlement, Transaction, Want, Write};

const FORMAT: u8 = 1;

pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut w = Writer::default();
    w.byte(FORMAT);
    w.signed(entry.time.as_nanos());
    w.list(&entry.transactions, write_transaction);
    w.finish().into()
}

pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    read_entry(&mut Reader::new(bytes)).map_err(error("entry"))
}

/// Whether an entry's version is one that can be read.
pub(crate) fn check_entry_version(bytes: &[u8]) -> Result<(), CodecError> {
    Reader::new(bytes).version(FORMAT).map_err(error("entry"))
}

fn read_entry(r: &mut Reader<'_>) -> Result<Entry, Damage> {
    r.version(FORMAT)?;
    let time = Timestamp::from_nanos(r.signed()?);
    let transactions = r.list(read_transaction)?;
    r.finish()?;
    Ok(Entry { time, transactions })
}

fn write_transaction(w: &mut Writer, transaction: &Transaction) {
    w.option(transaction.term, Writer::number);
    w.list(&transaction.preconditions, |w, precondition| match precondition {
        Precondition::Absent(key) => {
            w.byte(0);
            w.key(key);
        }
        Precondition::At(key, revision) => {
            w.byte(1);
            w.key(key);
            w.number(revision.0);
        }
    });
    w.list(&transaction.writes, |w, write| match write {
        Write::Put { key, body, attributes } => {
            w.byte(0);
            w.key(key);
            w.bytes(body);
            w.attributes(attributes);
        }
        Write::Delete { key } => {
            w.byte(1);
            w.key(key);
        }
    });
    w.list(&transaction.settlements, write_settlement);
}

fn read_transaction(r: &mut Reader<'_>) -> Result<Transaction, Damage> {
    Ok(Transaction {
        term: r.option(Reader::number)?,
        preconditions: r.list(|r| match r.byte()? {
            0 => r.key().map(Precondition::Absent),
            1 => Ok(Precondition::At(r.key()?, r.revision()?)),
            other => Err(format!("{other} is no precondition").into()),
        })?,
        writes: r.list(|r| match r.byte()? {
            0 => Ok(Write::Put { key: r.key()?, body: r.body()?, attributes: r.attributes()? }),
            1 => Ok(Write::Delete { key: r.key()? }),
            other => Err(format!("{other} is no write").into()),
        })?,
        settlements: r.list(read_settlement)?,
    })
}

fn write_settlement(w: &mut Writer, settlement: &Settlement) {
    match settlement {
        Settlement::NotTerminating(key) => {
            w.byte(0);
            w.key(key);
        }
        Settlement::Allocate { pool, owner, want, write, pointers, render, attribute } => {
            w.byte(1);
            w.text(&pool.name);
            w.number(pool.low);
            w.number(pool.high);
            w.key(owner);
            let exactly = match want {
                Want::Any => None,
                Want::Exactly(value) => Some(*value),
            };
            w.option(exactly, Writer::number);
            w.length(*write);
            w.list(pointers, |w, pointer| w.text(pointer));
            match render {
                Render::Number => w.byte(0),
                Render::Ipv4 => w.byte(1),
                Render::Ipv4Range(prefix) => {
                    w.byte(2);
                    w.byte(*prefix);
                }
            }
            w.option(attribute.as_deref(), Writer::text);
        }
        Settlement::Release { pool, owner, value } => {
            w.byte(2);
            w.text(pool);
            w.key(owner);
            w.number(*value);
        }
    }
}

fn read_settlement(r: &mut Reader<'_>) -> Result<Settlement, Damage> {
    match r.byte()? {
        0 => r.key().map(Settlement::NotTerminating),
        1 => Ok(Settlement::Allocate {
            pool: Pool { name: r.text()?.to_owned(), low: r.number()?, high: r.number()? },
            owner: r.key()?,
            want: r.option(Reader::number)?.map_or(Want::Any, Want::Exactly),
            write: usize::try_from(r.number()?).map_err(|_| "a write's index is too large")?,
            pointers: r.list(|r| r.text().map(str::to_owned))?,
            render: match r.byte()? {
                0 => Render::Number,
                1 => Render::Ipv4,
                2 => Render::Ipv4Range(r.byte()?),
                other => return Err(format!("{other} is no form").into()),
            },
            attribute: r.option(|r| r.text().map(str::to_owned))?,
        }),
        2 => Ok(Settlement::Release { pool: r.text()?.to_owned(), owner: r.key()?, value: r.number()? }),
        other => Err(format!("{other} is no settlement").into()),
    }
}
