//! A data root of its own, layers in it, and a client that takes everything.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use api::oci::Descriptor;
use build::Builder;
use build::cancel::Cancel;
use build::export::{
    self, Attestation, Bytes, Client, Context, Exporter, Files, Metadata, Refs, Response, Source, Status,
};
use build::job::{Answer, Attributes};
use build::record::{Chain, Kind, Layer, Record, keys};
use build::root::Work;
use events::Events;
use image::{Images, Transfers};
use model::Result;
use model::digest::{Algorithm, Digest};
use model::lock::Mutex;
use model::time::Timestamp;
use registry::{Credentials, Registries};
use store::Store;

/// See the module.
pub struct Place {
    _dir: tempfile::TempDir,
    pub builder: Arc<Builder>,
    pub bus: Events,
}

/// What a client got.
#[derive(Default)]
pub struct Taken {
    /// Whole files.
    pub files: Vec<Vec<u8>>,
    /// Files of trees: their paths and what is in them.
    pub tree: BTreeMap<String, (bollard_buildkit_proto::fsutil::types::Stat, Vec<u8>)>,
    /// The order in which they were told.
    pub order: Vec<String>,
    /// Blobs in the order in which they came.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
    /// What was begun and done.
    pub status: Vec<Status>,
}

/// Takes what it gets.
#[derive(Default)]
pub struct Taker(pub Mutex<Taken>);

async fn all(mut bytes: Bytes) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = bytes.recv().await {
        all.extend(piece?);
    }
    Ok(all)
}

impl Client for Taker {
    fn file<'a>(&'a self, _: &'a Response, bytes: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(async {
            let file = all(bytes).await?;
            self.0.lock().files.push(file);
            Ok(())
        })
    }

    fn files(&self, files: Arc<Files>) -> Answer<'_, Result<()>> {
        Box::pin(async move {
            let mut stats = Vec::new();
            files.walk(&mut |stat| {
                stats.push(stat);
                Ok(())
            })?;
            let mut taken = self.0.lock();
            for stat in stats {
                let mut bytes = Vec::new();
                if stat.mode & !0o7777 == 0 && stat.linkname.is_empty() {
                    files.open_file(&stat.path)?.read_to_end(&mut bytes)?;
                }
                taken.order.push(stat.path.clone());
                taken.tree.insert(stat.path.clone(), (stat, bytes));
            }
            Ok(())
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor, bytes: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(async move {
            let blob = all(bytes).await?;
            self.0.lock().blobs.push((descriptor.clone(), blob));
            Ok(())
        })
    }

    fn credentials<'a>(&'a self, _: &'a str) -> Answer<'a, Result<Credentials>> {
        Box::pin(async { Ok(Credentials::default()) })
    }

    fn status(&self, status: Status) {
        self.0.lock().status.push(status);
    }
}

