//! What users ask to be mounted: bind strings (`source:target:modes`) and mount specifications, checked in the
//! reference's words. Whether a source exists is asked of the caller; everything else is text.

use std::path::{Component, Path};

use crate::{Error, Result};

/// What kind of thing is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host.
    #[default]
    Bind,
    /// A volume by name, or an anonymous one.
    Volume,
    /// Memory.
    Tmpfs,
    /// The file system of another image.
    Image,
    /// Anything else; its word is kept for the refusal.
    Unknown(String),
}

impl MountKind {
    /// From the API's word.
    pub fn parse(word: &str) -> MountKind {
        match word {
            "bind" => MountKind::Bind,
            "volume" => MountKind::Volume,
            "tmpfs" => MountKind::Tmpfs,
            "image" => MountKind::Image,
            other => MountKind::Unknown(other.to_owned()),
        }
    }

    /// The API's word.
    pub fn as_str(&self) -> &str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Image => "image",
            MountKind::Unknown(word) => word,
        }
    }
}

/// The part of a mount specification that is checked here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountKind,
    /// A path, a volume's name, an image; empty for memory and anonymous volumes.
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// It cannot be written.
    pub read_only: bool,
    /// Options of binds, if given.
    pub bind: Option<BindOptions>,
    /// Options of volumes, if given.
    pub volume: Option<VolumeOptions>,
    /// Options of tmpfs, if given.
    pub tmpfs: Option<TmpfsOptions>,
    /// Sub-directory of an image, if image options are given.
    pub image_subpath: Option<String>,
    /// Options of cluster volumes are given.
    pub has_cluster_options: bool,
}

/// Options of a bind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// Of [`PROPAGATIONS`], or empty.
    pub propagation: String,
    /// The source is made if it is missing.
    pub create_mountpoint: bool,
}

/// Options of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    /// The volume is not filled from the image.
    pub no_copy: bool,
    /// A directory in it.
    pub subpath: String,
}

/// Options of a tmpfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// Bytes; 0: the kernel's choice.
    pub size: i64,
    /// Permission bits; 0: the kernel's choice.
    pub mode: u32,
    /// Flags and pairs.
    pub options: Vec<Vec<String>>,
}

/// A bind string, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindSpec {
    /// Bind or volume.
    pub kind: MountKind,
    /// The host's path, cleaned, or the volume's name; empty for an anonymous volume.
    pub source: String,
    /// The path in the container, cleaned.
    pub target: String,
    /// The modes as given.
    pub mode: String,
    /// It can be written.
    pub writable: bool,
    /// Of binds; empty: none was named.
    pub propagation: String,
    /// A new volume is filled from the image.
    pub copy_data: bool,
}

/// The propagation modes.
pub const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
/// The propagation of a bind that names none.
const DEFAULT_PROPAGATION: &str = "rprivate";
/// What a bind may have that shows the daemon's data root or a part of it.
const PROPAGATIONS_AT_ROOT: [&str; 2] = ["rslave", "rshared"];

/// The propagation of a bind (B-vol-6); `asked` is empty when it names none. Where a bind and the daemon's data root
/// meet, what the daemon unmounts must not stay mounted in the container.
pub fn bind_propagation(asked: &str, source: &str, data_root: &str) -> Result<String> {
    let meets = Path::new(source).starts_with(data_root) || Path::new(data_root).starts_with(source);
    match asked {
        "" => Ok(if meets { PROPAGATIONS_AT_ROOT[0] } else { DEFAULT_PROPAGATION }.to_owned()),
        other if meets && !PROPAGATIONS_AT_ROOT.contains(&other) => Err(Error::invalid(format!(
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within \
             the daemon root, daemon root: {data_root:?}, bind mount source: {source:?}, propagation: {other:?}"
        ))),
        other => Ok(other.to_owned()),
    }
}

