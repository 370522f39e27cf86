//! The replicated integers: which value of which pool is held by whom.
//!
//! Choosing is deterministic: a cursor behind the last value given out, so that a value that was given back is used again late.

use std::sync::Arc;

use coracle_api::ObjectKey;
use imbl::{OrdMap, OrdSet};

use crate::{Pool, Refused, Want};

/// Every pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pools {
    pools: OrdMap<Arc<str>, PoolState>,
    /// The values of each owner, so that the deletion of an object releases them without a search.
    held: OrdMap<Arc<ObjectKey>, OrdSet<(Arc<str>, u64)>>,
}

/// A value that was settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) value: u64,
    /// False when the owner held it already.
    pub(crate) is_new: bool,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PoolState {
    /// Where the search for a free value starts.
    pub(crate) cursor: u64,
    pub(crate) values: OrdMap<u64, Arc<ObjectKey>>,
}

impl Pools {
    /// Takes a value for an owner, in a pool whose values are `step` apart.
    pub(crate) fn allocate(
        &mut self,
        pool: &Pool,
        step: u64,
        owner: &ObjectKey,
        want: Want,
    ) -> Result<Chosen, Refused> {
        let state = self.pools.get(&*pool.name).cloned().unwrap_or_default();
        let value = match want {
            Want::Exactly(value) => {
                if value < pool.low || value > pool.high || !(value - pool.low).is_multiple_of(step) {
                    return Err(Refused::OutOfRange { pool: pool.name.clone(), value });
                }
                match state.values.get(&value) {
                    Some(holder) if **holder == *owner => return Ok(Chosen { value, is_new: false }),
                    Some(_) => return Err(Refused::Taken { pool: pool.name.clone(), value }),
                    None => value,
                }
            }
            Want::Any => state.free(pool, step).ok_or_else(|| Refused::Exhausted(pool.name.clone()))?,
        };
        // A value that was asked for does not move the cursor: it says nothing about what is free around it.
        let cursor = if want == Want::Any { value.saturating_add(step) } else { state.cursor };
        self.hold(&pool.name, cursor, value, Arc::new(owner.clone()));
        Ok(Chosen { value, is_new: true })
    }

    /// Gives back a value if this owner holds it; whether it did.
    pub(crate) fn release(&mut self, pool: &str, owner: &ObjectKey, value: u64) -> bool {
        let holds = self.pools.get(pool).and_then(|state| state.values.get(&value)).is_some_and(|h| **h == *owner);
        if holds {
            if let Some(state) = self.pools.get_mut(pool) {
                state.values.remove(&value);
            }
            if let Some(values) = self.held.get_mut(owner) {
                values.remove(&(Arc::from(pool), value));
                if values.is_empty() {
                    self.held.remove(owner);
                }
            }
        }
        holds
    }

    /// Gives back everything that an owner holds; whether it held anything.
    pub(crate) fn release_all(&mut self, owner: &ObjectKey) -> bool {
        let Some(values) = self.held.remove(owner) else { return false };
        for (pool, value) in values {
            if let Some(state) = self.pools.get_mut(&pool) {
                state.values.remove(&value);
            }
        }
        true
    }

    /// The values of a pool and their owners, in order.
    pub(crate) fn values(&self, pool: &str) -> impl Iterator<Item = (u64, &Arc<ObjectKey>)> {
        self.pools.get(pool).into_iter().flat_map(|state| state.values.iter().map(|(value, owner)| (*value, owner)))
    }

    /// Every pool by name.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &PoolState)> {
        self.pools.iter()
    }

    /// Puts a pool's cursor and, where there is one, a held value in place, as a snapshot says.
    pub(crate) fn restore(&mut self, pool: &str, cursor: u64, held: Option<(u64, Arc<ObjectKey>)>) {
        match held {
            Some((value, owner)) => self.hold(pool, cursor, value, owner),
            None => self.pools.entry(pool.into()).or_default().cursor = cursor,
        }
    }

    fn hold(&mut self, pool: &str, cursor: u64, value: u64, owner: Arc<ObjectKey>) {
        let name: Arc<str> = pool.into();
        let state = self.pools.entry(name.clone()).or_default();
        state.cursor = cursor;
        state.values.insert(value, owner.clone());
        self.held.entry(owner).or_default().insert((name, value));
    }
}

