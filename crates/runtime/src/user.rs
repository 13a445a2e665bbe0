//! `user[:group]` against the container's own `/etc/passwd` and `/etc/group`, with the reference's rules and texts.
//!
//! The files are read through [`Rooted`], bounded, and parsed leniently: broken lines are skipped. Pure apart from the two
//! reads.

use sys::rooted::Rooted;

use crate::error::{Stage, StartError};

/// Bytes of a user database that are read; more is refused.
const MAX_DATABASE: u64 = 16 << 20;
/// Largest user and group number.
const MAX_ID: u32 = i32::MAX as u32;

/// Numbers of a resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    /// Home directory, `/` if the database has none.
    pub home: String,
}

/// Looks up `user[:group]` (empty = uid 0) and further groups in the container whose root is `root`.
pub fn resolve(root: &Rooted, spec: &str, groups: &[String]) -> Result<Resolved, StartError> {
    let (passwd, group) = (database(root, "/etc/passwd"), database(root, "/etc/group"));
    find(&passwd, &group, spec, groups).map_err(|text| StartError::new(Stage::User, 0, text))
}

/// The home directory of `uid`, `/` if unknown.
pub fn home_of(root: &Rooted, uid: u32) -> String {
    let passwd = database(root, "/etc/passwd");
    let entry = passwd.lines().filter_map(Entry::parse).find(|e| e.uid == uid);
    home(entry.as_ref())
}

/// A missing or unreadable database has no entries.
fn database(root: &Rooted, path: &str) -> String {
    root.read(path, MAX_DATABASE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    /// `name:password:uid:gid:gecos:home:shell`
    fn parse(line: &'a str) -> Option<Entry<'a>> {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let number = |n: usize| fields.get(n).and_then(|f| f.parse().ok());
        Some(Entry { name: fields[0], uid: number(2)?, gid: number(3)?, home: fields.get(5).unwrap_or(&"") })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    /// `name:password:gid:member,member`
    fn parse(line: &'a str) -> Option<Group<'a>> {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let gid = fields.get(2)?.parse().ok()?;
        Some(Group { name: fields[0], gid, members: fields.get(3).unwrap_or(&"") })
    }
}

fn home(entry: Option<&Entry<'_>>) -> String {
    entry.map(|e| e.home).filter(|h| !h.is_empty()).unwrap_or("/").to_owned()
}

fn find(passwd: &str, group: &str, spec: &str, extra: &[String]) -> Result<Resolved, String> {
    let (user, primary) = spec.split_once(':').unwrap_or((spec, ""));
    let number: Option<i64> = user.parse().ok();
    let mut entries = passwd.lines().filter_map(Entry::parse);
    let entry = match user {
        "" => entries.find(|e| e.uid == 0),
        name => entries.find(|e| e.name == name || Some(i64::from(e.uid)) == number),
    };
    let (uid, mut gid) = match (&entry, number) {
        (Some(e), _) => (e.uid, e.gid),
        (None, _) if user.is_empty() => (0, 0),
        (None, Some(n)) => (in_range(n)?, 0),
        (None, None) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
    };
    let mut groups = Vec::new();
    if !primary.is_empty() {
        gid = find_group(group, primary)?;
    } else if let Some(e) = &entry {
        let member = |g: &Group<'_>| g.members.split(',').any(|m| m == e.name);
        groups.extend(group.lines().filter_map(Group::parse).filter(member).map(|g| g.gid));
    }
    for name in extra {
        groups.push(find_group(group, name)?);
    }
    let mut all = vec![gid];
    for g in groups {
        if !all.contains(&g) {
            all.push(g);
        }
    }
    Ok(Resolved { uid, gid, groups: all, home: home(entry.as_ref()) })
}

fn find_group(group: &str, wanted: &str) -> Result<u32, String> {
    let number: Option<i64> = wanted.parse().ok();
    let found = group.lines().filter_map(Group::parse).find(|g| g.name == wanted || Some(i64::from(g.gid)) == number);
    match (found, number) {
        (Some(g), _) => Ok(g.gid),
        (None, Some(n)) => in_range(n),
        (None, None) => Err(format!("unable to find group {wanted}: no matching entries in group file")),
    }
}

fn in_range(number: i64) -> Result<u32, String> {
    u32::try_from(number)
        .ok()
        .filter(|n| *n <= MAX_ID)
        .ok_or_else(|| format!("uids and gids must be in range 0-{MAX_ID}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:w:/srv:/bin/sh\n7:x:99:98::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:34:\nadm:x:4:web\n";

    fn ok(spec: &str, extra: &[&str]) -> (u32, u32, Vec<u32>, String) {
        let extra: Vec<String> = extra.iter().map(|s| (*s).to_owned()).collect();
        let r = find(PASSWD, GROUP, spec, &extra).unwrap();
        (r.uid, r.gid, r.groups, r.home)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ok("", &[]), (0, 0, vec![0, 10], "/root".into()));
        assert_eq!(ok("web", &[]), (33, 34, vec![34, 10, 4], "/srv".into()));
        assert_eq!(ok("33", &["adm", "777"]), (33, 34, vec![34, 10, 4, 777], "/srv".into()));
        assert_eq!(ok("web:wheel", &[]), (33, 10, vec![10], "/srv".into()));
        assert_eq!(ok("1000:1001", &[]), (1000, 1001, vec![1001], "/".into()));
        assert_eq!(ok("1000", &[]), (1000, 0, vec![0], "/".into()));
        // A user whose name is a number.
        assert_eq!(ok("7", &[]), (99, 98, vec![98], "/".into()));
        assert_eq!(find("", "", "", &[]).unwrap().uid, 0);
    }

    #[test]
    fn refusals() {
        let text = |spec: &str| find(PASSWD, GROUP, spec, &[]).unwrap_err();
        assert_eq!(text("nouser"), "unable to find user nouser: no matching entries in passwd file");
        assert_eq!(text("web:nogroup"), "unable to find group nogroup: no matching entries in group file");
        assert_eq!(text("4294967296"), "uids and gids must be in range 0-2147483647");
        assert_eq!(text("-1"), "uids and gids must be in range 0-2147483647");
    }
}
