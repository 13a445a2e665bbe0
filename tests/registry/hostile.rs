//! Hostile content by every way in: pulled, loaded as Docker's archive and as an OCI layout, imported.
//!
//! Whatever is refused leaves nothing: no image, no blob, no layer, no space taken. Whatever is taken stays inside. A
//! directory of canaries beside the data root is hashed before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use testkit::command::Output;
use testkit::fake_registry::{CONFIG, FakeRegistry, INDEX, Image, LAYER_GZIP, MANIFEST, descriptor, gzip, noise};
use testkit::images::{self, EntryType, Tar, sha256};
use testkit::{Daemon, Options};

use crate::{assert_nothing, eventually};

const NAME: &str = "127.0.0.1:5001/app:1";
/// What the store may have grown by after everything was taken back: its database.
const SLACK: u64 = 2 << 20;
/// The daemon's memory at its peak, whatever it is sent.
const MEMORY: u64 = 120 << 20;

/// How an image can come.
#[derive(Clone, Copy, Debug)]
enum Way {
    Pull,
    Load,
    Layout,
    Import,
}

const WAYS: [Way; 4] = [Way::Pull, Way::Load, Way::Layout, Way::Import];

struct Place {
    d: Daemon,
    fake: FakeRegistry,
    canary: PathBuf,
    before: BTreeMap<PathBuf, String>,
    used: u64,
}

impl Place {
    fn new(options: Options) -> Place {
        let d = options.start();
        let fake = FakeRegistry::inside(d.namespaces(), "127.0.0.1:5001");
        let canary = d.path("canary");
        fs::create_dir_all(canary.join("deep/er")).unwrap();
        for (file, content) in [("file", "untouched"), ("deep/er/passwd", "root:x:0:0"), ("deep/.hidden", "")] {
            fs::write(canary.join(file), content).unwrap();
        }
        // What is made once and stays is made now.
        fake.image("app", "1", &Image::new(&[Tar::new().file("x", 0o644, b"x").bytes()], &json!({})));
        let place = Place { before: hashes(&canary), d, fake, canary, used: 0 };
        let _ = place.d.docker(&["pull", "-q", NAME]).ok();
        let _ = place.d.docker(&["rmi", NAME]).ok();
        Place { used: place.used(), ..place }
    }

    /// Bytes that the data root's files take, but for what was fetched of unfinished blobs: that expires.
    fn used(&self) -> u64 {
        let root = self.d.data_root().display().to_string();
        let text = self.d.exec_inside(&["du", "-s", "-B1", "--exclude=parts", &root]).text();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The most memory that the daemon took since this was asked last.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.d.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        fs::write(format!("/proc/{}/clear_refs", self.d.pid()), "5").unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends layers as an image.
    fn send(&self, way: Way, tars: &[Vec<u8>]) -> Output {
        let image = Image::new(tars, &json!({"Cmd": ["/x"]}));
        match way {
            Way::Pull => {
                self.fake.image("app", "1", &image);
                self.d.docker(&["pull", NAME])
            }
            Way::Load => self.d.docker_input(&["load"], &images::docker_archive(NAME, tars, &json!({}))),
            Way::Layout => self.d.docker_input(&["load"], &layout(&image)),
            Way::Import => self.d.docker_input(&["import", "-", NAME], &gzip(&tars[0])),
        }
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(hashes(&self.canary), self.before, "the canary changed");
    }

    /// Nothing is left of what was sent, and the daemon did not swell.
    #[track_caller]
    fn nothing_left(&self, what: &str) {
        self.untouched();
        assert_nothing(&self.d);
        let used = self.used();
        assert!(used <= self.used + SLACK, "{what}: {} bytes are still taken", used - self.used);
        let peak = self.peak();
        assert!(peak <= MEMORY, "{what}: {} MB of memory", peak >> 20);
    }

    #[track_caller]
    fn refused(&self, way: Way, tars: &[Vec<u8>], text: &str) {
        let output = self.send(way, tars);
        if matches!(way, Way::Load | Way::Layout) {
            // The image comes in as it is, to be looked at or sent on; nothing of it is unpacked and nothing runs.
            assert!(output.stdout.contains("Error unpacking image") && output.stdout.contains(text), "{output:?}");
            let _ = self.d.docker(&["image", "inspect", NAME]).ok();
            assert_ne!(self.d.docker(&["run", "--rm", NAME, "/x"]).code, 0);
            let _ = self.d.docker(&["rmi", NAME]).ok();
            return self.nothing_left(text);
        }
        assert_ne!(output.code, 0, "{way:?} was taken: {output:?}");
        assert!(output.stderr.contains(text), "{way:?}: {text:?} is not in {output:?}");
        self.nothing_left(text);
    }

    fn finish(self) {
        drop(self.fake);
        self.d.finish();
    }
}

/// Everything below a directory: kind, mode, owner, links, content.
fn hashes(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { sha256(&fs::read(&path).unwrap()) } else { String::new() };
        let owner = (meta.uid(), meta.gid(), meta.nlink(), meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, format!("{:o} {owner:?} {content}", meta.mode()));
    }
    found
}