impl PoolState {
    /// The first free value from the cursor on, going round once.
    fn free(&self, pool: &Pool, step: u64) -> Option<u64> {
        if pool.low > pool.high {
            return None;
        }
        // The cursor may be off the grid or out of the range when the range was changed.
        let start = self
            .cursor
            .checked_sub(pool.low)
            .and_then(|offset| pool.low.checked_add(offset.checked_next_multiple_of(step)?))
            .filter(|start| *start <= pool.high)
            .unwrap_or(pool.low);
        self.first_gap(start, pool.high, step).or_else(|| self.first_gap(pool.low, start.checked_sub(1)?, step))
    }

    fn first_gap(&self, from: u64, to: u64, step: u64) -> Option<u64> {
        if from > to {
            return None;
        }
        let mut candidate = from;
        for taken in self.values.range(from..=to).map(|(value, _)| *value) {
            if taken > candidate {
                break;
            }
            if taken == candidate {
                candidate = candidate.checked_add(step)?;
            }
        }
        (candidate <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::resources::SERVICES;

    use super::*;

    fn owner(name: &str) -> ObjectKey {
        ObjectKey::new(SERVICES, "default", name)
    }

    fn pool(low: u64, high: u64) -> Pool {
        Pool { name: "p".into(), low, high }
    }

    fn take(pools: &mut Pools, p: &Pool, step: u64, name: &str, want: Want) -> Result<u64, Refused> {
        pools.allocate(p, step, &owner(name), want).map(|chosen| chosen.value)
    }

    #[test]
    fn values_go_round_and_are_given_again_late() {
        let mut pools = Pools::default();
        let p = pool(10, 12);
        let any = |pools: &mut Pools| take(pools, &p, 1, "a", Want::Any);
        assert_eq!(any(&mut pools), Ok(10));
        assert_eq!(any(&mut pools), Ok(11));
        assert!(pools.release("p", &owner("a"), 10));
        assert_eq!(any(&mut pools), Ok(12));
        assert_eq!(any(&mut pools), Ok(10));
        assert_eq!(any(&mut pools), Err(Refused::Exhausted("p".into())));
        assert!(pools.release_all(&owner("a")));
        assert_eq!(pools.values("p").count(), 0);
    }

    #[test]
    fn a_value_that_is_asked_for_is_in_the_range_and_free_or_the_owners_own() {
        let mut pools = Pools::default();
        let p = pool(10, 12);
        assert_eq!(take(&mut pools, &p, 1, "a", Want::Exactly(11)), Ok(11));
        assert_eq!(take(&mut pools, &p, 1, "a", Want::Exactly(11)), Ok(11));
        let taken = Refused::Taken { pool: "p".into(), value: 11 };
        assert_eq!(take(&mut pools, &p, 1, "b", Want::Exactly(11)), Err(taken));
        let outside = Refused::OutOfRange { pool: "p".into(), value: 13 };
        assert_eq!(take(&mut pools, &p, 1, "b", Want::Exactly(13)), Err(outside));
        assert!(!pools.release("p", &owner("b"), 11));
    }

    #[test]
    fn ranges_are_given_in_steps_of_their_size() {
        let mut pools = Pools::default();
        let p = pool(0, 1023);
        let mut take = |name, want| take(&mut pools, &p, 256, name, want);
        assert_eq!(take("a", Want::Any), Ok(0));
        assert_eq!(take("b", Want::Exactly(256)), Ok(256));
        assert_eq!(take("c", Want::Any), Ok(512));
        assert_eq!(take("d", Want::Exactly(700)), Err(Refused::OutOfRange { pool: "p".into(), value: 700 }));
        assert_eq!(take("d", Want::Any), Ok(768));
        assert_eq!(take("e", Want::Any), Err(Refused::Exhausted("p".into())));
    }

    #[test]
    fn the_whole_range_of_integers_can_be_a_pool() {
        let mut pools = Pools::default();
        let p = pool(u64::MAX - 1, u64::MAX);
        assert_eq!(take(&mut pools, &p, 1, "a", Want::Any), Ok(u64::MAX - 1));
        assert_eq!(take(&mut pools, &p, 1, "a", Want::Any), Ok(u64::MAX));
        assert_eq!(take(&mut pools, &p, 1, "a", Want::Any), Err(Refused::Exhausted("p".into())));
    }
}
