//! firewalld: our bridges are in its zone `docker`, which accepts, and a policy lets in what is forwarded to that zone.
//!
//! Zone and policy have the names and settings that the reference gives them. They are permanent and made where they are
//! missing; the links are added to what is in force, so a reload forgets them and a signal tells of it. firewalld is asked
//! over the system bus, never started, and what it does not answer in time it is asked again later.

use std::time::{Duration, Instant};

use dbus::{Address, Call, Connection, Error, Message, Value};
use model::lock::{Mutex, MutexGuard};

/// Of the zone.
pub const ZONE: &str = "docker";
const POLICY: &str = "docker-forwarding";
const SERVICE: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const CONFIG_PATH: &str = "/org/fedoraproject/FirewallD1/config";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
const POLICIES: &str = "org.fedoraproject.FirewallD1.policy";
const CONFIG: &str = "org.fedoraproject.FirewallD1.config";
/// The error of a method that an older firewalld lacks.
const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";
/// Limit of one call. A reload writes all rules of the host.
const PATIENCE: Duration = Duration::from_secs(20);
/// After a call that was not answered, firewalld is not asked for this long.
const REST: Duration = Duration::from_secs(30);
/// What a service that comes or goes, or has read its configuration again, tells.
const SIGNALS: [&str; 2] = [
    "type='signal',interface='org.fedoraproject.FirewallD1',path='/org/fedoraproject/FirewallD1',member='Reloaded'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.fedoraproject.FirewallD1'",
];

/// What is known of firewalld on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// It had an owner on the bus when it was last asked or handle_signal of.
    pub runs: bool,
    /// When the bridges were last put back after a reload; nanoseconds since the epoch.
    pub reloaded_at: Option<i64>,
}

/// See the module.
pub struct Firewalld {
    bus: Vec<Address>,
    /// Held during a conversation.
    talking: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Known,
    rests_until: Option<Instant>,
    /// What was missing has been made and read; it is not tried again until another firewalld runs.
    made: bool,
}

impl Firewalld {
    /// Found on the bus at one of these addresses; without any there is none.
    pub fn new(bus: Vec<Address>) -> Firewalld {
        Firewalld { bus, talking: Mutex::default(), state: Mutex::default() }
    }

    /// Makes the zone and the policy where they are missing, and these links members of the zone. Nothing where no
    /// firewalld runs.
    pub fn keep(&self, links: &[String]) -> Result<(), Error> {
        if links.is_empty() {
            return Ok(());
        }
        self.with(|bus| {
            self.ensure_zone(bus)?;
            let members = members(bus)?;
            for link in links.iter().filter(|link| !members.contains(link)) {
                match ask(bus, ZONES, "addInterface", &[Value::text(ZONE), Value::text(link)]) {
                    Err(error) if is(&error, "ALREADY_ENABLED") => (),
                    Err(error) if is(&error, "ZONE_CONFLICT") => {
                        tracing::warn!(%error, link, "the link stays in another zone of firewalld, which decides about its packets");
                    }
                    other => drop(other?),
                }
            }
            Ok(())
        })
    }

    /// These links are members no more. Nothing where no firewalld runs.
    pub fn forget(&self, links: &[String]) -> Result<(), Error> {
        self.with(|bus| {
            let members = match members(bus) {
                Err(error) if is(&error, "INVALID_ZONE") => Vec::new(),
                other => other?,
            };
            for link in links.iter().filter(|link| members.contains(link)) {
                match ask(bus, ZONES, "removeInterface", &[Value::text(ZONE), Value::text(link)]) {
                    Err(error) if is(&error, "UNKNOWN_INTERFACE") => (),
                    other => drop(other?),
                }
            }
            Ok(())
        })
    }

    /// What is known, without asking.
    pub fn known(&self) -> Known {
        self.state().known
    }

    /// A connection that hears of reloads and of a firewalld that starts.
    pub fn listen(&self) -> Result<Connection, Error> {
        let mut connection = Connection::open(&self.bus, PATIENCE)?;
        SIGNALS.iter().try_for_each(|rule| connection.subscribe(rule))?;
        Ok(connection)
    }

    /// A signal came: `keep` is to be called again if the answer is `true`.
    pub fn handle_signal(&self, signal: &Message) -> bool {
        self.state().rests_until = None;
        match signal.member.as_deref() {
            Some("Reloaded") => true,
            Some("NameOwnerChanged") => {
                let runs = matches!(&signal.body[..], [_, _, Value::Text(owner)] if !owner.is_empty());
                let mut state = self.state();
                (state.known.runs, state.made) = (runs, false);
                runs
            }
            _ => false,
        }
    }