/// The groups of modes; of each a bind string has at most one.
const MODES: [&[&str]; 5] =
    [&["rw", "ro"], &["z", "Z"], &PROPAGATIONS, &["nocopy"], &["consistent", "cached", "delegated"]];

fn is_mode(mode: &str) -> bool {
    let mut seen = [0; MODES.len()];
    let known = mode.split(',').all(|word| match MODES.iter().position(|group| group.contains(&word)) {
        Some(group) => {
            seen[group] += 1;
            true
        }
        None => false,
    });
    mode.is_empty() || (known && seen.iter().all(|count| *count <= 1))
}

fn find_mode<'a>(mode: &'a str, group: &[&str]) -> Option<&'a str> {
    mode.split(',').find(|word| group.contains(word))
}

impl BindSpec {
    /// Reads a bind string. Refusals are the reference's; it answers 500 to them, so their kind is
    /// [`crate::Kind::System`].
    pub fn parse(text: &str) -> Result<BindSpec> {
        let invalid = || Error::system(format!("invalid volume specification: '{text}'"));
        let (source, target, mode) = match text.splitn(4, ':').collect::<Vec<_>>()[..] {
            ["", ..] => return Err(invalid()),
            [target] => ("", target, ""),
            // A mode without a source makes no sense.
            [_, mode] if is_mode(mode) => return Err(invalid()),
            [source, target] => (source, target, ""),
            [source, target, mode] => (source, target, mode),
            _ => return Err(invalid()),
        };
        if !is_mode(mode) {
            return Err(Error::system(format!("invalid mode: {mode}")));
        }
        let propagation = find_mode(mode, &PROPAGATIONS);
        let no_copy = find_mode(mode, MODES[3]).is_some();
        let is_bind = source.starts_with('/');
        let spec = MountSpec {
            kind: if is_bind { MountKind::Bind } else { MountKind::Volume },
            source: source.to_owned(),
            target: target.to_owned(),
            bind: propagation.map(|p| BindOptions { propagation: p.to_owned(), create_mountpoint: true }),
            volume: no_copy.then(|| VolumeOptions { no_copy, ..VolumeOptions::default() }),
            ..MountSpec::default()
        };
        check(&spec, |_| true).map_err(|e| Error::system(format!("{}: {e}", invalid())))?;
        Ok(BindSpec {
            source: if is_bind { clean(source) } else { source.to_owned() },
            target: clean(target),
            mode: mode.to_owned(),
            writable: find_mode(mode, &["ro"]).is_none(),
            propagation: propagation.filter(|_| is_bind).unwrap_or_default().to_owned(),
            copy_data: !is_bind && !no_copy,
            kind: spec.kind,
        })
    }
}