fn layout(image: &Image) -> Vec<u8> {
    let mut entry = descriptor(MANIFEST, &image.manifest);
    entry["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string();
    let start = Tar::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    let blobs = image.layers.iter().chain([&image.config, &image.manifest]);
    let add = |tar: Tar, blob: &Vec<u8>| tar.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob);
    blobs.fold(start.file("index.json", 0o644, index.as_bytes()), add).bytes()
}

fn raw(name: &str, kind: EntryType, link: &str) -> Vec<u8> {
    Tar::new().raw(name, kind, link, (0, b"")).bytes()
}

#[test]
fn tars_that_climb_out_are_refused() {
    let place = Place::new(Options::new());
    let file = EntryType::Regular;
    let cases = [
        (raw("../../canary/new", file, ""), "is outside of the layer"),
        (raw("a/../../../canary/file", file, ""), "is outside of the layer"),
        (raw("hard", EntryType::Link, "../../canary/file"), "is outside of the layer"),
        (raw("hard", EntryType::Link, "/etc/hostname"), "hard link to /etc/hostname"),
        (raw("d/.wh.", file, ""), "invalid whiteout"),
        (raw(".wh..", file, ""), "invalid whiteout"),
        (raw(".wh...", file, ""), "invalid whiteout"),
        (
            Tar::new()
                .symlink("l", &place.canary.display().to_string())
                .raw("h", EntryType::Link, "l/file", (0, b""))
                .bytes(),
            "hard link to l/file",
        ),
    ];
    for (tar, text) in &cases {
        for way in WAYS {
            place.refused(way, std::slice::from_ref(tar), text);
        }
    }
    place.finish();
}

#[test]
fn tars_that_are_malformed_are_refused() {
    let place = Place::new(Options::new());
    let whole = Tar::new().file("x", 0o644, &noise(1, 4000)).bytes();
    let mut spoilt = whole.clone();
    spoilt[0] ^= 1;
    let long = |kind: u8, size: u64| {
        Tar::new().raw("long", EntryType::new(kind), "", (size, &vec![b'n'; size as usize])).bytes()
    };
    let specials = (0..20).fold(Tar::new(), |tar, _| tar.raw("p", EntryType::XHeader, "", (0, b"")));
    let cases = [
        (whole[..2000].to_vec(), "unexpected EOF"),
        (spoilt, "invalid tar header"),
        (Tar::new().raw("x", EntryType::Regular, "", (1 << 38, b"short")).bytes()[..1024].to_vec(), "unexpected EOF"),
        (long(b'L', 2 << 20), "header field too long"),
        ([long(b'L', 5000), raw("x", EntryType::Regular, "")].concat().into_iter().collect(), "name too long"),
        (specials.bytes(), "too many extended headers"),
    ];
    for (tar, text) in &cases {
        // The end mark within a concatenation ends an archive: it is cut out.
        let tar = if *text == "name too long" { without_end_marks(tar) } else { tar.clone() };
        for way in WAYS {
            place.refused(way, std::slice::from_ref(&tar), text);
        }
    }
    place.finish();
}

/// The archive without blocks of zeros.
fn without_end_marks(tar: &[u8]) -> Vec<u8> {
    tar.chunks(512).filter(|block| block.iter().any(|byte| *byte != 0)).flatten().copied().collect()
}

