//! Pod addresses out of the node's range.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::runtime::RuntimeKind;

/// Hands out the addresses of a half of a range (the upper one for Wasm pods, the lower one for containers on a bridge), least recently
/// used first, so that an address that was just given up does not at once mean another pod.
#[derive(Clone, Debug)]
pub(crate) struct AddressPool {
    first: u32,
    last: u32,
    cursor: u32,
    taken: BTreeSet<u32>,
}

impl AddressPool {
    /// The pool of the upper half of a range; the last address of it is left out, as a broadcast address.
    pub(crate) fn upper(range: (Ipv4Addr, u8)) -> Self {
        let (base, size) = base_and_size(range);
        Self::between(base + size / 2, base + size - 2)
    }

    /// The pool of the lower half: without its network address, the bridge's own behind it, and its broadcast address. A range of
    /// fewer than 16 addresses has none.
    pub(crate) fn lower(range: (Ipv4Addr, u8)) -> Self {
        let (base, size) = base_and_size(range);
        if size < 16 { Self::between(1, 0) } else { Self::between(base + 2, base + size / 2 - 2) }
    }

    fn between(first: u32, last: u32) -> Self {
        Self { first, last, cursor: first, taken: BTreeSet::new() }
    }

    /// Takes a free address; `None` when all are taken.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let span = (self.last + 1).saturating_sub(self.first);
        let free = (0..span)
            .map(|step| self.first + (self.cursor - self.first + step) % span)
            .find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.cursor = if free == self.last { self.first } else { free + 1 };
        Some(IpAddr::V4(Ipv4Addr::from(free)))
    }

    /// Takes this address; whether it is of the range and was free.
    pub(crate) fn claim(&mut self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let address = u32::from(address);
        (self.first..=self.last).contains(&address) && self.taken.insert(address)
    }

    /// Gives an address back.
    pub(crate) fn free(&mut self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.taken.remove(&u32::from(address));
        }
    }
}

/// The first address of a range and how many it has.
fn base_and_size((network, prefix): (Ipv4Addr, u8)) -> (u32, u32) {
    assert!((8..=30).contains(&prefix), "a pod range has a prefix of 8 to 30 bits, not {prefix}");
    let size = 1_u32 << (32 - u32::from(prefix));
    (u32::from(network) & !(size - 1), size)
}

/// The pools of a node, by runtime.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    wasm: AddressPool,
    containers: AddressPool,
}

impl Addresses {
    /// The pools of a node's range.
    pub(crate) fn new(range: (Ipv4Addr, u8)) -> Self {
        Self { wasm: AddressPool::upper(range), containers: AddressPool::lower(range) }
    }

    /// Takes a free address for a pod of a runtime.
    pub(crate) fn take(&mut self, runtime: RuntimeKind) -> Option<IpAddr> {
        match runtime {
            RuntimeKind::Wasm => self.wasm.take(),
            RuntimeKind::Container => self.containers.take(),
        }
    }

    /// Takes this address; whether it is one of the node's and was free.
    pub(crate) fn claim(&mut self, address: IpAddr) -> bool {
        self.wasm.claim(address) || self.containers.claim(address)
    }

    /// Gives an address back.
    pub(crate) fn free(&mut self, address: IpAddr) {
        self.wasm.free(address);
        self.containers.free(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_before_one_is_used_again() {
        let mut pool = AddressPool::upper((Ipv4Addr::new(10, 42, 1, 0), 29));
        let taken: Vec<String> = (0..3).map(|_| pool.take().unwrap().to_string()).collect();
        assert_eq!(taken, ["10.42.1.4", "10.42.1.5", "10.42.1.6"]);
        assert_eq!(pool.take(), None);
        pool.free("10.42.1.4".parse().unwrap());
        assert!(pool.claim("10.42.1.4".parse().unwrap()));
        assert!(!pool.claim("10.42.1.4".parse().unwrap()));
        assert!(!pool.claim("10.42.2.4".parse().unwrap()));
    }

    #[test]
    fn containers_have_the_lower_half_but_for_the_bridge() {
        let mut pool = Addresses::new((Ipv4Addr::new(10, 42, 1, 0), 28));
        let taken: Vec<String> =
            std::iter::from_fn(|| pool.take(RuntimeKind::Container)).map(|address| address.to_string()).collect();
        assert_eq!(taken, ["10.42.1.2", "10.42.1.3", "10.42.1.4", "10.42.1.5", "10.42.1.6"]);
        assert_eq!(pool.take(RuntimeKind::Wasm).unwrap().to_string(), "10.42.1.8");
        pool.free("10.42.1.4".parse().unwrap());
        assert!(pool.claim("10.42.1.4".parse().unwrap()));
        assert!(!pool.claim("10.42.1.1".parse().unwrap()));
    }
}