/// Reads a `VolumesFrom` entry: the other container, and whether its mounts stay writable.
pub fn parse_volumes_from(text: &str) -> Result<(String, bool)> {
    if text.is_empty() {
        return Err(Error::invalid("volumes-from specification cannot be an empty string"));
    }
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    let forbidden = find_mode(mode, &PROPAGATIONS).or_else(|| find_mode(mode, MODES[3]));
    if !is_mode(mode) || forbidden.is_some() {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    Ok((container.to_owned(), find_mode(mode, &["ro"]).is_none()))
}

/// Checks a mount specification. `exists` tells whether a path of the host is there.
pub fn check(spec: &MountSpec, exists: impl FnOnce(&str) -> bool) -> Result<()> {
    checked(spec, exists)
        .map_err(|why| Error::invalid(format!("invalid mount config for type {:?}: {why}", spec.kind.as_str())))
}

fn checked(spec: &MountSpec, exists: impl FnOnce(&str) -> bool) -> Result<(), String> {
    check_exclusive(spec)?;
    if spec.target.is_empty() {
        return Err("field Target must not be empty".into());
    }
    check_target(&spec.target)?;
    match &spec.kind {
        MountKind::Bind => check_bind(spec, exists),
        MountKind::Volume => match spec.volume.as_ref().map_or("", |v| v.subpath.as_str()) {
            "" => Ok(()),
            _ if spec.source.is_empty() => Err("must not set Subpath when using anonymous volumes".into()),
            subpath => check_subpath(subpath),
        },
        MountKind::Tmpfs if !spec.source.is_empty() => Err("field Source must not be specified".into()),
        MountKind::Tmpfs => match &spec.tmpfs {
            Some(options) => tmpfs_words(options).map(drop),
            None => Ok(()),
        },
        MountKind::Image if spec.source.is_empty() => Err("field Source must not be empty".into()),
        MountKind::Image => match spec.image_subpath.as_deref() {
            None | Some("") => Ok(()),
            Some(subpath) => check_subpath(subpath),
        },
        MountKind::Unknown(_) => Err("mount type unknown".into()),
    }
}

fn check_exclusive(spec: &MountSpec) -> Result<(), String> {
    let given = [
        ("BindOptions", spec.bind.is_some() && spec.kind != MountKind::Bind),
        ("VolumeOptions", spec.volume.is_some() && spec.kind != MountKind::Volume),
        ("ImageOptions", spec.image_subpath.is_some() && spec.kind != MountKind::Image),
        ("TmpfsOptions", spec.tmpfs.is_some() && spec.kind != MountKind::Tmpfs),
        ("ClusterOptions", spec.has_cluster_options && spec.kind.as_str() != "cluster"),
    ];
    match given.iter().find(|(_, wrong)| *wrong) {
        Some((name, _)) => Err(format!("field {name} must not be specified")),
        None => Ok(()),
    }
}

fn check_bind(spec: &MountSpec, exists: impl FnOnce(&str) -> bool) -> Result<(), String> {
    if spec.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let options = spec.bind.as_ref();
    if let Some(wrong) =
        options.map(|o| &o.propagation).filter(|p| !p.is_empty() && !PROPAGATIONS.contains(&p.as_str()))
    {
        return Err(format!("invalid propagation mode: {wrong}"));
    }
    check_absolute(&spec.source)?;
    match options.is_some_and(|o| o.create_mountpoint) || exists(&spec.source) {
        true => Ok(()),
        false => Err(format!("bind source path does not exist: {}", spec.source)),
    }
}

/// The rule for targets of `Tmpfs` entries: absolute, not the root.
pub fn check_tmpfs_target(target: &str) -> Result<()> {
    check_target(target).map_err(Error::invalid)
}

fn check_target(target: &str) -> Result<(), String> {
    if clean(target) == "/" {
        return Err("invalid specification: destination can't be '/'".into());
    }
    check_absolute(target)
}

fn check_absolute(path: &str) -> Result<(), String> {
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(format!("invalid mount path: '{path}' mount path must be absolute")),
    }
}

/// Inside by its text alone: relative, and never above its start.
fn check_subpath(subpath: &str) -> Result<(), String> {
    let mut depth = 0;
    let inside = Path::new(subpath).components().all(|component| {
        depth += match component {
            Component::Normal(_) => 1,
            Component::ParentDir => -1,
            Component::CurDir => 0,
            Component::RootDir | Component::Prefix(_) => return false,
        };
        depth >= 0
    });
    match inside {
        true => Ok(()),
        false => Err("subpath must be a relative path within the volume".into()),
    }
}

/// The mount options of a tmpfs specification: `ro,mode=1777,size=64m,noexec`.
pub fn tmpfs_options(options: &TmpfsOptions, read_only: bool) -> Result<String> {
    let mut words: Vec<String> = read_only.then(|| "ro".to_owned()).into_iter().collect();
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size != 0 {
        let units = [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)];
        let (unit, scale) = units.into_iter().find(|(_, scale)| options.size % scale == 0).unwrap_or(("", 1));
        words.push(format!("size={}{unit}", options.size / scale));
    }
    words.extend(tmpfs_words(options).map_err(Error::invalid)?);
    Ok(words.join(","))
}

