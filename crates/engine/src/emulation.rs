//! Platforms whose programs run here: the host's own, and those whose executables the kernel gives to an interpreter (binfmt_misc,
//! Documentation/admin-guide/binfmt-misc.rst).

use std::fs;
use std::io::Read;

use model::platform::Platform;

/// Where the kernel lists what is registered.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// Entries that are looked at, and bytes of one.
const ENTRIES: usize = 256;
const BYTES: u64 = 4096;
/// Bytes of a magic; more the kernel does not take.
const MAGIC: usize = 128;

/// Architecture and variant as images name them; of the header of executables `EI_CLASS`, `EI_DATA`, `e_machine` (elf(5)).
const MACHINES: &[(&str, &str, u8, u8, u16)] = &[
    ("amd64", "", 2, 1, 0x3e),
    ("386", "", 1, 1, 0x03),
    ("arm64", "", 2, 1, 0xb7),
    ("arm", "v7", 1, 1, 0x28),
    ("riscv64", "", 2, 1, 0xf3),
    ("ppc64le", "", 2, 1, 0x15),
    ("s390x", "", 2, 2, 0x16),
    ("loong64", "", 2, 1, 0x102),
    ("mips64le", "", 2, 1, 0x08),
    ("mips64", "", 2, 2, 0x08),
];

/// What an entry takes: bytes of a file's beginning, with the bits that count.
struct Magic {
    offset: usize,
    bytes: Vec<u8>,
    mask: Vec<u8>,
}

/// The platforms whose programs run here, the host's own (`own`: its architecture) first. An entry that cannot be read counts as none.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
pub fn platforms(own: &str) -> Vec<Platform> {
    let entries = fs::read_dir(REGISTERED).into_iter().flatten().flatten().take(ENTRIES);
    let text = |entry: fs::DirEntry| {
        let mut text = String::new();
        fs::File::open(entry.path()).ok()?.take(BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let registered: Vec<Magic> = entries.filter_map(text).filter_map(|text| parse(&text)).collect();
    let mut found = vec![Platform::new("linux", own, "")];
    for (architecture, variant, class, order, number) in MACHINES {
        let header = header(*class, *order, *number);
        if *architecture != own && registered.iter().any(|magic| magic.takes(&header)) {
            found.push(Platform::new("linux", architecture, variant));
        }
    }
    found
}

/// The beginning of an executable.
fn header(class: u8, order: u8, number: u16) -> [u8; MAGIC] {
    let mut header = [0; MAGIC];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1]);
    let bytes = |number: u16| if order == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
    header[16..18].copy_from_slice(&bytes(2));
    header[18..20].copy_from_slice(&bytes(number));
    header
}

impl Magic {
    fn takes(&self, header: &[u8]) -> bool {
        let Some(beginning) = header.get(self.offset..) else { return false };
        let mask = self.mask.iter().copied().chain(std::iter::repeat(0xff));
        let fits = |((own, given), mask): ((&u8, &u8), u8)| own & mask == given & mask;
        self.bytes.len() <= beginning.len() && self.bytes.iter().zip(beginning).zip(mask).all(fits)
    }
}

/// Reads an entry; `None`: it is off, or takes files by their names.
fn parse(text: &str) -> Option<Magic> {
    let mut lines = text.lines();
    if lines.next()? != "enabled" {
        return None;
    }
    let mut magic = Magic { offset: 0, bytes: Vec::new(), mask: Vec::new() };
    for line in lines {
        match line.split_once(' ') {
            Some(("offset", offset)) => magic.offset = offset.trim().parse().ok()?,
            Some(("magic", bytes)) => magic.bytes = unhex(bytes)?,
            Some(("mask", bytes)) => magic.mask = unhex(bytes)?,
            _ => {}
        }
    }
    (!magic.bytes.is_empty()).then_some(magic)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if text.len() > 2 * MAGIC || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: F\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn an_entry_takes_executables_of_its_machine() {
        let magic = parse(ARM).unwrap();
        assert!(magic.takes(&header(2, 1, 0xb7)));
        assert!(!magic.takes(&header(2, 1, 0x3e)) && !magic.takes(&header(1, 1, 0xb7)));
    }

    #[test]
    fn what_is_off_or_malformed_takes_nothing() {
        for text in [
            "",
            "disabled\noffset 0\nmagic 7f\n",
            "enabled\nextension .exe\n",
            "enabled\noffset x\nmagic 7f\n",
            "enabled\noffset 0\nmagic 7\n",
            "enabled\noffset 0\nmagic zz\n",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        let far = parse("enabled\noffset 4000\nmagic 7f\n").unwrap();
        assert!(!far.takes(&header(2, 1, 0xb7)));
    }

    #[test]
    fn the_own_platform_is_the_first() {
        assert_eq!(platforms("amd64")[0], Platform::new("linux", "amd64", ""));
    }
}
