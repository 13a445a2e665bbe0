//! Options of local volumes: `type`, `device`, `o` as mount(8) has them, `size`. Text only; refusals in the reference's
//! words.

use std::collections::BTreeMap;

use model::{Error, Result};
use sys::mount::{Attr, Reach};

/// Longest list of mount options: a page, as mount(2) takes them.
const MAX_OPTIONS: usize = 4095;

/// What a local volume is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalOptions {
    /// What is mounted for a use; `None`: the directory itself is the volume.
    pub mount: Option<MountOptions>,
    /// Bytes that it may hold; 0: no limit.
    pub size: u64,
}

/// A mount as users describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// File system type; without meaning for a bind.
    pub kind: String,
    /// What is mounted.
    pub device: String,
    /// `o` as it was given.
    pub text: String,
}

/// `o`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A bind instead of a file system: of the one mount, or of the tree.
    pub bind: Option<Reach>,
    /// Attributes of the mount.
    pub attr: Attr,
    /// Flags of the file system (`ro`, `sync`, `dirsync`).
    pub file_system: Vec<&'static str>,
    /// What the file system itself reads.
    pub data: Vec<String>,
}

impl LocalOptions {
    /// Reads the options of a volume.
    ///
    /// Errors: `InvalidParameter`.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<LocalOptions> {
        const KNOWN: [&str; 4] = ["type", "o", "device", "size"];
        if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::invalid(format!("invalid option: {unknown:?}")));
        }
        let text = |key: &str| options.get(key).cloned().unwrap_or_default();
        let (kind, device) = (text("type"), text("device"));
        if kind == "cifs" && host_of(&device).is_some_and(has_port) {
            return Err(Error::invalid("port not allowed in CIFS device URL, include 'port' in 'o='"));
        }
        let size = match options.get("size") {
            Some(size) => model::units::ram_in_bytes(size)?.cast_unsigned(),
            None => 0,
        };
        for (key, needed) in [("device", "type"), ("o", "device"), ("o", "type"), ("type", "device")] {
            if options.contains_key(key) && !options.contains_key(needed) {
                return Err(Error::invalid(format!("missing required option: {needed:?}")));
            }
        }
        let o = text("o");
        if o.len() > MAX_OPTIONS || device.len() > MAX_OPTIONS {
            return Err(Error::invalid(format!("mount options of more than {MAX_OPTIONS} bytes")));
        }
        if [&kind, &device, &o].iter().any(|text| text.contains('\0')) {
            return Err(Error::invalid("mount options with a zero byte"));
        }
        let mounts = !kind.is_empty() || !device.is_empty();
        Ok(LocalOptions { mount: mounts.then_some(MountOptions { kind, device, text: o }), size })
    }
}

/// The host of a CIFS device, `//host/share`.
pub(super) fn host_of(device: &str) -> Option<&str> {
    let rest = device.split_once("//").filter(|(scheme, _)| scheme.is_empty() || scheme.ends_with(':'))?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty()).then_some(host)
}