/// Seconds since 1970 of every file that a test makes.
pub const WRITTEN: i64 = 1_700_000_000;

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("gantry.redb")).unwrap();
        let snapshots = snapshot::open(dir.path(), "").unwrap();
        let registries = Registries::new(Default::default());
        let images = Images::open(dir.path(), store.clone(), snapshots.layers.clone(), registries).unwrap();
        let builder = Builder::open(dir.path(), store, Arc::new(images), snapshots).unwrap();
        Place { _dir: dir, builder: Arc::new(builder), bus: Events::default() }
    }

    /// The data root.
    pub fn root(&self) -> std::path::PathBuf {
        self._dir.path().to_owned()
    }

    /// A layer over others, which `write` writes; all of its files have one time.
    pub fn layer(&self, below: &Chain, name: &str, write: impl FnOnce(&Path)) -> Chain {
        let lease = self.builder.images.pins.lease();
        let work = Work::prepare(&self.builder.roots, &keys(below)).unwrap();
        {
            let view = work.open().unwrap();
            let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view.root().as_fd()));
            write(Path::new(&root));
        }
        let (key, size) = work.commit(&lease).unwrap();
        set_times(&self.builder.roots.snapshots.layers.directories(std::slice::from_ref(&key)).unwrap()[0]);
        let chain: Vec<Layer> = below.iter().cloned().chain([Layer { key, blob: None }]).collect();
        let record = Arc::new(Record {
            outputs: [(0, chain.clone())].into(),
            kind: Kind::Regular,
            description: name.to_owned(),
            created: Timestamp::from_unix_seconds(WRITTEN),
            used: Timestamp::from_unix_seconds(WRITTEN),
            uses: 1,
            size,
            parents: Vec::new(),
        });
        let key = Digest::of(Algorithm::Sha256, format!("{name}{chain:?}").as_bytes());
        self.builder.records.show(&key, record.clone(), None);
        let records = self.builder.records.clone();
        let kept = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(records.keep(key, record, None))
        });
        kept.join().unwrap().unwrap();
        chain.into()
    }

    /// Two layers: some files of every kind, and changes to them.
    pub fn two_layers(&self) -> Chain {
        let below = self.layer(&Chain::default(), "COPY . /", |root| {
            std::fs::create_dir_all(root.join("dir/sub")).unwrap();
            std::fs::write(root.join("dir/file"), "content").unwrap();
            std::fs::write(root.join("dir/gone"), "gone").unwrap();
            std::fs::set_permissions(root.join("dir/file"), PermissionsExt::from_mode(0o4755)).unwrap();
            std::fs::hard_link(root.join("dir/file"), root.join("link")).unwrap();
            symlink("dir/file", root.join("symbolic")).unwrap();
        });
        self.layer(&below, "RUN change", |root| {
            std::fs::remove_file(root.join("dir/gone")).unwrap();
            std::fs::write(root.join("new"), "new").unwrap();
        })
    }

    /// What a solve gives for one platform.
    pub fn source(&self, chain: &Chain, more: &[(&str, &str)], said: Vec<Attestation>) -> Arc<Source> {
        let mut metadata = Metadata::new();
        metadata.insert("containerimage.config".into(), config("amd64"));
        metadata.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())));
        let said = if said.is_empty() { BTreeMap::new() } else { [("linux/amd64".to_owned(), said)].into() };
        Arc::new(Source::read(Refs::One(chain.clone()), metadata, said).unwrap())
    }

    /// What a solve gives for two.
    pub fn two_platforms(&self, chains: [&Chain; 2]) -> Arc<Source> {
        let ids = ["linux/amd64", "linux/arm64"];
        let listed = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}},
            {"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux"}}]}"#;
        let mut metadata: Metadata = [("refs.platforms".to_owned(), listed.as_bytes().to_vec())].into();
        for id in ids {
            metadata.insert(format!("containerimage.config/{id}"), config(id.trim_start_matches("linux/")));
        }
        let refs = ids.iter().zip(chains).map(|(id, chain)| ((*id).to_owned(), chain.clone())).collect();
        Arc::new(Source::read(Refs::Many(refs), metadata, BTreeMap::new()).unwrap())
    }

    /// Exports; what the exporter answers, and what the client got.
    pub async fn export(
        &self,
        kind: &str,
        attributes: &[(&str, &str)],
        source: &Arc<Source>,
    ) -> (Response, Arc<Taker>) {
        let (answer, client) = self.try_export(kind, attributes, source).await;
        (answer.unwrap(), client)
    }

    pub async fn try_export(
        &self,
        kind: &str,
        attributes: &[(&str, &str)],
        source: &Arc<Source>,
    ) -> (Result<Response>, Arc<Taker>) {
        let client = Arc::new(Taker::default());
        let attributes: Attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let context = self.context(client.clone(), Cancel::default());
        let exported = match Exporter::read(kind, &attributes) {
            Ok(exporter) => export::run(&context, &exporter, source.clone()).await,
            Err(error) => Err(error),
        };
        (exported, client)
    }

    pub fn context(&self, client: Arc<dyn Client>, cancel: Cancel) -> Context {
        Context {
            builder: self.builder.clone(),
            lease: Arc::new(self.builder.images.pins.lease()),
            cancel,
            bus: self.bus.clone(),
            transfers: Transfers { downloads: 0, uploads: 0 },
            client,
        }
    }

    /// A document among the blobs.
    pub fn document(&self, digest: &str) -> serde_json::Value {
        let bytes = self.builder.images.blobs.read_small(&Digest::parse(digest).unwrap(), 1 << 20).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

/// A configuration as a front end gives it.
pub fn config(architecture: &str) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/new"], "Labels": {"tier": "front"}},
        "rootfs": {"type": "layers", "diff_ids": null},
        "history": [
            {"created_by": "COPY . /", "comment": "buildkit.dockerfile.v0"},
            {"created_by": "RUN change", "comment": "buildkit.dockerfile.v0"},
            {"created_by": "CMD [\"/new\"]", "comment": "buildkit.dockerfile.v0", "empty_layer": true},
        ],
    });
    serde_json::to_vec(&config).unwrap()
}

fn set_times(path: &Path) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            set_times(&path);
        }
        let time = rustix::fs::Timespec { tv_sec: WRITTEN, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
