//! `kill -9` of the daemon at a hundred random moments of pull, load, tag, remove, prune and the making of containers:
//! what was acknowledged is there, what was removed is not, `gantryd check` is clean and nothing is left on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};
use testkit::command::{PATIENCE, eventually};
use testkit::fake_registry::{FakeRegistry, Image};
use testkit::images::{Tar, docker_archive};
use testkit::{Connection, Daemon, Options, soak};

use crate::daemon_killed::{command_of, killed_while_starting};
use crate::ledger::{Answered, Dice};

/// In `cargo xtask test` and in `cargo xtask soak`.
const ROUNDS: (usize, usize) = (100, 500);
const CLIENTS: u64 = 3;
/// Longest time that the daemon lives on in one round, in milliseconds.
const LONGEST_LIFE: u64 = 250;
/// Rounds between two checks.
const CHECKED: u64 = 10;
const REGISTRY: &str = "127.0.0.1:5001";

/// Whether a name leads to an image, or a container is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Here,
    Gone,
    /// The request that would have changed it was cut off.
    Either,
}

/// One client and what it may count on.
struct Client<'a> {
    number: u64,
    dice: Dice,
    made: u64,
    images: BTreeMap<String, May>,
    containers: BTreeMap<String, May>,
    volumes: BTreeMap<String, May>,
    answered: &'a Answered,
}

/// The daemon is gone.
struct Cut;

