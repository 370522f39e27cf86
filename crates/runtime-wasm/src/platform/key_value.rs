//! `wasi:keyvalue`: a guest's calls are the host's to answer, and a bucket is its name.

use bytes::Bytes;
use coracle_node::runtime::{KeyValueAnswer, KeyValueCall, KeyValueError};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView as _;

use crate::guest::Guest;

/// A bucket that a guest has opened.
struct Bucket {
    name: String,
}

/// The interface's error.
#[derive(ComponentType, Lower, Lift)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct KeyResponse {
    #[component(name = "keys")]
    keys: Vec<String>,
    #[component(name = "cursor")]
    cursor: Option<u64>,
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Self {
        match error {
            KeyValueError::NoSuchStore => Self::NoSuchStore,
            KeyValueError::AccessDenied => Self::AccessDenied,
            KeyValueError::Other(why) => Self::Other(why),
        }
    }
}

/// An answer of another kind than the call's: a host that does not keep to the port.
fn astray<T>() -> Result<T, Error> {
    Err(Error::Other("the key-value store gave another answer than it was asked for".into()))
}

/// Calls of guests; the outer error ends the guest (a bucket that it does not have).
type Called<T> = wasmtime::Result<(Result<T, Error>,)>;

type Caller<'a> = StoreContextMut<'a, Guest>;

async fn call(guest: &mut Caller<'_>, bucket: &Resource<Bucket>, call: KeyValueCall) -> Called<KeyValueAnswer> {
    let name = guest.data_mut().ctx().table.get(bucket)?.name.clone();
    let platform = &guest.data().platform;
    let answer = platform.host.key_value(&platform.container.pod, &name, call).await;
    Ok((answer.map_err(Error::from),))
}

/// The same for a call that answers nothing.
async fn done(mut guest: Caller<'_>, bucket: Resource<Bucket>, what: KeyValueCall) -> Called<()> {
    let (answer,) = call(&mut guest, &bucket, what).await?;
    Ok((answer.and_then(|answer| if answer == KeyValueAnswer::Done { Ok(()) } else { astray() }),))
}

/// The values of some keys.
async fn values(mut guest: Caller<'_>, bucket: Resource<Bucket>, keys: Vec<String>) -> Called<Vec<Option<Bytes>>> {
    let asked = keys.len();
    let (answer,) = call(&mut guest, &bucket, KeyValueCall::Get(keys)).await?;
    Ok((answer.and_then(|answer| match answer {
        KeyValueAnswer::Values(values) if values.len() == asked => Ok(values),
        _ => astray(),
    }),))
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    link_store(linker)?;
    link_atomics(linker)?;
    link_batch(linker)
}

fn link_store(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut store = linker.instance("wasi:keyvalue/store@0.2.0-draft")?;
    store.resource("bucket", ResourceType::host::<Bucket>(), |mut guest, handle| {
        guest.data_mut().ctx().table.delete(Resource::<Bucket>::new_own(handle))?;
        Ok(())
    })?;
    store.func_wrap_async("open", |mut guest: Caller<'_>, (name,): (String,)| {
        Box::new(async move {
            let platform = &guest.data().platform;
            let opened = platform.host.key_value(&platform.container.pod, &name, KeyValueCall::Open).await;
            if let Err(error) = opened {
                return Ok((Err(Error::from(error)),));
            }
            Ok((Ok(guest.data_mut().ctx().table.push(Bucket { name })?),))
        })
    })?;
    store.func_wrap_async("[method]bucket.get", |guest: Caller<'_>, (bucket, key): (Resource<Bucket>, String)| {
        Box::new(async move {
            let (values,) = values(guest, bucket, vec![key]).await?;
            Ok((values.map(|values| values.into_iter().next().flatten().map(|value| value.to_vec())),))
        })
    })?;
    store.func_wrap_async(
        "[method]bucket.set",
        |guest: Caller<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(done(guest, bucket, KeyValueCall::Set(vec![(key, value.into())])))
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.delete",
        |guest: Caller<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(done(guest, bucket, KeyValueCall::Delete(vec![key])))
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.exists",
        |guest: Caller<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let (values,) = values(guest, bucket, vec![key]).await?;
                Ok((values.map(|values| values.iter().any(Option::is_some)),))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.list-keys",
        |mut guest: Caller<'_>, (bucket, after): (Resource<Bucket>, Option<u64>)| {
            Box::new(async move {
                let (answer,) = call(&mut guest, &bucket, KeyValueCall::Keys { after }).await?;
                Ok((answer.and_then(|answer| match answer {
                    KeyValueAnswer::Keys { keys, next } => Ok(KeyResponse { keys, cursor: next }),
                    _ => astray(),
                }),))
            })
        },
    )
}

fn link_atomics(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance("wasi:keyvalue/atomics@0.2.0-draft")?.func_wrap_async(
        "increment",
        |mut guest: Caller<'_>, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
            Box::new(async move {
                let (answer,) = call(&mut guest, &bucket, KeyValueCall::Increment { key, delta }).await?;
                Ok((answer.and_then(|answer| match answer {
                    KeyValueAnswer::Number(number) => Ok(number),
                    _ => astray(),
                }),))
            })
        },
    )
}

fn link_batch(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut batch = linker.instance("wasi:keyvalue/batch@0.2.0-draft")?;
    batch.func_wrap_async("get-many", |guest: Caller<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        Box::new(async move {
            let (found,) = values(guest, bucket, keys.clone()).await?;
            let pair = |(key, value): (String, Option<Bytes>)| value.map(|value| (key, value.to_vec()));
            Ok((found.map(|values| keys.into_iter().zip(values).map(pair).collect::<Vec<_>>()),))
        })
    })?;
    batch.func_wrap_async(
        "set-many",
        |guest: Caller<'_>, (bucket, pairs): (Resource<Bucket>, Vec<(String, Vec<u8>)>)| {
            let pairs = pairs.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect();
            Box::new(done(guest, bucket, KeyValueCall::Set(pairs)))
        },
    )?;
    batch.func_wrap_async("delete-many", |guest: Caller<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
        Box::new(done(guest, bucket, KeyValueCall::Delete(keys)))
    })
}