    /// The bridges were put back after a reload.
    pub fn put_back(&self, at: i64) {
        self.state().known.reloaded_at = Some(at);
    }

    /// Whether there may be a bus at all.
    pub fn has_bus(&self) -> bool {
        !self.bus.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is an assignment: a panic elsewhere leaves it right.
        self.state.lock()
    }

    /// Talks to firewalld where it runs, one conversation at a time.
    fn with(&self, talk: impl FnOnce(&mut Connection) -> Result<(), Error>) -> Result<(), Error> {
        let _turn = self.talking.lock();
        if self.bus.is_empty() || self.state().rests_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let talked = self.converse(talk);
        let failed = talked.as_ref().is_err_and(|error| !error.is_answer());
        self.state().rests_until = failed.then(|| Instant::now() + REST);
        talked
    }

    fn converse(&self, talk: impl FnOnce(&mut Connection) -> Result<(), Error>) -> Result<(), Error> {
        let mut connection = match Connection::open(&self.bus, PATIENCE) {
            Ok(connection) => connection,
            // Most hosts without firewalld have no bus either.
            Err(Error::Io(error)) if is_absent(&error) => {
                self.state().known.runs = false;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let runs = connection.has_owner(SERVICE)?;
        self.state().known.runs = runs;
        if runs { talk(&mut connection) } else { Ok(()) }
    }

    /// Makes zone and policy where they are missing; firewalld reads its configuration then.
    fn ensure_zone(&self, bus: &mut Connection) -> Result<(), Error> {
        if self.state().made {
            return Ok(());
        }
        let has = |answer: Vec<Value>, name: &str| names(answer).iter().any(|known| known == name);
        let has_zone = has(ask(bus, ZONES, "getZones", &[])?, ZONE);
        if !has_zone {
            make(bus, "addZone2", ZONE, zone())?;
        }
        let has_policy = match ask(bus, POLICIES, "getPolicies", &[]) {
            // Of a version without policies, which does not need one.
            Err(Error::Refused { name, .. }) if name == UNKNOWN_METHOD => true,
            other => has(other?, POLICY),
        };
        if !has_policy {
            make(bus, "addPolicy", POLICY, policy())?;
        }
        self.state().made = true;
        if has_zone && has_policy { Ok(()) } else { ask(bus, SERVICE, "reload", &[]).map(drop) }
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

/// firewalld's own errors begin with their code.
fn is(error: &Error, code: &str) -> bool {
    matches!(error, Error::Refused { text, .. } if text.starts_with(code))
}

fn ask(bus: &mut Connection, interface: &str, member: &str, body: &[Value]) -> Result<Vec<Value>, Error> {
    let path = if interface == CONFIG { CONFIG_PATH } else { PATH };
    bus.call(&Call { destination: SERVICE, path, interface, member, body })
}

/// Names of a list that is the whole answer.
fn names(answer: Vec<Value>) -> Vec<String> {
    match answer.into_iter().next() {
        Some(Value::Texts(names)) => names,
        _ => Vec::new(),
    }
}

fn members(bus: &mut Connection) -> Result<Vec<String>, Error> {
    ask(bus, ZONES, "getInterfaces", &[Value::text(ZONE)]).map(names)
}

fn entry(key: &str, value: Value) -> (String, Value) {
    (key.to_owned(), value)
}

fn zone() -> Vec<(String, Value)> {
    vec![
        entry("version", Value::text("1.0")),
        entry("description", Value::text("zone for docker bridge network interfaces")),
        entry("target", Value::text("ACCEPT")),
    ]
}

fn policy() -> Vec<(String, Value)> {
    vec![
        entry("version", Value::text("1.0")),
        entry("description", Value::text("allow forwarding to the docker zone")),
        entry("ingress_zones", Value::Texts(vec!["ANY".into()])),
        entry("egress_zones", Value::Texts(vec![ZONE.into()])),
        entry("target", Value::text("ACCEPT")),
    ]
}

/// A permanent zone or policy, unless there is one of the name.
fn make(bus: &mut Connection, method: &str, name: &str, settings: Vec<(String, Value)>) -> Result<(), Error> {
    match ask(bus, CONFIG, method, &[Value::text(name), Value::Entries(settings)]) {
        Err(error) if is(&error, "NAME_CONFLICT") => Ok(()),
        other => other.map(drop),
    }
}