impl Client<'_> {
    fn new(number: u64, seed: u64, answered: &Answered) -> Client<'_> {
        let dice = Dice::new(seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let (images, containers, volumes) = Default::default();
        Client { number, dice, made: 0, images, containers, volumes, answered }
    }

    /// Works until the daemon dies.
    fn work(&mut self, socket: &Path) {
        let Ok(mut connection) = Connection::open(socket) else { return };
        while self.step(&mut connection).is_ok() {}
    }

    fn step(&mut self, c: &mut Connection) -> Result<(), Cut> {
        match self.dice.below(14) {
            0..=3 => self.pull(c),
            4..=5 => self.load(c),
            6 => self.tag(c),
            7..=8 => self.remove(c),
            9 => self.ask(c, ("POST", "/images/prune"), "", &[200, 409]).map(drop),
            10 => self.create(c),
            11 => self.discard(c),
            12 => self.make_volume(c),
            _ => self.remove_volume(c),
        }
    }

    /// Sends a request; any answer but the `good` ones is a failure of the test.
    fn ask(
        &mut self,
        c: &mut Connection,
        (method, path): (&str, &str),
        body: &str,
        good: &[u16],
    ) -> Result<String, Cut> {
        let answer = c.try_request(method, path, body).map_err(|_| Cut)?;
        assert!(good.contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        self.answered.add();
        Ok(answer.text())
    }

    fn pull(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let (repository, tag) = (format!("{REGISTRY}/app{}", self.number), 1 + self.dice.below(2));
        let name = format!("{repository}:{tag}");
        self.images.entry(name.clone()).and_modify(|may| *may = may.or_either()).or_insert(May::Either);
        let path = format!("/images/create?fromImage={repository}&tag={tag}");
        let lines = self.ask(c, ("POST", &path), "", &[200])?;
        assert!(lines.contains("Status: ") && !lines.contains("errorDetail"), "{lines}");
        self.images.insert(name, May::Here);
        Ok(())
    }

    fn load(&mut self, c: &mut Connection) -> Result<(), Cut> {
        // Without a name it dangles, and is what prunes take.
        let named = self.dice.below(3) > 0;
        let name = format!("load{}:latest", self.number);
        if named {
            self.images.entry(name.clone()).and_modify(|may| *may = may.or_either()).or_insert(May::Either);
        }
        let archive = archive(if named { &name } else { "" }, self.dice.below(4));
        let length = archive.len();
        let head = format!("POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nContent-Length: {length}\r\n\r\n");
        let sent = c.send(head.as_bytes()).and_then(|()| c.send(&archive)).and_then(|()| c.head());
        let answer = sent.and_then(|head| Ok((head.status, c.body(&head)?))).map_err(|_| Cut)?;
        let text = String::from_utf8_lossy(&answer.1);
        assert!(answer.0 == 200 && !text.contains("errorDetail"), "load: {} {text}", answer.0);
        self.answered.add();
        if named {
            self.images.insert(name, May::Here);
        }
        Ok(())
    }

    /// One of the names that surely lead to an image.
    fn any_image(&mut self) -> Option<String> {
        pick(&mut self.dice, &self.images)
    }

    fn tag(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let Some(image) = self.any_image() else { return Ok(()) };
        self.made += 1;
        let repository = format!("tag{}-{}", self.number, self.made);
        let name = format!("{repository}:latest");
        self.images.insert(name.clone(), May::Either);
        self.ask(c, ("POST", &format!("/images/{image}/tag?repo={repository}&tag=latest")), "", &[201])?;
        self.images.insert(name, May::Here);
        Ok(())
    }

    fn remove(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let Some(image) = self.any_image() else { return Ok(()) };
        self.images.insert(image.clone(), May::Either);
        self.ask(c, ("DELETE", &format!("/images/{image}?force=1")), "", &[200])?;
        self.images.insert(image, May::Gone);
        Ok(())
    }

    fn create(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let Some(image) = self.any_image() else { return Ok(()) };
        self.made += 1;
        let name = format!("of{}-{}", self.number, self.made);
        self.containers.insert(name.clone(), May::Either);
        let body = json!({"Image": image, "Cmd": ["/x"]}).to_string();
        self.ask(c, ("POST", &format!("/containers/create?name={name}")), &body, &[201])?;
        self.containers.insert(name, May::Here);
        Ok(())
    }

    fn discard(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let Some(name) = pick(&mut self.dice, &self.containers) else { return Ok(()) };
        self.containers.insert(name.clone(), May::Either);
        self.ask(c, ("DELETE", &format!("/containers/{name}")), "", &[204])?;
        self.containers.insert(name, May::Gone);
        Ok(())
    }

    fn make_volume(&mut self, c: &mut Connection) -> Result<(), Cut> {
        self.made += 1;
        let name = format!("vol{}-{}", self.number, self.made);
        self.volumes.insert(name.clone(), May::Either);
        let made = self.ask(c, ("POST", "/volumes/create"), &json!({"Name": name}).to_string(), &[201])?;
        let made: Value = serde_json::from_str(&made).unwrap();
        let data = Path::new(made["Mountpoint"].as_str().unwrap()).join("file");
        std::fs::write(data, &name).unwrap();
        self.volumes.insert(name, May::Here);
        Ok(())
    }

    fn remove_volume(&mut self, c: &mut Connection) -> Result<(), Cut> {
        let Some(name) = pick(&mut self.dice, &self.volumes) else { return Ok(()) };
        self.volumes.insert(name.clone(), May::Either);
        self.ask(c, ("DELETE", &format!("/volumes/{name}")), "", &[204])?;
        self.volumes.insert(name, May::Gone);
        Ok(())
    }

    /// Whether it has asked for a thing of this name.
    fn knows(&self, name: &str) -> bool {
        [&self.images, &self.containers, &self.volumes].iter().any(|mine| mine.contains_key(name))
    }

    /// Compares with what the new daemon has, and goes on from there.
    fn verify(&mut self, round: u64, found: &[BTreeSet<String>; 3]) {
        for (mine, found) in [&mut self.images, &mut self.containers, &mut self.volumes].into_iter().zip(found) {
            for (name, may) in &*mine {
                let here = found.contains(name);
                assert!(
                    *may == May::Either || (*may == May::Here) == here,
                    "round {round}: {name} is {may:?}, here: {here}"
                );
            }
            mine.retain(|name, _| found.contains(name));
            mine.values_mut().for_each(|may| *may = May::Here);
        }
    }
}

impl May {
    /// While the same thing is made once more: what is here stays here.
    fn or_either(self) -> May {
        if self == May::Here { May::Here } else { May::Either }
    }
}

fn pick(dice: &mut Dice, of: &BTreeMap<String, May>) -> Option<String> {
    let here: Vec<_> = of.iter().filter(|(_, may)| **may == May::Here).map(|(name, _)| name).collect();
    if here.is_empty() { None } else { Some(here[dice.below(here.len() as u64) as usize].clone()) }
}

/// A small image of two layers, one of them the same for all.
fn archive(name: &str, variant: u64) -> Vec<u8> {
    let layer = |n: u64| {
        let files = (0..40).map(|file| (format!("dir-{n}/file-{file}"), vec![n as u8; 3000]));
        files.fold(Tar::new(), |tar, (path, content)| tar.file(&path, 0o644, &content)).bytes()
    };
    let layers = [layer(100), layer(variant)];
    let archive = docker_archive(if name.is_empty() { "NAME" } else { name }, &layers, &json!({"Cmd": ["/x"]}));
    if name.is_empty() { without_name(archive) } else { archive }
}

