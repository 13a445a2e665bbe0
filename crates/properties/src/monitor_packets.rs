//! Packets between the daemon and its monitors, which may be of another version.

use monitor::proto::{self, Event, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A packet is refused with its number, or means the same when it is written and read again.
pub fn monitor_packets(bytes: &[u8]) {
    same::<Request>(bytes);
    same::<Event>(bytes);
}

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(packet) = proto::decode::<T>(bytes) else { return };
    let again = proto::decode::<T>(&proto::encode(packet.seq, &packet.body)).expect("own packets are understood");
    assert_eq!((again.seq, again.body), (packet.seq, packet.body));
}