fn tmpfs_words(options: &TmpfsOptions) -> Result<Vec<String>, String> {
    let word = |option: &Vec<String>| match option.as_slice() {
        [name] | [name, _] if !matches!(name.as_str(), "exec" | "noexec") => Err(format!("invalid option: {name}")),
        [name] => Ok(name.clone()),
        [name, value] => Ok(format!("{name}={value}")),
        _ => Err("invalid option array length".into()),
    };
    options.options.iter().map(word).collect()
}

/// The shortest text of the same path: no empty or `.` parts, `..` resolved by text.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            ("..", _) if absolute => {}
            _ => parts.push(part),
        }
    }
    match (absolute, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".into(),
        (false, rest) => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bind(text: &str) -> BindSpec {
        BindSpec::parse(text).unwrap()
    }

    fn refused(text: &str) -> String {
        BindSpec::parse(text).unwrap_err().message().to_owned()
    }

    fn check_message(spec: &MountSpec) -> String {
        check(spec, |_| false).unwrap_err().message().to_owned()
    }

    #[test]
    fn bind_strings_name_paths_or_volumes() {
        let b = bind("/host/../x:/c/:ro,rslave,z");
        assert_eq!((b.kind, b.source.as_str(), b.target.as_str()), (MountKind::Bind, "/x", "/c"));
        assert_eq!((b.mode.as_str(), b.writable, b.propagation.as_str()), ("ro,rslave,z", false, "rslave"));
        let v = bind("data:/c:nocopy");
        assert_eq!((v.kind, v.source.as_str(), v.writable, v.copy_data), (MountKind::Volume, "data", true, false));
        assert_eq!(bind("/a:/b").propagation, "");
        let anonymous = bind("/c");
        assert_eq!(
            (anonymous.kind, anonymous.source.as_str(), anonymous.target.as_str()),
            (MountKind::Volume, "", "/c")
        );
    }

    /// The text of `bad bind`.
    #[test]
    fn bind_refusals_have_the_references_words() {
        assert_eq!(
            refused("x"),
            "invalid volume specification: 'x': invalid mount config for type \"volume\": \
             invalid mount path: 'x' mount path must be absolute"
        );
        for text in ["", ":/x", "/a:ro", "/a:/b:ro:x"] {
            assert_eq!(refused(text), format!("invalid volume specification: '{text}'"));
        }
        assert_eq!(refused("/a:/b:foo"), "invalid mode: foo");
        assert_eq!(refused("/a:/b:ro,rw"), "invalid mode: ro,rw");
        assert_eq!(
            refused("/a:/"),
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": \
             invalid specification: destination can't be '/'"
        );
        assert_eq!(
            refused("/a:/b:nocopy"),
            "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": \
             field VolumeOptions must not be specified"
        );
        assert_eq!(
            refused("vol:/b:shared"),
            "invalid volume specification: 'vol:/b:shared': invalid mount config for type \"volume\": \
             field BindOptions must not be specified"
        );
    }

    #[test]
    fn volumes_from_takes_only_access_and_label_modes() {
        assert_eq!(parse_volumes_from("web").unwrap(), ("web".into(), true));
        assert_eq!(parse_volumes_from("web:ro,z").unwrap(), ("web".into(), false));
        for text in ["web:nocopy", "web:shared", "web:x"] {
            assert!(parse_volumes_from(text).unwrap_err().message().starts_with("invalid mode: "), "{text}");
        }
        assert!(parse_volumes_from("").is_err());
    }

    /// The text of `bind missing source via Mounts`; B-vol-2.
    #[test]
    fn specifications_are_checked_in_the_references_words() {
        let bind = MountSpec { source: "/no/such".into(), target: "/x".into(), ..MountSpec::default() };
        assert_eq!(
            check_message(&bind),
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such"
        );
        assert!(check(&bind, |_| true).is_ok());
        let create = BindOptions { create_mountpoint: true, ..BindOptions::default() };
        assert!(check(&MountSpec { bind: Some(create), ..bind.clone() }, |_| false).is_ok());
        let of = |kind: &str, source: &str| MountSpec {
            kind: MountKind::parse(kind),
            source: source.into(),
            ..bind.clone()
        };
        for (spec, why) in [
            (MountSpec { target: String::new(), ..bind.clone() }, "field Target must not be empty"),
            (MountSpec { target: "/x/..".into(), ..bind.clone() }, "invalid specification: destination can't be '/'"),
            (of("bind", ""), "field Source must not be empty"),
            (of("bind", "rel"), "invalid mount path: 'rel' mount path must be absolute"),
            (of("tmpfs", "/x"), "field Source must not be specified"),
            (of("image", ""), "field Source must not be empty"),
            (of("npipe", "x"), "mount type unknown"),
            (
                MountSpec { tmpfs: Some(TmpfsOptions::default()), ..bind.clone() },
                "field TmpfsOptions must not be specified",
            ),
        ] {
            let kind = spec.kind.as_str().to_owned();
            assert_eq!(check_message(&spec), format!("invalid mount config for type {kind:?}: {why}"));
        }
    }

    #[test]
    fn subpaths_stay_inside() {
        let with = |source: &str, subpath: &str| MountSpec {
            kind: MountKind::Volume,
            source: source.into(),
            target: "/x".into(),
            volume: Some(VolumeOptions { subpath: subpath.into(), ..VolumeOptions::default() }),
            ..MountSpec::default()
        };
        assert!(check(&with("v", "a/../b"), |_| false).is_ok());
        for subpath in ["/a", "..", "a/../..", "../a"] {
            assert!(check_message(&with("v", subpath)).ends_with("subpath must be a relative path within the volume"));
        }
        assert!(check_message(&with("", "a")).ends_with("must not set Subpath when using anonymous volumes"));
    }

    #[test]
    fn tmpfs_specifications_become_mount_options() {
        let mut options = TmpfsOptions { size: 64 << 20, mode: 0o1777, options: vec![vec!["noexec".into()]] };
        assert_eq!(tmpfs_options(&options, true).unwrap(), "ro,mode=1777,size=64m,noexec");
        options = TmpfsOptions { size: 1001, ..TmpfsOptions::default() };
        assert_eq!(tmpfs_options(&options, false).unwrap(), "size=1001");
        options.options = vec![vec!["uid".into(), "5".into()]];
        assert_eq!(tmpfs_options(&options, false).unwrap_err().message(), "invalid option: uid");
    }

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/..", "/"),
            ("a/..", "."),
            ("../a", "../a"),
            ("a/../../b", "../b"),
            ("", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_bind_string_is_read_or_refused(text in "[/a-c.:,rowz ]{0,20}") {
            if let Ok(bind) = BindSpec::parse(&text) {
                prop_assert!(bind.target.starts_with('/') && bind.target != "/");
                prop_assert_eq!(bind.kind == MountKind::Bind, bind.source.starts_with('/'));
            }
        }

        #[test]
        fn cleaning_twice_changes_nothing(path in "[/a-b.]{0,16}") {
            prop_assert_eq!(clean(&clean(&path)), clean(&path));
        }
    }

    /// B-vol-6
    #[test]
    fn binds_that_meet_the_data_root_are_slaves() {
        let root = "/var/lib/gantry";
        let of = |asked, source| bind_propagation(asked, source, root);
        assert_eq!(of("", "/srv").unwrap(), "rprivate");
        assert_eq!(of("shared", "/srv").unwrap(), "shared");
        assert_eq!(of("", "/var/lib/gantry2").unwrap(), "rprivate");
        for source in ["/", "/var/lib", root, "/var/lib/gantry/containers"] {
            assert_eq!(of("", source).unwrap(), "rslave");
            assert_eq!(of("rshared", source).unwrap(), "rshared");
            assert!(of("rprivate", source).unwrap_err().message().ends_with("propagation: \"rprivate\""));
        }
    }
}
