//! Limits on open connections: total, per IP address, and a reserve for `/healthz` only.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::limits::Limits;
use crate::feed::stream_registry::counted_as;

/// The connection slots.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    taken: Mutex<Taken>,
    limits: Limits,
    /// Exempt from the limit per IP address: proxies represent many clients.
    trusted: Vec<IpAddr>,
}

#[derive(Debug, Default)]
struct Taken {
    open: usize,
    reserve: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection slot, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    places: Arc<ConnectionSlots>,
    address: IpAddr,
    /// Beyond the limits: only `/healthz` is served.
    pub(super) is_reserve: bool,
}

impl ConnectionSlots {
    pub(super) fn new(limits: Limits, trusted: &[IpAddr]) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), limits, trusted: trusted.to_vec() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires a slot for a connection from an IP address; `None` if even the reserve is full.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Option<ConnectionSlot> {
        let address = counted_as(from);
        let mut taken = self.taken();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        let has_room = of_address < self.limits.connections_per_address || self.trusted.contains(&from);
        let is_reserve = taken.open >= self.limits.connections || !has_room;
        if !is_reserve {
            taken.open += 1;
            *taken.by_address.entry(address).or_default() += 1;
        } else if taken.reserve < self.limits.reserve {
            taken.reserve += 1;
        } else {
            return None;
        }
        Some(ConnectionSlot { places: self.clone(), address, is_reserve })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if self.is_reserve {
            taken.reserve -= 1;
            return;
        }
        taken.open -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_share_and_then_the_reserve() {
        let limits = Limits { connections: 4, connections_per_address: 2, reserve: 1, ..Limits::default() };
        let places = ConnectionSlots::new(limits, &[address("10.0.0.9")]);
        let enter = |text| places.enter(address(text));
        // Addresses of one IPv6 network count as one client, and so does an IPv4 address in both notations.
        let two = [enter("2001:db8::1"), enter("2001:db8::2")].map(|place| place.expect("a place"));
        assert!(two.iter().all(|place| !place.is_reserve));
        let third = enter("2001:db8::3").expect("a place");
        assert!(third.is_reserve);
        assert!(enter("2001:db8::4").is_none(), "the reserve is full as well");
        let other = [enter("192.0.2.1"), enter("::ffff:192.0.2.1")].map(|place| place.expect("a place"));
        assert!(enter("192.0.2.1").is_none());
        drop(third);
        assert!(enter("198.51.100.1").is_some_and(|place| place.is_reserve), "all places are taken");
        drop((two, other));
        let proxied: Vec<_> = (0..4).filter_map(|_| enter("10.0.0.9")).collect();
        assert!(proxied.len() == 4 && proxied.iter().all(|place| !place.is_reserve), "a proxy stands for many");
        drop(proxied);
        assert!(places.taken().by_address.is_empty());
    }
}
