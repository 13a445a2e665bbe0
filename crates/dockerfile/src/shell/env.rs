//! Variables in the order in which they got their values.

/// What gives variables their values.
pub trait Variables {
    /// The value; `None`: not set.
    fn value(&self, name: &str) -> Option<&str>;

    /// All names that are set.
    fn names(&self) -> Vec<&str>;
}

/// A list of variables. One that is set again takes the last place, as in BuildKit's steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    entries: Vec<(String, String)>,
}

impl Env {
    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.remove(&name);
        self.entries.push((name, value.into()));
    }

    /// Forgets a variable.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|(known, _)| known != name);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all of them.
    pub fn size(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len() + 1).sum()
    }

    /// `NAME=value` each.
    pub fn lines(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Variables for Env {
    fn value(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// No variables at all.
impl Variables for () {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_again_is_the_last() {
        let mut env = Env::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            env.set(name, value);
        }
        assert_eq!(env.lines(), ["B=2", "A=3"]);
        assert_eq!((env.value("A"), env.value("C")), (Some("3"), None));
        env.remove("A");
        assert_eq!(env.names(), ["B"]);
    }
}
