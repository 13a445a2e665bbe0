//! Randomness from the kernel's generator, for ids and names.

use rustix::rand::{GetRandomFlags, getrandom};

/// 32 random bytes: one container, network or exec id.
pub fn bytes32() -> [u8; 32] {
    let mut out = [0; 32];
    fill(&mut out);
    out
}

/// 64 random bits.
pub fn number() -> u64 {
    let mut out = [0; 8];
    fill(&mut out);
    u64::from_ne_bytes(out)
}

fn fill(out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        match getrandom(&mut out[done..], GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("getrandom cannot fail on a kernel that runs containers: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn differs() {
        assert_ne!(super::bytes32(), super::bytes32());
        assert_ne!(super::number(), super::number());
    }
}