fn has_port(host: &str) -> bool {
    let after = if host.starts_with('[') { host.split_once(']').map_or("", |(_, rest)| rest) } else { host };
    after.split_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// The value of `addr` in a list of options, as long as it is not empty.
pub(super) fn address(options: &str) -> Option<&str> {
    options.split(',').find_map(|option| option.strip_prefix("addr=")).filter(|address| !address.is_empty())
}

/// A text that may have the password of a list of options in it, without it.
pub(super) fn without_password(text: &str, options: &str) -> String {
    match options.split(',').find_map(|option| option.strip_prefix("password=")).filter(|word| !word.is_empty()) {
        Some(password) => text.replacen(&format!("password={password}"), "password=********", 1),
        None => text.to_owned(),
    }
}

impl Flags {
    /// As flags of mount(2).
    pub fn mount_flags(&self) -> u64 {
        let of_file_system = |name: &&str| match *name {
            "ro" => Attr::RDONLY.0,
            "sync" => 0x10,
            "dirsync" => 0x80,
            _ => 0,
        };
        let file_system = self.file_system.iter().map(of_file_system).fold(0, |all, flag| all | flag);
        self.attr.mount_flags() | file_system | self.bind.map_or(0, Reach::mount_flags)
    }

    /// Reads a list of options: words of mount(8), the last of a kind counts; what is none of them is the file system's.
    pub fn parse(text: &str) -> Flags {
        let mut flags = Flags::default();
        for word in text.split(',') {
            if !flags.read(word) && !word.is_empty() {
                flags.data.push(word.to_owned());
            }
        }
        flags
    }

    fn read(&mut self, word: &str) -> bool {
        let attr = |flags: &mut Flags, attr: Attr, on: bool| {
            flags.attr.0 &= !attr.0;
            if on {
                flags.attr.0 |= attr.0;
            }
        };
        match word {
            "ro" | "rw" => {
                attr(self, Attr::RDONLY, word == "ro");
                self.set("ro", word == "ro");
            }
            "suid" | "nosuid" => attr(self, Attr::NOSUID, word == "nosuid"),
            "dev" | "nodev" => attr(self, Attr::NODEV, word == "nodev"),
            "exec" | "noexec" => attr(self, Attr::NOEXEC, word == "noexec"),
            "diratime" | "nodiratime" => attr(self, Attr::NODIRATIME, word == "nodiratime"),
            "atime" | "relatime" | "norelatime" | "nostrictatime" => attr(self, Attr::ATIME, false),
            "noatime" | "strictatime" => {
                attr(self, Attr::ATIME, false);
                attr(self, if word == "noatime" { Attr::NOATIME } else { Attr::STRICTATIME }, true);
            }
            "sync" => self.set("sync", true),
            "async" => self.set("sync", false),
            "dirsync" => self.set("dirsync", true),
            "bind" => self.bind = self.bind.or(Some(Reach::Mount)),
            "rbind" => self.bind = Some(Reach::Tree),
            // The mount is nobody's peer; there are no mandatory locks since Linux 5.15, and nothing to be mounted again.
            "defaults" | "mand" | "nomand" | "remount" | "private" | "rprivate" | "shared" | "rshared" | "slave"
            | "rslave" | "unbindable" | "runbindable" => {}
            _ => return false,
        }
        true
    }

    fn set(&mut self, flag: &'static str, on: bool) {
        self.file_system.retain(|other| *other != flag);
        if on {
            self.file_system.push(flag);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<LocalOptions> {
        LocalOptions::parse(&options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_refused_and_how() {
        for (options, text) in [
            (&[("kind", "nfs")][..], "invalid option: \"kind\""),
            (&[("type", "nfs")], "missing required option: \"device\""),
            (&[("device", ":/x")], "missing required option: \"type\""),
            (&[("o", "ro")], "missing required option: \"device\""),
            (&[("o", "ro"), ("device", "x")], "missing required option: \"type\""),
            (&[("size", "x")], "invalid size: 'x'"),
            (
                &[("type", "cifs"), ("device", "//h:445/s")],
                "port not allowed in CIFS device URL, include 'port' in 'o='",
            ),
        ] {
            assert_eq!(parse(options).unwrap_err().message(), text);
        }
        for options in [
            &[("type", "cifs"), ("device", "//[fe80::1]/s")][..],
            &[("type", "nfs"), ("device", "host:2049:/x")],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=10m,uid=1000")],
        ] {
            assert!(parse(options).unwrap().mount.is_some(), "{options:?}");
        }
        assert_eq!(parse(&[("size", "10m")]).unwrap(), LocalOptions { mount: None, size: 10 << 20 });
        assert_eq!(parse(&[("type", ""), ("device", "")]).unwrap().mount, None);
    }

    #[test]
    fn options_are_flags_or_the_file_systems() {
        let flags =
            Flags::parse("ro,rw,nosuid,noexec,exec,size=10m,uid=1000,,sync,async,dirsync,noatime,strictatime,x");
        assert_eq!(flags.attr, Attr::NOSUID | Attr::STRICTATIME);
        assert_eq!((flags.file_system, flags.bind), (vec!["dirsync"], None));
        assert_eq!(flags.data, ["size=10m", "uid=1000", "x"]);
        let bind = Flags::parse("bind,ro");
        assert_eq!((bind.bind, bind.attr), (Some(Reach::Mount), Attr::RDONLY));
        assert_eq!(Flags::parse("rbind").bind, Some(Reach::Tree));
        assert_eq!(Flags::parse("rbind,bind").bind, Some(Reach::Tree));
    }

    #[test]
    fn addresses_and_passwords() {
        assert_eq!(address("rw,addr=nas.example,soft"), Some("nas.example"));
        assert_eq!(address("rw,clientaddr=1.2.3.4,addr="), None);
        assert_eq!(host_of("//nas/share"), Some("nas"));
        assert_eq!(host_of("smb://u@nas/share"), Some("nas"));
        assert_eq!(host_of("nas:/share"), None);
        let text = "data: username=u,password=secret: invalid argument";
        assert_eq!(
            without_password(text, "username=u,password=secret"),
            "data: username=u,password=********: invalid argument"
        );
    }

    proptest! {
        #[test]
        fn any_options_are_read_or_refused(kind in "\\PC{0,8}", device in "\\PC{0,20}", o in "\\PC{0,40}") {
            let _ = parse(&[("type", &kind), ("device", &device), ("o", &o)]);
            let flags = Flags::parse(&o);
            prop_assert!(flags.data.iter().all(|word| !word.contains(',')));
            let _ = (host_of(&device), address(&o), without_password(&device, &o));
        }
    }
}
