//! `user[:group]` against the container's own `/etc/passwd` and `/etc/group`, with the reference's rules and texts.
//!
//! The files are read through [`Rooted`], bounded, and parsed leniently: broken lines are skipped. Pure apart from the two
//! reads.

use std::io;
use std::os::fd::BorrowedFd;

use sys::clone::Flags;
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

/// As [`resolve`], in the mounts of a running container, by a pidfd. The calling thread enters them for good: it is nobody
/// else's, and ends then.
///
/// Errors: those of the kernel; `ESRCH` for a process that has ended.
pub fn resolve_inside(
    process: BorrowedFd<'_>,
    spec: &str,
    groups: &[String],
) -> io::Result<Result<Resolved, StartError>> {
    // A thread that shares its root with others joins no mount namespace (setns(2)).
    sys::ns::unshare(Flags::NEWNS)?;
    sys::ns::join(process, Flags::NEWNS)?;
    Ok(resolve(&Rooted::open_dir("/")?, spec, groups))
}

/// The same where all are numbers, for which nothing is read; `None` where one is a name.
pub fn resolve_numbers(spec: &str, groups: &[String]) -> Option<Result<Resolved, StartError>> {
    let is_number = |text: &str| text.is_empty() || given(text).is_some();
    let all = spec.splitn(2, ':').chain(groups.iter().map(String::as_str)).all(is_number);
    all.then(|| find("", "", spec, groups).map_err(|text| StartError::new(Stage::User, 0, text)))
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
        let number = |n: usize| fields.get(n).and_then(|field| id(field));
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
        let gid = id(fields.get(2)?)?;
        Some(Group { name: fields[0], gid, members: fields.get(3).unwrap_or(&"") })
    }
}

/// A number of a database. One that no type holds is too large as well; an entry must not vanish for it, or another one
/// of that name would count.
fn id(field: &str) -> Option<u32> {
    let digits = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| field.parse().unwrap_or(u32::MAX))
}

/// What a user gave as a number. One that no type holds is out of range, not a name.
fn given(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    number.then(|| text.parse().unwrap_or(i64::MAX))
}

fn home(entry: Option<&Entry<'_>>) -> String {
    entry.map(|e| e.home).filter(|h| !h.is_empty()).unwrap_or("/").to_owned()
}

fn find(passwd: &str, group: &str, spec: &str, extra: &[String]) -> Result<Resolved, String> {
    let (user, primary) = spec.split_once(':').unwrap_or((spec, ""));
    let number = given(user);
    let mut entries = passwd.lines().filter_map(Entry::parse);
    let entry = match user {
        "" => entries.find(|e| e.uid == 0),
        name => entries.find(|e| e.name == name || Some(i64::from(e.uid)) == number),
    };
    let (uid, mut gid) = match (&entry, number) {
        // setresuid(2) takes 4294967295 for "as it is", which is root.
        (Some(e), _) => (in_range(i64::from(e.uid))?, in_range(i64::from(e.gid))?),
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
    groups.iter().try_for_each(|gid| in_range(i64::from(*gid)).map(drop))?;
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
    let number = given(wanted);
    let found = group.lines().filter_map(Group::parse).find(|g| g.name == wanted || Some(i64::from(g.gid)) == number);
    match (found, number) {
        (Some(g), _) => in_range(i64::from(g.gid)),
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

    /// setresuid(2) and setresgid(2) take -1 for "as it is", and the kernel's own ids end at 2^31 - 1 for the reference.
    #[test]
    fn ids_above_the_range_are_refused_wherever_they_stand() {
        const OUT: &str = "uids and gids must be in range 0-2147483647";
        for big in
            ["2147483648", "4294967294", "4294967295", "4294967296", "18446744073709551615", "99999999999999999999999"]
        {
            let passwd = format!("root:x:0:0::/:/\nu:x:{big}:5::/:/\ng:x:5:{big}::/:/\nm:x:6:6::/:/\n");
            let group = format!("big:x:{big}:m\n");
            let refused = |spec: &str, extra: &[&str]| {
                let extra: Vec<String> = extra.iter().map(|e| (*e).to_owned()).collect();
                assert_eq!(find(&passwd, &group, spec, &extra).unwrap_err(), OUT, "{spec} {extra:?} {big}");
            };
            for spec in ["u", "g", "m", "0:big", big, &format!("-{big}"), &format!("0:{big}")] {
                refused(spec, &[]);
            }
            refused("0", &["big"]);
            refused("0", &[big]);
            assert_eq!(find(&passwd, &group, "0", &[]).unwrap().uid, 0);
        }
        let highest = find("u:x:2147483647:2147483647::/:/\n", "", "u", &[]).unwrap();
        assert_eq!((highest.uid, highest.gid), (2147483647, 2147483647));
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
