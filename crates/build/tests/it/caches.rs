//! Caches that one daemon exports and another imports.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::oci::Descriptor;
use bollard_buildkit_proto::pb;
use build::cache::{self, Export, Import, Mode};
use build::cancel::Cancel;
use build::export::{Bytes, Client, Context, Files, Response, Status};
use build::job::{Answer, Attributes, Event, Incoming, Inputs, Job, Local, Output, Runner, Step};
use model::digest::{Algorithm, Digest};
use model::lock::Mutex;
use model::{Error, Result};
use prost::Message;
use registry::Credentials;

use crate::place::Place;

/// A store of the client's, by digest.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Client for Store {
    fn file<'a>(&'a self, _: &'a Response, _: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn files(&self, _: Arc<Files>) -> Answer<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn blob<'a>(&'a self, _: &'a Descriptor, _: Bytes) -> Answer<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn store_blob<'a>(
        &'a self,
        store: &'a str,
        descriptor: &'a Descriptor,
        mut bytes: Bytes,
    ) -> Answer<'a, Result<()>> {
        Box::pin(async move {
            assert_eq!(store, "local:/cache");
            let mut all = Vec::new();
            while let Some(piece) = bytes.recv().await {
                all.extend(piece?);
            }
            self.0.lock().insert(descriptor.digest.clone(), all);
            Ok(())
        })
    }

    fn credentials<'a>(&'a self, _: &'a str) -> Answer<'a, Result<Credentials>> {
        Box::pin(async { Ok(Credentials::default()) })
    }

    fn status(&self, _: Status) {}
}

impl Inputs for Store {
    fn local<'a>(&'a self, name: &'a str, _: &'a Attributes) -> Answer<'a, Result<Local>> {
        Box::pin(async move { Err(Error::not_found(name)) })
    }

    fn secret<'a>(&'a self, _: &'a str) -> Answer<'a, Result<Option<Vec<u8>>>> {
        Box::pin(async { Ok(None) })
    }

    fn layout_blob<'a>(&'a self, store: &'a str, digest: &'a Digest) -> Answer<'a, Result<Incoming>> {
        Box::pin(async move {
            assert_eq!(store, "local:/cache");
            let blob = self.0.lock().get(digest.as_str()).cloned();
            let blob = blob.ok_or_else(|| Error::not_found(digest.to_string()))?;
            Ok(Box::new(Cursor::new(blob)) as Incoming)
        })
    }
}

/// Counts the programs that are run; each leaves nothing.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Runner for Counter {
    fn run(&self, _: Step, _: Output, _: Cancel) -> Answer<'_, Result<i32>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(0) })
    }
}

/// An image, a file on it, a program over that; another program on the image, of which the result has nothing but an order.
fn definition() -> pb::Definition {
    let mut def = Vec::new();
    let mut put = |op: pb::Op| {
        let bytes = op.encode_to_vec();
        let digest = Digest::of(Algorithm::Sha256, &bytes).to_string();
        def.push(bytes);
        pb::Input { digest, index: 0 }
    };
    let op = |inputs: Vec<pb::Input>, op: pb::op::Op| pb::Op { inputs, op: Some(op), ..Default::default() };
    let source =
        pb::SourceOp { identifier: "docker-image://docker.io/library/base:latest".into(), ..Default::default() };
    let base = put(op(Vec::new(), pb::op::Op::Source(source)));
    let exec = |args: &str, side: bool| {
        let meta = pb::Meta { args: vec![args.into()], ..Default::default() };
        let mut mounts = vec![pb::Mount { dest: "/".into(), ..Default::default() }];
        if side {
            mounts.push(pb::Mount { dest: "/side".into(), input: 1, output: -1, readonly: true, ..Default::default() });
        }
        pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts, ..Default::default() })
    };
    let make = pb::FileActionMkFile { path: "/made".into(), mode: 0o644, data: b"made".to_vec(), ..Default::default() };
    let action = pb::FileAction {
        input: 0,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(make)),
    };
    let made = put(op(vec![base.clone()], pb::op::Op::File(pb::FileOp { actions: vec![action] })));
    let side = put(op(vec![base], exec("side", false)));
    let last = put(op(vec![made, side], exec("last", true)));
    put(pb::Op { inputs: vec![last], ..Default::default() });
    pb::Definition { def, ..Default::default() }
}

/// A place with the base image, and a build there.
async fn begin(store: &Store) -> (Place, Arc<Job>, Arc<Counter>, tokio::task::JoinHandle<Vec<(String, bool)>>) {
    let place = Place::new();
    place.export("image", &[("name", "base")], &place.source(&place.two_layers(), &[], Vec::new())).await;
    let (sender, mut events) = tokio::sync::mpsc::channel(build::job::EVENTS);
    let told = tokio::spawn(async move {
        let (mut names, mut ended) = (BTreeMap::new(), Vec::new());
        while let Some(event) = events.recv().await {
            match event {
                Event::Started { step, name, .. } => _ = names.insert(step, name),
                Event::Ended { step, cached, .. } => ended.push((names[&step].clone(), cached)),
                _ => {}
            }
        }
        ended
    });
    let counter = Arc::new(Counter::default());
    let job = Arc::new(Job::new(&place.builder, counter.clone(), Arc::new(store.clone()), sender));
    (place, job, counter, told)
}

fn context(place: &Place, job: &Job, store: &Store) -> Context {
    let mut context = place.context(Arc::new(store.clone()), Cancel::default());
    context.lease = job.lease.clone();
    context
}