/// Links that lead out lead nowhere: what goes through them stays inside.
#[test]
fn tars_whose_links_lead_out_are_confined() {
    let place = Place::new(Options::new());
    let target = place.canary.display().to_string();
    let up = format!("{}{target}", "../".repeat(24));
    let tars = [
        Tar::new().symlink("out", &target).file("out/file", 0o644, b"evil").file("out/new", 0o644, b"evil").bytes(),
        Tar::new()
            .symlink("out", &up)
            .file("out/file", 0o644, b"evil")
            .file("out/deep/er/passwd", 0o644, b"evil")
            .bytes(),
        Tar::new().symlink("a", "/").symlink("b", "a/../..").file(&format!("b{target}/file"), 0o644, b"evil").bytes(),
        Tar::new().symlink("file", &format!("{target}/file")).file("file", 0o666, b"evil").bytes(),
        Tar::new().symlink("out", &target).file("out/.wh.file", 0, b"").file("out/.wh..wh..opq", 0, b"").bytes(),
        Tar::new()
            .dir("d", 0o755)
            .file("d/f", 0o644, b"1")
            .symlink("d", &target)
            .file("d/file", 0o644, b"evil")
            .bytes(),
        Tar::new().symlink("out", &target).dir("out", 0o777).dir("out/deep", 0).bytes(),
        Tar::new().raw(&format!("{target}/file"), EntryType::Regular, "", (4, b"evil")).bytes(),
        Tar::new().file(".wh..wh..opq", 0, b"").raw("./", EntryType::Directory, "", (0, b"")).bytes(),
        Tar::new()
            .raw("null", EntryType::Char, "", (0, b""))
            .raw("ram", EntryType::Block, "", (0, b""))
            .raw("fifo", EntryType::Fifo, "", (0, b""))
            .bytes(),
    ];
    for tar in &tars {
        for way in WAYS {
            let output = place.send(way, std::slice::from_ref(tar));
            place.untouched();
            if output.code == 0 {
                let _ = place.d.docker(&["rmi", NAME]).ok();
            }
            place.nothing_left(&format!("{way:?}: {output:?}"));
        }
    }
    // One layer's link is not followed by the layer above either.
    let layers = [Tar::new().symlink("out", &target).bytes(), Tar::new().file("out/file", 0o644, b"evil").bytes()];
    for way in [Way::Pull, Way::Load, Way::Layout] {
        let _ = place.send(way, &layers).ok();
        let _ = place.d.docker(&["create", "--name", "c", NAME, "/x"]).ok();
        let exported = place.d.path("exported.tar").display().to_string();
        let _ = place.d.docker(&["export", "-o", &exported, "c"]).ok();
        let exported = fs::read(exported).unwrap();
        assert!(!exported.windows(9).any(|window| window == b"untouched"), "the canary was read");
        place.untouched();
        place.d.remove_containers();
        let _ = place.d.docker(&["rmi", NAME]).ok();
    }
    place.nothing_left("two layers");
    place.finish();
}

/// As deep as a name can be, with nothing of it in the archive: the daemon lives, and the image is one like any other.
#[test]
fn names_as_deep_as_can_be_are_taken() {
    let place = Place::new(Options::new());
    let tar = Tar::new().file(&format!("{}f", "d/".repeat(1900)), 0o644, b"x").bytes();
    for way in WAYS {
        let _ = place.send(way, std::slice::from_ref(&tar)).ok();
        let _ = place.d.docker(&["create", "--name", "c", NAME, "/x"]).ok();
        let exported = place.d.path("exported.tar").display().to_string();
        let _ = place.d.docker(&["export", "-o", &exported, "c"]).ok();
        place.d.remove_containers();
        let _ = place.d.docker(&["rmi", NAME]).ok();
        place.nothing_left(&format!("{way:?}"));
    }
    place.finish();
}

/// A gibibyte of equal bytes in a megabyte, on a disk that has no room for it.
#[test]
fn bombs_are_refused_by_the_disk_and_cleaned_up() {
    let place = Place::new(Options::new().disk("96m"));
    let bomb = bomb(1 << 30);
    let text = "no space left on device";
    let mut image = Image::new(&[Tar::new().bytes()], &json!({}));
    let swap = |image: &mut Image| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["layers"][0] = descriptor(LAYER_GZIP, &bomb);
        image.manifest = manifest.to_string().into_bytes();
        image.layers = vec![bomb.clone()];
    };
    swap(&mut image);
    let _ = place.peak();
    place.fake.image("app", "1", &image);
    place.d.docker(&["pull", NAME]).fails(1, text);
    place.nothing_left("pull");
    place.d.docker_input(&["load"], &layout(&image)).fails(1, text);
    place.nothing_left("layout");
    place.d.docker_input(&["import", "-", NAME], &bomb).fails(1, text);
    place.nothing_left("import");
    // An archive that is one itself, and one whose member is.
    place.d.docker_input(&["load"], &bomb).fails(1, text);
    place.nothing_left("load");
    let huge = Image::of_noise(&[120 << 20]);
    place.d.docker_input(&["load"], &layout(&huge)).fails(1, text);
    place.nothing_left("a layer larger than the disk");
    // With the disk's room back, all is well.
    let good = Image::new(&[Tar::new().file("x", 0o644, b"1").bytes()], &json!({}));
    let _ = place.d.docker_input(&["load"], &layout(&good)).ok();
    place.finish();
}

