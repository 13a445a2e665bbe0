//! The mount of a local volume, detached: a file system, or a bind of what the host has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use model::{Error, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use sys::mount::{Attr, Propagation, Reach, set_attr};

use super::options::{Flags, MountOptions, address, host_of, without_password};
use crate::mounted::copy_of;

/// Makes the mount; `place` is where it is said to be, `size` a limit in bytes (0: none) that the file system may know.
///
/// Errors: `System` with the reference's words.
pub fn make(options: &MountOptions, size: u64, place: &Path) -> Result<OwnedFd> {
    let (device, text) = resolve(options)?;
    let mut flags = Flags::parse(&text);
    if size > 0 && options.kind == "tmpfs" {
        flags.data.retain(|option| !option.starts_with("size="));
        flags.data.push(format!("size={size}"));
    }
    let made = match flags.bind {
        Some(reach) => bind(&device, reach, flags.attr),
        None => file_system(&options.kind, &device, &flags),
    };
    made.map_err(|error| {
        let given = match flags.mount_flags() {
            0 => String::new(),
            number => format!(", flags: {number:#x}"),
        };
        let data = match flags.data.join(",") {
            data if data.is_empty() => data,
            data => format!(", data: {data}"),
        };
        let text = format!("mount {device}:{}{given}{data}: {}", place.display(), model::io_text(&error));
        Error::system(format!("failed to mount local volume: {}", without_password(&text, &options.text)))
    })
}

fn bind(device: &str, reach: Reach, attr: Attr) -> io::Result<OwnedFd> {
    let tree = copy_of(Path::new(device), reach == Reach::Tree)?;
    set_attr(tree.as_fd(), Reach::Tree, Attr::default(), Attr::default(), Some(Propagation::Private))?;
    if !attr.is_empty() {
        set_attr(tree.as_fd(), Reach::Mount, attr, Attr::default(), None)?;
    }
    Ok(tree)
}

fn file_system(kind: &str, device: &str, flags: &Flags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !device.is_empty() {
        fsconfig_set_string(&context, "source", device)?;
    }
    for flag in &flags.file_system {
        fsconfig_set_flag(&context, *flag)?;
    }
    for option in &flags.data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attr = MountAttrFlags::from_bits_retain(u32::try_from(flags.attr.0).unwrap_or(0));
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr)?)
}

/// Device and options with the names of servers looked up, each time anew.
fn resolve(options: &MountOptions) -> Result<(String, String)> {
    let MountOptions { kind, device, text } = options;
    if device.is_empty() {
        return Err(Error::system("missing device in volume options"));
    }
    let as_given = (device.clone(), text.clone());
    if !matches!(kind.as_str(), "nfs" | "cifs") {
        return Ok(as_given);
    }
    if let Some(name) = address(text).filter(|name| name.parse::<Ipv4Addr>().is_err()) {
        let found = look_up(name)?;
        return Ok((device.clone(), text.replacen(&format!("addr={name}"), &format!("addr={found}"), 1)));
    }
    match host_of(device) {
        Some(host) if kind == "cifs" && host.parse::<IpAddr>().is_err() => {
            Ok((device.replacen(host, &look_up(host)?.to_string(), 1), text.clone()))
        }
        _ => Ok(as_given),
    }
}

fn look_up(name: &str) -> Result<IpAddr> {
    let failed = |why: String| Error::system(format!("error resolving passed in network volume address: {why}"));
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let mut found = (name, 0).to_socket_addrs().map_err(|error| failed(model::io_text(&error)))?;
    found.next().map(|address| address.ip()).ok_or_else(|| failed(format!("lookup {name}: no such host")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: &str, device: &str, text: &str) -> MountOptions {
        MountOptions { kind: kind.into(), device: device.into(), text: text.into() }
    }

    #[test]
    fn names_of_servers_are_looked_up() {
        let resolved = |kind, device, text| resolve(&options(kind, device, text)).unwrap();
        let (device, text) = resolved("nfs", ":/x", "addr=localhost,rw");
        assert_eq!(device, ":/x");
        assert!(["addr=127.0.0.1,rw", "addr=::1,rw"].contains(&text.as_str()), "{text}");
        assert_eq!(resolved("nfs", ":/x", "addr=10.0.0.1").1, "addr=10.0.0.1");
        assert_eq!(resolved("ext4", "/dev/x", "addr=localhost").1, "addr=localhost");
        assert_ne!(resolved("cifs", "//localhost/s", "user=x").0, "//localhost/s");
        let error = resolve(&options("nfs", ":/x", "addr=no-such-host.invalid")).unwrap_err();
        assert!(error.message().starts_with("error resolving passed in network volume address"), "{error}");
    }
}