/// The archive with no name in its manifest.
fn without_name(mut archive: Vec<u8>) -> Vec<u8> {
    // As long as what stood there, so that the member keeps its size.
    let (named, unnamed) = (br#""RepoTags":["NAME"]"#, br#""RepoTags":[]      "#);
    let at = archive.windows(named.len()).position(|bytes| bytes == named).expect("a manifest has tags");
    archive[at..at + named.len()].copy_from_slice(unnamed);
    archive
}

/// All names: of images, of containers, of volumes.
fn listed(d: &Daemon) -> [BTreeSet<String>; 3] {
    let list = |path: &str| d.http("GET", path, "").expect(200).json();
    let text = |name: &Value| name.as_str().unwrap().trim_start_matches('/').to_owned();
    let names = |list: Value, key: &str| -> BTreeSet<String> {
        let list = list.as_array().unwrap().iter();
        list.flat_map(|one| one[key].as_array().unwrap()).map(text).collect()
    };
    let volumes = list("/volumes")["Volumes"].clone();
    let volumes = volumes.as_array().into_iter().flatten();
    [
        names(list("/images/json?all=1"), "RepoTags"),
        names(list("/containers/json?all=1"), "Names"),
        volumes.map(|volume| text(&volume["Name"])).collect(),
    ]
}

/// Every path below the data root. Directories may go meanwhile.
fn paths(d: &Daemon) -> BTreeSet<PathBuf> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![d.data_root().to_path_buf()]);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

#[test]
fn a_hundred_times_while_images_come_and_go() {
    let mut d = Options::new().start();
    let empty = paths(&d);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed}");
    let registry = FakeRegistry::inside(d.namespaces(), REGISTRY);
    for client in 0..CLIENTS {
        registry.image(&format!("app{client}"), "1", &Image::of_noise(&[300_000, 200_000, 400_000]));
        registry.image(&format!("app{client}"), "2", &Image::of_noise(&[300_000, 500_000]));
    }
    registry.slow(8 << 20);
    let command = command_of(&d);
    let mut dice = Dice::new(seed);
    let answered = Answered::default();
    let mut clients: Vec<Client<'_>> = (0..CLIENTS).map(|client| Client::new(client, seed, &answered)).collect();
    let rounds = soak::rounds(ROUNDS.0, ROUNDS.1) as u64;
    for round in 0..rounds {
        let socket = d.socket();
        let worked = std::thread::scope(|scope| {
            for client in &mut clients {
                let socket = &socket;
                scope.spawn(move || client.work(socket));
            }
            let worked = answered.random_moment(round, 2 * CLIENTS, &mut dice, LONGEST_LIFE);
            d.kill9();
            worked
        });
        assert!(worked, "round {round}: only {} requests were answered", answered.count());
        if round % 5 == 4 {
            killed_while_starting(&d, &command, dice.below(60));
        }
        d.again();
        let found = listed(&d);
        clients.iter_mut().for_each(|client| client.verify(round, &found));
        let foreign: Vec<_> =
            found.iter().flatten().filter(|name| !clients.iter().any(|client| client.knows(name))).collect();
        assert!(foreign.is_empty(), "round {round}: nobody asked for {foreign:?}");
        if round % CHECKED == CHECKED - 1 {
            assert_eq!(d.faults(), [""; 0], "round {round}");
        }
    }
    assert!(answered.count() >= rounds * CLIENTS);
    eprintln!("{} requests were answered", answered.count());
    empty_again(&d, &registry);
    // What is removed leaves the disk in the background.
    let mut left = paths(&d);
    eventually(PATIENCE, || {
        left = paths(&d);
        left == empty
    });
    assert_eq!(left, empty, "left on the disk");
    drop(registry);
    d.finish();
}

/// Removes everything. Parts of pulls that broke off are used up by pulls that end.
fn empty_again(d: &Daemon, registry: &FakeRegistry) {
    registry.slow(0);
    d.remove_containers();
    for tag in ["1", "2"] {
        let _ = d.docker(&["pull", "-q", &format!("{REGISTRY}/app0:{tag}")]).ok();
    }
    assert_eq!(d.faults(), [""; 0]);
    let [images, _, volumes] = listed(d);
    for image in images {
        let _ = d.http("DELETE", &format!("/images/{image}?force=1"), "").expect(200);
    }
    for volume in volumes {
        let data = d.data_root().join("volumes").join(&volume).join("_data/file");
        // None, if the request that made it was cut off.
        let text = std::fs::read_to_string(data).unwrap_or_default();
        assert!(text.is_empty() || text == volume, "{volume}: {text}");
        let _ = d.http("DELETE", &format!("/volumes/{volume}"), "").expect(204);
    }
    let _ = d.http("POST", "/images/prune", "").expect(200);
    assert_eq!(d.faults(), [""; 0]);
}