/// A gzip of a tar with one file of so many zeros.
fn bomb(size: u64) -> Vec<u8> {
    let head = Tar::new().raw("zeros", EntryType::Regular, "", (size, b"")).bytes();
    let mut out = gzip(&head[..512]);
    // Members of gzip follow each other: one piece is compressed once and repeated.
    let piece = gzip(&vec![1; 16 << 20]);
    (0..size / (16 << 20)).for_each(|_| out.extend(&piece));
    out.extend(gzip(&[0; 1024]));
    out
}

/// Memory that an archive could make the daemon take by what it says of itself.
#[test]
fn names_and_documents_do_not_fill_the_memory() {
    let place = Place::new(Options::new());
    let _ = place.peak();
    // 80 names of a megabyte each.
    let name = Tar::new().raw("l", EntryType::GNULongName, "", (1 << 20, &vec![b'n'; 1 << 20])).bytes();
    let name = without_end_marks(&name);
    let entry = without_end_marks(&raw("x", EntryType::Symlink, "y"));
    let archive: Vec<u8> = (0..80).flat_map(|_| name.iter().chain(&entry).copied()).collect();
    place.d.docker_input(&["load"], &gzip(&archive)).fails(1, "the archive's documents are too large");
    place.nothing_left("names");
    // A configuration that is all brackets, as deep and as wide as it may be.
    for config in [format!("{}{}", "[".repeat(4 << 20), "]".repeat(4 << 20)), format!("[{}0]", "0,".repeat(4_000_000))]
    {
        let image = Image::new(&[Tar::new().bytes()], &json!({}));
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["config"] = descriptor(CONFIG, config.as_bytes());
        let image = Image { manifest: manifest.to_string().into_bytes(), config: config.into_bytes(), ..image };
        place.fake.image("app", "1", &image);
        place.d.docker(&["pull", NAME]).fails(1, "invalid image configuration");
        place.nothing_left("pulled");
        place.d.docker_input(&["load"], &layout(&image)).fails(1, "invalid image configuration");
        place.nothing_left("loaded");
    }
    place.finish();
}

