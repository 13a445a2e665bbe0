//! Clients that tests drive: the plugins of Debian 13 for Compose (2.26) and for builds (buildx 0.13), and the Python program of
//! Compose of Debian 12 (1.29).
//!
//! Each comes from its own release of Debian, whichever release this machine runs, out of the archive that its apt uses;
//! lists and packages lie below `target/tools`, and nothing is installed. The Python program brings its own Python.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::apt;
use crate::shell::{output, root};

/// A client: where it lies below `target/tools`, its program there, the release that has it, its packages, what makes it one program.
struct Client {
    name: &'static str,
    program: &'static str,
    release: &'static str,
    packages: &'static [&'static str],
    finish: fn(&Path) -> Result<(), String>,
}

const CLIENTS: [Client; 3] = [
    Client {
        name: "compose-2",
        program: COMPOSE,
        release: "trixie",
        packages: &[COMPOSE],
        finish: |place| plugin(place, COMPOSE),
    },
    Client {
        name: "compose-1",
        program: COMPOSE,
        release: "bookworm",
        packages: PYTHON_COMPOSE,
        finish: python_program,
    },
    Client {
        name: "buildx",
        program: BUILDX,
        release: "trixie",
        packages: &[BUILDX],
        finish: |place| plugin(place, BUILDX),
    },
];

/// Programs, packages and plugins of this name.
const COMPOSE: &str = "docker-compose";
const BUILDX: &str = "docker-buildx";

/// The program, the libraries that it imports, its Python, and what that loads.
const PYTHON_COMPOSE: &[&str] = &[
    "docker-compose",
    "python3-attr",
    "python3-certifi",
    "python3-chardet",
    "python3-charset-normalizer",
    "python3-distro",
    "python3-distutils",
    "python3-docker",
    "python3-dockerpty",
    "python3-docopt",
    "python3-dotenv",
    "python3-idna",
    "python3-jsonschema",
    "python3-lib2to3",
    "python3-pkg-resources",
    "python3-pyrsistent",
    "python3-requests",
    "python3-six",
    "python3-texttable",
    "python3-urllib3",
    "python3-websocket",
    "python3-yaml",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libbz2-1.0",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libssl3",
    "libuuid1",
    "libyaml-0-2",
    "zlib1g",
];

/// Where Debian keeps the keys of its archive.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Makes sure that all are there.
pub fn all() -> Result<(), String> {
    CLIENTS.iter().try_for_each(|client| {
        let made = make(client);
        made.map_err(|e| format!("{} ({} of Debian {}): {e}", client.name, client.program, client.release))
    })
}

fn make(client: &Client) -> Result<(), String> {
    let place = root().join("target/tools").join(client.name);
    let program = place.join(client.program);
    if program.exists() {
        return Ok(());
    }
    println!("fetching {} of Debian {}", client.program, client.release);
    // What an interrupted attempt left is of no use.
    let _ = std::fs::remove_dir_all(&place);
    let lists = place.join("apt");
    for dir in ["lists/partial", "archives/partial"] {
        std::fs::create_dir_all(lists.join(dir)).map_err(|e| format!("{}: {e}", lists.display()))?;
    }
    fetch(client, &lists)?;
    for entry in std::fs::read_dir(&lists).map_err(|e| e.to_string())?.flatten() {
        if entry.path().extension().is_some_and(|ext| ext == "deb") {
            output(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&place))?;
        }
    }
    std::fs::remove_dir_all(&lists).map_err(|e| e.to_string())?;
    (client.finish)(&place)
}

/// Downloads the packages into `place`, by lists that lie there.
fn fetch(client: &Client, place: &Path) -> Result<(), String> {
    let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
    let keyring = keyring.ok_or("the keys of Debian's archive are missing: install debian-archive-keyring")?;
    let source = format!("deb [signed-by={keyring}] {} {} main\n", archive()?, client.release);
    let sources = place.join("sources.list");
    std::fs::write(&sources, source).map_err(|e| e.to_string())?;
    let options = [
        format!("-oDir::Etc::SourceList={}", sources.display()),
        "-oDir::Etc::SourceParts=-".into(),
        format!("-oDir::State::Lists={}", place.join("lists").display()),
        format!("-oDir::Cache={}", place.display()),
        "-oAPT::Sandbox::User=root".into(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    apt(&[&options[..], &["update"]].concat(), place)?;
    apt(&[&options[..], &["download"], client.packages].concat(), place)
}

/// The address of Debian's archive that this machine's apt uses.
fn archive() -> Result<String, String> {
    let words = ["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"];
    let targets = output(Command::new("apt-get").args(words))?;
    let address = targets.lines().find_map(main_archive);
    address.map(Into::into).ok_or_else(|| "this machine's apt has no source of Debian: run `apt-get update`".into())
}

/// The address in a line of `indextargets`, unless it is that of updates or of another distributor.
fn main_archive(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let (origin, codename, address) = (words.next()?, words.next()?, words.next()?);
    (origin == "Debian" && !codename.contains('-')).then_some(address)
}

fn plugin(place: &Path, name: &str) -> Result<(), String> {
    let plugin = place.join("usr/libexec/docker/cli-plugins").join(name);
    std::fs::rename(plugin, place.join(name)).map_err(|e| e.to_string())
}

/// A script that runs the program by its own Python; its modules are compiled once, which halves the time of a run.
fn python_program(place: &Path) -> Result<(), String> {
    let script = "#!/bin/sh
place=$(dirname \"$0\")
export PYTHONHOME=\"$place/usr\" PYTHONPATH=\"$place/usr/lib/python3/dist-packages\" PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH=\"$place/usr/lib/x86_64-linux-gnu:$place/lib/x86_64-linux-gnu\"
exec \"$place/usr/bin/python3.11\" \"$place/usr/bin/docker-compose\" \"$@\"
";
    let usr = place.join("usr");
    let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| place.join(dir));
    let mut compile = Command::new(usr.join("bin/python3.11"));
    compile.args(["-m", "compileall", "-q"]).args(["lib/python3", "lib/python3.11"].map(|dir| usr.join(dir)));
    compile.env("PYTHONHOME", &usr).env("LD_LIBRARY_PATH", std::env::join_paths(libraries).map_err(|e| e.to_string())?);
    output(&mut compile)?;
    let path: PathBuf = place.join("docker-compose");
    std::fs::write(&path, script).map_err(|e| e.to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_told_from_updates_and_other_distributors() {
        assert_eq!(main_archive("Debian bookworm https://mirror.test/debian/"), Some("https://mirror.test/debian/"));
        assert_eq!(main_archive("Debian bookworm-security https://mirror.test/debian-security/"), None);
        assert_eq!(main_archive("Node nodistro https://mirror.test/node/"), None);
        assert_eq!(main_archive(""), None);
    }
}
