//! Pod addresses out of the node's range.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Hands out the addresses of the upper half of a range (the lower half is for containers on a bridge), least recently used first,
/// so that an address that was just given up does not at once mean another pod.
#[derive(Clone, Debug)]
pub(crate) struct AddressPool {
    first: u32,
    last: u32,
    cursor: u32,
    taken: BTreeSet<u32>,
}

impl AddressPool {
    /// The pool of a range; the last address of it is left out, as a broadcast address.
    pub(crate) fn new((network, prefix): (Ipv4Addr, u8)) -> Self {
        assert!((8..=30).contains(&prefix), "a pod range has a prefix of 8 to 30 bits, not {prefix}");
        let size = 1_u32 << (32 - u32::from(prefix));
        let base = u32::from(network) & !(size - 1);
        let first = base + size / 2;
        Self { first, last: base + size - 2, cursor: first, taken: BTreeSet::new() }
    }

    /// Takes a free address; `None` when all are taken.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let span = self.last - self.first + 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_before_one_is_used_again() {
        let mut pool = AddressPool::new((Ipv4Addr::new(10, 42, 1, 0), 29));
        let taken: Vec<String> = (0..3).map(|_| pool.take().unwrap().to_string()).collect();
        assert_eq!(taken, ["10.42.1.4", "10.42.1.5", "10.42.1.6"]);
        assert_eq!(pool.take(), None);
        pool.free("10.42.1.4".parse().unwrap());
        assert!(pool.claim("10.42.1.4".parse().unwrap()));
        assert!(!pool.claim("10.42.1.4".parse().unwrap()));
        assert!(!pool.claim("10.42.2.4".parse().unwrap()));
    }
}