fn attributes(entries: &[(&str, &str)]) -> Attributes {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn exported(mode: &str, more: &[(&str, &str)]) -> (Store, Digest) {
    let store = Store::default();
    let (place, job, counter, _) = begin(&store).await;
    job.solve_definition(&definition()).await.unwrap().unwrap();
    assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    let mut entries = vec![("dest", "/cache"), ("mode", mode)];
    entries.extend(more);
    let wanted = Export::read("local", &attributes(&entries)).unwrap();
    let selected = cache::select(&job, &definition(), wanted.mode).unwrap();
    let answer = cache::export(&context(&place, &job, &store), &wanted, selected).await.unwrap();
    let manifest: Descriptor = serde_json::from_str(&answer["cache.manifest"]).unwrap();
    (store, Digest::parse(&manifest.digest).unwrap())
}

/// How many programs a build runs that imports a cache, and which steps were cached.
async fn imported(store: &Store, digest: &Digest) -> (usize, Vec<(String, bool)>) {
    let (_place, job, counter, told) = begin(store).await;
    let entries = attributes(&[("src", "/cache"), ("digest", digest.as_str())]);
    cache::import(&job, &Import::read("local", &entries).unwrap()).await.unwrap();
    let files = job.solve_definition(&definition()).await.unwrap().unwrap();
    let made = build::files::read(&job, &files.chain(), "made", 0..100).await.unwrap();
    assert_eq!(made.unwrap(), b"made");
    job.await_kept().await;
    drop(job);
    (counter.0.load(Ordering::Relaxed), told.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_saves_another_daemon_its_steps() {
    for more in [&[][..], &[("image-manifest", "false")], &[("compression", "zstd")]] {
        let (store, digest) = exported("max", more).await;
        let (ran, steps) = imported(&store, &digest).await;
        assert_eq!(ran, 0, "{steps:?}");
        assert!(steps.iter().all(|(_, cached)| *cached), "{steps:?}");
    }
    // What the result has no layers of is not there.
    let (store, digest) = exported("min", &[]).await;
    let (ran, steps) = imported(&store, &digest).await;
    assert_eq!((ran, steps.iter().find(|(_, cached)| !cached).map(|(name, _)| name.as_str())), (1, Some("side")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_exported_the_same_twice() {
    let (one, other) = (exported("max", &[]).await, exported("max", &[]).await);
    let layers = |store: &Store| -> Vec<String> {
        let blobs = store.0.lock();
        let config =
            blobs.values().find_map(|blob| cache::Config::read(blob).ok().filter(|c| *c != Default::default()));
        let config = serde_json::to_value(config.unwrap()).unwrap();
        config["records"].as_array().unwrap().iter().map(|record| record["digest"].to_string()).collect()
    };
    // Times are those of the builds; what steps are found by is not.
    assert_eq!(layers(&one.0), layers(&other.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_not_what_they_are_said_to_be_are_not_taken() {
    let (store, digest) = exported("max", &[]).await;
    {
        let mut blobs = store.0.lock();
        let gzip: Vec<String> = blobs
            .iter()
            .filter(|(_, blob)| blob.starts_with(&[0x1f, 0x8b]))
            .map(|(digest, _)| digest.clone())
            .collect();
        for digest in gzip {
            blobs.get_mut(&digest).unwrap().push(0);
        }
    }
    let (ran, steps) = imported(&store, &digest).await;
    assert_eq!(ran, 2, "{steps:?}");
    // Neither is a manifest.
    let lie = Digest::of(Algorithm::Sha256, b"{}");
    store.0.lock().insert(lie.to_string(), b"{ }".to_vec());
    let (_place, job, ..) = begin(&store).await;
    for (digest, text) in [(lie, "unexpected commit digest"), (Digest::of(Algorithm::Sha256, b"none"), "sha256:")] {
        let entries = attributes(&[("src", "/cache"), ("digest", digest.as_str())]);
        let error = cache::import(&job, &Import::read("local", &entries).unwrap()).await.unwrap_err();
        assert!(error.message().starts_with("failed to configure importing cache manifest from local:"), "{error:?}");
        assert!(error.message().contains(text), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_carries_the_cache_of_its_layers() {
    let store = Store::default();
    let (place, job, ..) = begin(&store).await;
    let files = job.solve_definition(&definition()).await.unwrap().unwrap();
    let mut source = Arc::unwrap_or_clone(place.source(&files.chain(), &[], Vec::new()));
    let selected = cache::select(&job, &definition(), Mode::Min).unwrap();
    source.targets[0].cache = cache::inline(&job, &files.chain(), selected).await.unwrap();
    let (answer, client) = place.export("oci", &[("tar", "false")], &Arc::new(source)).await;
    for (descriptor, bytes) in &client.0.lock().blobs {
        store.0.lock().insert(descriptor.digest.clone(), bytes.clone());
    }
    let config = place.document(&answer["containerimage.config.digest"]);
    assert!(config["moby.buildkit.cache.v0"].is_string());
    let digest = Digest::parse(&answer["containerimage.digest"]).unwrap();
    let (ran, steps) = imported(&store, &digest).await;
    assert_eq!(ran, 1, "{steps:?}");
    // One that carries none is no error.
    let source = place.source(&files.chain(), &[], Vec::new());
    let (answer, client) = place.export("oci", &[("tar", "false")], &source).await;
    for (descriptor, bytes) in &client.0.lock().blobs {
        store.0.lock().insert(descriptor.digest.clone(), bytes.clone());
    }
    let digest = Digest::parse(&answer["containerimage.digest"]).unwrap();
    assert_eq!(imported(&store, &digest).await.0, 2);
}
