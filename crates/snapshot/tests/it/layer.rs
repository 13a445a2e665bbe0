//! Layers in a line each.

use tar::{Builder, EntryType, Header};

/// Builds a layer's tar entry by entry.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    pub fn dir(self, path: &str, mode: u32) -> Layer {
        self.entry((path, EntryType::Directory, mode), b"", "")
    }

    pub fn file(self, path: &str, content: &str) -> Layer {
        self.entry((path, EntryType::Regular, 0o644), content.as_bytes(), "")
    }

    /// A file at the bottom of so many directories that have no entry of their own.
    pub fn deep(mut self, depth: usize) -> Layer {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        let mut builder = Builder::new(Vec::new());
        builder.append_data(&mut header, format!("{}f", "d/".repeat(depth)), &b""[..]).unwrap();
        let entry = builder.into_inner().unwrap();
        self.bytes.extend_from_slice(&entry[..entry.len() - 1024]);
        self
    }

    pub fn link(self, path: &str, kind: EntryType, target: &str) -> Layer {
        self.entry((path, kind, 0o777), b"", target)
    }

    pub fn device(self, path: &str) -> Layer {
        self.entry((path, EntryType::Char, 0o666), b"", "")
    }

    pub fn suid(self, path: &str) -> Layer {
        self.entry((path, EntryType::Regular, 0o4755), b"x", "")
    }

    fn entry(mut self, (path, kind, mode): (&str, EntryType, u32), data: &[u8], link: &str) -> Layer {
        let mut header = Header::new_gnu();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(if mode == 0o4755 { 7 } else { 0 });
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(data.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, data).unwrap();
        let entry = builder.into_inner().unwrap();
        // Without the end mark.
        self.bytes.extend_from_slice(&entry[..entry.len() - 1024]);
        self
    }

    pub fn tar(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
