//! Words of a mount's options, as mount(8) and the runtime specification know them, turned into what the kernel takes.
//!
//! Pure. Words that are neither flags nor propagation are the file system's own and are passed on as they are.

use sys::mount::{Attr, Propagation, Reach};

/// Every word that is no file system's own, sorted.
pub const WORDS: [&str; 55] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "tmpcopyup",
    "unbindable",
];

/// A parsed option list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `Some`: a bind mount of one mount or of a tree.
    pub(super) bind: Option<Reach>,
    pub(super) set: Attr,
    pub(super) clear: Attr,
    /// Attributes for the whole tree (`rro`, …).
    pub(super) set_tree: Attr,
    pub(super) clear_tree: Attr,
    pub(super) propagation: Vec<(Propagation, Reach)>,
    /// Flags of the superblock (`sync`, …) and the file system's own options, `key` or `key=value`.
    pub(super) data: Vec<String>,
}

pub(super) fn parse(words: &[String]) -> Options {
    let mut out = Options::default();
    for word in words {
        let word = word.as_str();
        if let Some((change, attr)) = attribute(word) {
            change.apply(attr, &mut out.set, &mut out.clear);
            continue;
        }
        if let Some((change, attr)) = word.strip_prefix('r').and_then(attribute) {
            change.apply(attr, &mut out.set_tree, &mut out.clear_tree);
            continue;
        }
        if let Some(p) = propagation(word) {
            out.propagation.push((p, Reach::Mount));
            continue;
        }
        if let Some(p) = word.strip_prefix('r').and_then(propagation) {
            out.propagation.push((p, Reach::Tree));
            continue;
        }
        match word {
            "bind" => out.bind = out.bind.or(Some(Reach::Mount)),
            "rbind" => out.bind = Some(Reach::Tree),
            "defaults" | "remount" | "loud" | "silent" | "async" | "nomand" | "nolazytime" | "noiversion"
            | "tmpcopyup" | "" => {}
            other => out.data.push(other.to_owned()),
        }
    }
    out
}

#[derive(Clone, Copy)]
enum Change {
    Set,
    Clear,
}

impl Change {
    /// The later of contradicting words wins. The access time modes are one field.
    fn apply(self, attr: Attr, set: &mut Attr, clear: &mut Attr) {
        let field = if attr.0 & Attr::ATIME.0 != 0 { Attr::ATIME.0 } else { attr.0 };
        set.0 &= !field;
        clear.0 &= !field;
        match self {
            Change::Set => set.0 |= attr.0,
            Change::Clear => clear.0 |= field,
        }
        if matches!(self, Change::Set) && field == Attr::ATIME.0 {
            // The kernel wants the field cleared whenever it is set.
            clear.0 |= field;
        }
    }
}

fn attribute(word: &str) -> Option<(Change, Attr)> {
    use Change::{Clear, Set};
    Some(match word {
        "ro" => (Set, Attr::RDONLY),
        "rw" => (Clear, Attr::RDONLY),
        "nosuid" => (Set, Attr::NOSUID),
        "suid" => (Clear, Attr::NOSUID),
        "nodev" => (Set, Attr::NODEV),
        "dev" => (Clear, Attr::NODEV),
        "noexec" => (Set, Attr::NOEXEC),
        "exec" => (Clear, Attr::NOEXEC),
        "noatime" => (Set, Attr::NOATIME),
        "strictatime" => (Set, Attr::STRICTATIME),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (Clear, Attr::ATIME),
        "nodiratime" => (Set, Attr::NODIRATIME),
        "diratime" => (Clear, Attr::NODIRATIME),
        "nosymfollow" => (Set, Attr::NOSYMFOLLOW),
        "symfollow" => (Clear, Attr::NOSYMFOLLOW),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" => Propagation::Private,
        "slave" => Propagation::Slave,
        "shared" => Propagation::Shared,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_understood() {
        for word in WORDS {
            assert_eq!(of(&[word]).data, Vec::<String>::new(), "{word}");
        }
        assert!(WORDS.is_sorted());
    }

    fn of(words: &[&str]) -> Options {
        parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn tmpfs() {
        let o = of(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(o.set, Attr::NOSUID | Attr::STRICTATIME);
        assert_eq!(o.data, ["mode=755", "size=65536k"]);
        assert_eq!(o.bind, None);
    }

    #[test]
    fn binds() {
        let o = of(&["rbind", "rprivate", "rro", "rw", "ro"]);
        assert_eq!((o.bind, o.set, o.set_tree), (Some(Reach::Tree), Attr::RDONLY, Attr::RDONLY));
        assert_eq!(o.propagation, [(Propagation::Private, Reach::Tree)]);
        assert!(o.data.is_empty());
        assert_eq!(of(&["ro", "rw"]).set, Attr::default());
        assert_eq!(of(&["ro", "rw"]).clear, Attr::RDONLY);
    }

    #[test]
    fn access_times_are_one_field() {
        let o = of(&["noatime", "relatime"]);
        assert_eq!((o.set, o.clear), (Attr::default(), Attr::ATIME));
        let o = of(&["relatime", "noatime"]);
        assert_eq!((o.set, o.clear), (Attr::NOATIME, Attr::ATIME));
    }
}