/// What an archive of images says of its members.
#[test]
fn archives_that_lie_are_refused() {
    let place = Place::new(Options::new());
    let image = Image::new(&[Tar::new().file("x", 0o644, &noise(7, 5000)).bytes()], &json!({}));
    let load = |archive: &[u8], text: &str| {
        place.d.docker_input(&["load"], archive).fails(1, text);
        place.nothing_left(text);
    };
    let good = layout(&image);
    let at = good.windows(8).position(|window| window == &image.layers[0][..8]).unwrap();
    let mut spoilt = good.clone();
    spoilt[at + 100] ^= 1;
    load(&spoilt, "digest");
    load(&good[..at + 100], "unexpected EOF");
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        change(&mut manifest);
        layout(&Image { manifest: manifest.to_string().into_bytes(), ..image.clone() })
    };
    load(&with(&|m| m["manifests"] = json!([descriptor(MANIFEST, b"x")])), "it has \"manifests\" as well");
    load(&with(&|m| m["layers"] = json!(vec![m["layers"][0].clone(); 10_000])), "layers, at most");
    load(&with(&|m| m["layers"][0]["digest"] = json!("sha256:../../x")), "checksum digest");
    load(&with(&|m| m["layers"][0]["size"] = json!(-1)), "negative size");
    load(&with(&|m| m["layers"] = json!([])), "mismatched image rootfs and manifest layers");
    let other = gzip(&Tar::new().file("evil", 0o644, b"x").bytes());
    let mut lying = image.clone();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0] = descriptor(LAYER_GZIP, &other);
    (lying.manifest, lying.layers) = (manifest.to_string().into_bytes(), vec![other]);
    let output = place.d.docker_input(&["load"], &layout(&lying)).ok();
    let unpacking = format!("Error unpacking image {NAME}: wrong diff id calculated on extraction");
    assert!(output.stdout.contains(&unpacking), "{output:?}");
    let _ = place.d.docker(&["rmi", NAME]).ok();
    place.nothing_left("another layer");
    let docker = |manifest: &str| {
        Tar::new()
            .file("manifest.json", 0o644, manifest.as_bytes())
            .file("c.json", 0o644, b"{}")
            .symlink("l/layer.tar", "/etc/passwd")
            .bytes()
    };
    load(&docker(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#), "image config \"../../etc/passwd\" not found");
    load(&docker(r#"[{"Config":"c.json","Layers":["l/layer.tar"]}]"#), "layers length mismatch");
    load(&docker("[1"), "invalid manifest.json");
    load(b"garbage", "unexpected EOF");
    load(&gzip(&noise(3, 50_000)), "invalid tar header");
    place.finish();
}

/// The other host sees no credentials.
#[test]
fn credentials_do_not_follow_a_redirect() {
    use testkit::fake_registry::{Answer, Reply};
    let place = Place::new(Options::new());
    let other = FakeRegistry::inside(place.d.namespaces(), "127.0.0.1:5002");
    let image = Image::new(&[Tar::new().file("x", 0o644, &noise(9, 5000)).bytes()], &json!({}));
    place.fake.image("app", "1", &image);
    other.image("app", "1", &image);
    place.fake.rule(|seen| {
        let known = seen.header("authorization") == "Basic bWU6c2VjcmV0";
        let away = seen.path.contains("/blobs/");
        let challenge = Answer::refusal(401, "UNAUTHORIZED", "no").with("WWW-Authenticate", "Basic realm=\"r\"");
        match (known, away) {
            (false, _) => Some(Reply::Send(challenge)),
            (true, true) => {
                let to = format!("http://127.0.0.1:5002{}", seen.path);
                Some(Reply::Send(Answer::new(307, "").with("Location", &to)))
            }
            (true, false) => None,
        }
    });
    let _ = place.d.docker_input(&["login", "-u", "me", "--password-stdin", "127.0.0.1:5001"], b"secret").ok();
    let _ = place.d.docker(&["pull", "-q", NAME]).ok();
    let seen = other.seen();
    assert!(seen.len() >= 2, "the blobs came from there: {seen:?}");
    assert!(
        seen.iter().all(|request| request.header("authorization").is_empty() && request.header("cookie").is_empty()),
        "{seen:?}"
    );
    let _ = place.d.docker(&["logout", "127.0.0.1:5001"]).ok();
    drop(other);
    place.finish();
}

/// A registry that stalls is left when the user has had enough; one that is overloaded for a while is waited for.
#[test]
fn registries_that_stall_or_are_overloaded() {
    use testkit::fake_registry::{Answer, Reply};
    let place = Place::new(Options::new());
    let image = Image::new(&[Tar::new().file("x", 0o644, &noise(11, 300_000)).bytes()], &json!({}));
    place.fake.image("app", "1", &image);
    place.fake.rule(|seen| seen.path.contains("/blobs/").then_some(Reply::Hang(None, 100)));
    let mut pull = place.d.spawn(&["pull", NAME]);
    assert!(eventually(|| place.fake.count("GET /v2/app/blobs/") >= 1));
    assert!(testkit::process::signal(pull.pid(), rustix::process::Signal::INT));
    let _ = pull.end();
    assert!(eventually(|| crate::kept(&place.d).0 == 0), "{:?}", crate::kept(&place.d));
    place.nothing_left("a stalled pull");
    place.fake.behave();
    for (status, code) in [(429, "TOOMANYREQUESTS"), (500, "UNKNOWN"), (503, "UNAVAILABLE")] {
        let mut left = 2;
        place.fake.rule(move |seen| {
            let hit = seen.path.contains("/blobs/") && left > 0;
            left -= i32::from(hit);
            hit.then(|| Reply::Send(Answer::refusal(status, code, "later").with("Retry-After", "0")))
        });
        let _ = place.d.docker(&["pull", "-q", NAME]).ok();
        let _ = place.d.docker(&["rmi", NAME]).ok();
        place.fake.behave();
    }
    place.finish();
    let place = Place::new(Options::new().args(&["--max-download-attempts=1"]));
    place.fake.image("app", "1", &image);
    for (status, code, text) in [(429, "TOOMANYREQUESTS", "toomanyrequests: later"), (500, "UNKNOWN", "unknown: later")]
    {
        place.fake.rule(move |seen| {
            seen.path.contains("/blobs/").then(|| Reply::Send(Answer::refusal(status, code, "later")))
        });
        place.d.docker(&["pull", NAME]).fails(1, text);
        place.nothing_left(text);
        place.fake.behave();
    }
    // More than was announced, without a length.
    let layer = descriptor(LAYER_GZIP, &image.layers[0])["digest"].as_str().unwrap().to_string();
    let longer = [&image.layers[0][..], &[0; 100_000]].concat();
    place.fake.rule(move |seen| {
        let body = Answer::new(200, longer.clone()).with("Transfer-Encoding", "identity").with("Connection", "close");
        seen.path.ends_with(&layer).then_some(Reply::Cut(Some(body), usize::MAX - 1))
    });
    place.d.docker(&["pull", NAME]).fails(1, "larger than announced");
    place.nothing_left("an oversized blob");
    place.finish();
}
