//! Messages of D-Bus.

use dbus::{Call, HEAD};

/// Bytes that a bus sends: reading ends, nothing is taken that is longer than it says, and the values of a message that
/// was read are read again when they are sent.
pub fn bus_messages(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk::<HEAD>()
        && let Ok(length) = dbus::length(head)
    {
        assert!((HEAD..=1 << 20).contains(&length));
    }
    let Ok(message) = dbus::decode(bytes) else { return };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (path, member) = (text(&message.path), text(&message.member));
    let call = Call { destination: "a", path: &path, interface: "b", member: &member, body: &message.body };
    let sent = dbus::encode(&call, message.serial);
    let Some(Ok(length)) = sent.first_chunk().map(dbus::length) else { return };
    assert_eq!(length, sent.len());
    if let Ok(read) = dbus::decode(&sent) {
        assert_eq!((read.body, read.serial), (message.body, message.serial));
    }
}
