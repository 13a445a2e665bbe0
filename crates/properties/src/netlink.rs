//! Messages and attributes of netlink(7).

use sys::netlink::wire::{Attributes, Messages, read_ip, read_string, read_u16, read_u32};

/// Deepest nesting that is looked into.
const DEPTH: usize = 8;

/// Whatever lengths say, iteration ends, and what it gives lies within the buffer.
pub fn netlink(bytes: &[u8]) {
    let messages: Vec<_> = Messages::new(bytes).collect();
    assert!(messages.len() <= bytes.len());
    for message in &messages {
        for skip in [0, 4, 8, 16, 20] {
            nested(message.attributes(skip), bytes.len(), DEPTH);
        }
    }
    nested(Attributes::new(bytes), bytes.len(), DEPTH);
}

fn nested(attributes: Attributes<'_>, length: usize, depth: usize) {
    for (_, value) in attributes {
        assert!(value.len() <= length);
        let _ = (read_u16(value), read_u32(value), read_ip(value));
        assert!(read_string(value).chars().count() <= value.len());
        if depth > 0 {
            nested(Attributes::new(value), value.len(), depth - 1);
        }
    }
}
