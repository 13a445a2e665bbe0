//! Who a container's process is: `user[:group]`, each by name or number. Looking names up is not done here.

/// The highest id the kernel takes as one.
pub const MAX_ID: u32 = i32::MAX as u32;

/// A user and perhaps a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSpec {
    /// Name or number; empty: root.
    pub user: String,
    /// Name or number; `None`: the user's own.
    pub group: Option<String>,
}

impl UserSpec {
    /// Splits the text; everything can be a name, so nothing is refused.
    pub fn parse(text: &str) -> UserSpec {
        match text.split_once(':') {
            Some((user, group)) => {
                UserSpec { user: user.to_owned(), group: Some(group.to_owned()).filter(|g| !g.is_empty()) }
            }
            None => UserSpec { user: text.to_owned(), group: None },
        }
    }

    /// The user as a number, if it is one.
    pub fn uid(&self) -> Option<u32> {
        number(&self.user)
    }

    /// The group as a number, if it is one.
    pub fn gid(&self) -> Option<u32> {
        self.group.as_deref().and_then(number)
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_by_name_or_number() {
        let spec = UserSpec::parse("1000:staff");
        assert_eq!((spec.uid(), spec.group.as_deref(), spec.gid()), (Some(1000), Some("staff"), None));
        assert_eq!(UserSpec::parse("web"), UserSpec { user: "web".into(), group: None });
        assert_eq!(UserSpec::parse(""), UserSpec::default());
        assert_eq!(UserSpec::parse("a:").group, None);
        assert_eq!(UserSpec::parse(":5").gid(), Some(5));
        assert_eq!(UserSpec::parse("4294967295").uid(), None);
    }
}
