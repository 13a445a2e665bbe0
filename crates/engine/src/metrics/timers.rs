//! How long calls took, by the names and in the buckets of the reference.

use std::collections::BTreeMap;
use std::time::Duration;

use model::lock::Mutex;

use super::text::Text;

/// Upper bounds in seconds: the defaults of Prometheus' client libraries.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An action on a container.
    Container,
    /// An action on a network.
    Network,
    /// An action on an image.
    Image,
    /// What is asked about the host.
    Host,
}

impl Subject {
    const ALL: [Subject; 4] = [Subject::Container, Subject::Network, Subject::Image, Subject::Host];

    const fn family(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Subject::Container => (
                "engine_daemon_container_actions_seconds",
                "The number of seconds it takes to process each container action",
                "action",
            ),
            Subject::Network => (
                "engine_daemon_network_actions_seconds",
                "The number of seconds it takes to process each network action",
                "action",
            ),
            Subject::Image => (
                "engine_daemon_image_actions_seconds",
                "The number of seconds it takes to process each image action",
                "action",
            ),
            Subject::Host => (
                "engine_daemon_host_info_functions_seconds",
                "The number of seconds it takes to call functions gathering info about the host",
                "function",
            ),
        }
    }
}

/// What images come and go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From a registry.
    Pull,
    /// To a registry.
    Push,
}

/// Calls by how long they took.
#[derive(Clone, Copy, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// All of them.
pub struct Timers(Mutex<BTreeMap<(Subject, &'static str), Histogram>>);

impl Default for Timers {
    /// The actions on containers are there before the first one, as with the reference.
    fn default() -> Timers {
        let known = ["changes", "commit", "create", "delete", "start"];
        Timers(Mutex::new(known.map(|action| ((Subject::Container, action), Histogram::default())).into()))
    }
}

impl Timers {
    /// Counts a call of the API that has succeeded.
    pub fn note(&self, method: &str, route: &str, took: Duration) {
        if let Some(key) = action(method, route) {
            self.add(key, took);
        }
    }

    /// Counts a pull or push that has succeeded: the call is answered long before it is done.
    pub fn note_transfer(&self, transfer: Transfer, took: Duration) {
        let action = match transfer {
            Transfer::Pull => "pull",
            Transfer::Push => "push",
        };
        self.add((Subject::Image, action), took);
    }

    fn add(&self, key: (Subject, &'static str), took: Duration) {
        let seconds = took.as_secs_f64();
        let mut all = self.0.lock();
        let histogram = all.entry(key).or_default();
        for (bound, count) in BUCKETS.iter().zip(&mut histogram.counts) {
            *count += u64::from(seconds <= *bound);
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    pub(super) fn write(&self, text: &mut Text) {
        let all = self.0.lock().clone();
        for subject in Subject::ALL {
            let of_subject: Vec<_> = all.iter().filter(|((of, _), _)| *of == subject).collect();
            if of_subject.is_empty() {
                continue;
            }
            let (name, about, label) = subject.family();
            let mut family = text.histogram(name, about);
            for ((_, action), histogram) in of_subject {
                for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
                    family.part("_bucket", &[(label, action), ("le", &bound.to_string())], count as f64);
                }
                family.part("_bucket", &[(label, action), ("le", "+Inf")], histogram.count as f64);
                family.part("_sum", &[(label, action)], histogram.sum);
                family.part("_count", &[(label, action)], histogram.count as f64);
            }
        }
    }
}

/// What a call is to the reference's metrics.
fn action(method: &str, route: &str) -> Option<(Subject, &'static str)> {
    Some(match (method, route) {
        ("POST", "/containers/create") => (Subject::Container, "create"),
        ("POST", "/containers/{name}/start") => (Subject::Container, "start"),
        ("GET", "/containers/{name}/changes") => (Subject::Container, "changes"),
        ("POST", "/commit") => (Subject::Container, "commit"),
        ("DELETE", "/containers/{name}") => (Subject::Container, "delete"),
        ("POST", "/networks/{id}/connect") => (Subject::Network, "connect"),
        ("POST", "/networks/{id}/disconnect") => (Subject::Network, "release"),
        ("DELETE", "/images/{name}") => (Subject::Image, "delete"),
        ("GET", "/images/{name}/history") => (Subject::Image, "history"),
        ("GET", "/info") => (Subject::Host, "system_info"),
        ("GET", "/version") => (Subject::Host, "system_version"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_fall_into_buckets() {
        let timers = Timers::default();
        timers.note("POST", "/containers/create", Duration::from_millis(7));
        timers.note("POST", "/containers/create", Duration::from_secs(20));
        timers.note("GET", "/containers/json", Duration::from_secs(20));
        timers.note_transfer(Transfer::Push, Duration::from_secs(3));
        let mut text = Text::default();
        timers.write(&mut text);
        let text = text.finish();
        for line in [
            r#"engine_daemon_container_actions_seconds_bucket{action="create",le="0.005"} 0"#,
            r#"engine_daemon_container_actions_seconds_bucket{action="create",le="0.01"} 1"#,
            r#"engine_daemon_container_actions_seconds_bucket{action="create",le="10"} 1"#,
            r#"engine_daemon_container_actions_seconds_bucket{action="create",le="+Inf"} 2"#,
            r#"engine_daemon_container_actions_seconds_sum{action="create"} 20.007"#,
            r#"engine_daemon_container_actions_seconds_count{action="start"} 0"#,
            r#"engine_daemon_image_actions_seconds_sum{action="push"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(text.matches("# TYPE").count(), 2);
    }
}
