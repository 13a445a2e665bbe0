//! Looking layers over: whether a layer is what its archive says, what lies beside the layers, and putting a layer right.
//!
//! A layer is compared with its archive by unpacking that once more, under `tmp`, and comparing the two trees: the code
//! that makes layers is the only one that knows what an archive means. It costs the disk as much as the layer, for as
//! long as the comparison takes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::digest::Digest;
use model::{Context, Error, Result};

use crate::compare::{Origin, compare};
use crate::layers::{Layers, layer_key, make_dir};
use crate::{LayerInfo, LayerKey, LayerStore, LayerSurvey, Unpacked, places};

/// What was found of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// Not here.
    Missing,
    /// Here, with its record; and, if an archive was given, just like it.
    Sound(LayerInfo),
    /// Not what it should be.
    Damaged(String),
}

/// What lies beside the layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Unfinished work that nobody goes on with.
    pub leftovers: Vec<PathBuf>,
    /// Nothing that a snapshotter has made.
    pub unknown: Vec<PathBuf>,
}

/// Names beside the layers that earlier versions have made; opening the layers removes them.
pub(crate) const EARLIER: [&str; 2] = ["empty", "blanks"];
/// Names beside the layers that are no layers.
const OWN_NAMES: [&str; 4] = ["tmp", places::DIR, EARLIER[0], EARLIER[1]];

impl LayerSurvey for Layers {
    fn root(&self) -> &Path {
        self.path()
    }

    fn list(&self) -> Result<Vec<Digest>> {
        let by_diff_id = |name: &String| match layer_key(name)? {
            LayerKey::Diff(diff_id) => Some(diff_id),
            LayerKey::Local(_) => None,
        };
        Ok(names(self.path())?.iter().filter_map(by_diff_id).collect())
    }

    fn list_local(&self) -> Result<BTreeMap<Digest, Vec<Digest>>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for key in names(self.path())?.iter().filter_map(|name| layer_key(name)) {
            match key {
                LayerKey::Local(name) => _ = found.entry(name).or_default(),
                LayerKey::Diff(diff_id) => {
                    let target = fs::read_link(self.dir(&LayerKey::Diff(diff_id.clone()))).ok();
                    if let Some(LayerKey::Local(name)) = target.as_deref().and_then(Path::to_str).and_then(layer_key) {
                        found.entry(name).or_default().push(diff_id);
                    }
                }
            }
        }
        // A link that leads nowhere is its diff id's matter.
        found.retain(|name, _| self.dir(&LayerKey::Local(name.clone())).exists());
        Ok(found)
    }

    fn strays(&self) -> Result<Strays> {
        let (tmp, working) = self.tmp();
        let path_of = |name: &String| self.path().join(name);
        let unknown = names(self.path())?;
        let unknown = unknown.iter().filter(|name| layer_key(name).is_none() && !OWN_NAMES.contains(&name.as_str()));
        let left = names(tmp)?;
        let left = left.iter().filter(|name| !working.contains(*name));
        Ok(Strays { leftovers: left.map(|name| tmp.join(name)).collect(), unknown: unknown.map(path_of).collect() })
    }

    fn examine(&self, diff_id: &Digest, tar: Option<&mut dyn Read>) -> Result<Examined> {
        let key = LayerKey::from(diff_id);
        if !self.dir(&key).exists() {
            return Ok(Examined::Missing);
        }
        let layer = match self.read(&key) {
            Ok(Some(layer)) => layer,
            Ok(None) => return Ok(Examined::Damaged("its record (layer.json) is missing".into())),
            Err(error) => return Ok(Examined::Damaged(error.message().to_owned())),
        };
        if layer.info.diff_id.as_ref() != Some(diff_id) {
            let other = layer.info.diff_id.map_or_else(|| "no diff id".to_owned(), |other| other.to_string());
            return Ok(Examined::Damaged(format!("its record speaks of {other}")));
        }
        let Ok(found) = File::open(&layer.fs) else {
            return Ok(Examined::Damaged("its tree (fs) is missing".into()));
        };
        let Some(tar) = tar else { return Ok(Examined::Sound(layer.info)) };
        let place = self.workplace();
        let differs = self.differs(found.into(), &place.path(), diff_id, tar);
        place.clear()?;
        let (differences, unpacked) = differs?;
        Ok(match differences {
            Some(text) => Examined::Damaged(text),
            // One that was made here takes what its files take, holes or not; one that was unpacked what the archive says.
            None if unpacked.size != layer.info.size && self.origin(diff_id) == Origin::Archive => {
                Examined::Damaged(format!("its record says {} bytes, the archive {}", layer.info.size, unpacked.size))
            }
            None => Examined::Sound(layer.info),
        })
    }

    fn replace(&self, diff_id: &Digest, tar: &mut dyn Read, aside: &Path) -> Result<Unpacked> {
        let place = self.workplace();
        let replaced = self.unpack_to(&place.path(), Some(diff_id), tar).and_then(|(diff_id, applied)| {
            let unpacked = Unpacked { diff_id: diff_id.clone(), size: applied.size };
            self.write_record(&place.path(), Some(diff_id.clone()), applied)?;
            self.sync()?;
            self.set_aside(&diff_id, aside)?;
            fs::rename(place.path(), self.dir(&LayerKey::Diff(diff_id))).context("publishing a layer")?;
            Ok(unpacked)
        });
        place.clear()?;
        replaced
    }

    fn set_aside(&self, diff_id: &Digest, aside: &Path) -> Result<()> {
        self.forget(&diff_id.into());
        match fs::rename(self.dir(&diff_id.into()), aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::from(e).prefix(format!("moving layer {diff_id} to {}", aside.display())))
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, diff_id: &Digest) -> Result<()> {
        let place = self.workplace();
        self.set_aside(diff_id, &place.path())?;
        place.clear()
    }
}

impl Layers {
    /// A layer that was made here has a local key, to which its diff id leads.
    fn origin(&self, diff_id: &Digest) -> Origin {
        if self.dir(&diff_id.into()).is_symlink() { Origin::Here } else { Origin::Archive }
    }

    /// Unpacks the archive to `tmp` and compares.
    fn differs(
        &self,
        found: OwnedFd,
        tmp: &Path,
        diff_id: &Digest,
        tar: &mut dyn Read,
    ) -> Result<(Option<String>, Unpacked)> {
        make_dir(tmp, 0o700)?;
        let begun = rustix::fs::stat(tmp).map_err(io::Error::from)?;
        let (diff_id, applied) = self.unpack_to(tmp, Some(diff_id), tar)?;
        let unpacked = Unpacked { diff_id, size: applied.size };
        let expected = File::open(tmp.join("fs")).context("opening an unpacked layer")?;
        let differences = compare(found, expected.into(), &begun, self.origin(&unpacked.diff_id))
            .context("comparing a layer with its archive")?;
        Ok((differences.text(), unpacked))
    }
}

/// The names in a directory; none when it does not exist.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("listing {}", dir.display()))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().with_context(|| format!("listing {}", dir.display()))
}
