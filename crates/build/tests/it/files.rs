//! The exporters `local` and `tar`.

use std::sync::Arc;

use build::cancel::Cancel;
use build::export::{self, Exporter};
use build::job::Attributes;
use snapshot::archive::{Archive, Kind};

use crate::place::{Place, WRITTEN};

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_result_come_in_order_without_marks_of_layers() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[], Vec::new());
    let (_, client) = place.export("local", &[], &source).await;
    let taken = client.0.lock();
    assert_eq!(taken.order, ["dir", "dir/file", "dir/sub", "link", "new", "symbolic"]);
    let stat = |path: &str| &taken.tree[path].0;
    assert_eq!((stat("dir").mode, stat("dir/file").mode), ((1 << 31) | 0o755, (1 << 23) | 0o755));
    assert_eq!((stat("link").linkname.as_str(), stat("symbolic").linkname.as_str()), ("dir/file", "dir/file"));
    assert_eq!(stat("symbolic").mode & (1 << 27), 1 << 27);
    assert_eq!((&taken.tree["new"].1[..], stat("new").mod_time), (&b"new"[..], WRITTEN * 1_000_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_platform_has_a_directory_unless_that_is_not_wanted() {
    let place = Place::new();
    let file = |name: &'static str| {
        place.layer(&Default::default(), name, move |root| std::fs::write(root.join(name), name).unwrap())
    };
    let (a, b) = (file("a"), file("b"));
    let order = async |attributes: &[(&str, &str)], source: &Arc<export::Source>| {
        let (_, client) = place.export("local", attributes, source).await;
        client.0.lock().order.clone()
    };
    let two = place.two_platforms([&a, &b]);
    assert_eq!(order(&[], &two).await, ["linux_amd64", "linux_amd64/a", "linux_arm64", "linux_arm64/b"]);
    assert_eq!(order(&[("platform-split", "false")], &two).await, ["a", "b"]);
    let one = place.source(&a, &[], Vec::new());
    assert_eq!(order(&[("platform-split", "true")], &one).await, ["linux_amd64", "linux_amd64/a"]);
    let same = place.two_platforms([&a, &a]);
    let (refused, _) = place.try_export("local", &[("platform-split", "false")], &same).await;
    let text = "cannot overwrite a from linux/amd64 with linux/arm64 when split option is disabled";
    assert_eq!(refused.unwrap_err().message(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_the_same_files_and_the_chosen_time() {
    let place = Place::new();
    let source = place.source(&place.two_layers(), &[("source.date.epoch", "99")], Vec::new());
    let (_, client) = place.export("tar", &[], &source).await;
    let tar = client.0.lock().files.remove(0);
    let mut archive = Archive::new(tar.as_slice());
    let mut seen = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        assert_eq!(entry.mtime.seconds, 99);
        seen.push((String::from_utf8(entry.path).unwrap(), entry.kind, entry.mode, entry.size));
    }
    let expected = [
        ("dir/", Kind::Directory, 0o755, 0),
        ("dir/file", Kind::File, 0o4755, 7),
        ("dir/sub/", Kind::Directory, 0o755, 0),
        ("link", Kind::HardLink, 0o4755, 0),
        ("new", Kind::File, 0o644, 3),
        ("symbolic", Kind::Symlink, 0o777, 0),
    ];
    assert_eq!(seen, expected.map(|(path, kind, mode, size)| (path.to_owned(), kind, mode, size)));
    let (_, again) = place.export("tar", &[], &source).await;
    assert!(tar == again.0.lock().files[0]);
}

/// A client that takes one piece and leaves, and one that takes nothing until the build is cancelled.
struct Leaver(Cancel, bool);

impl export::Client for Leaver {
    fn file<'a>(
        &'a self,
        _: &'a export::Response,
        mut bytes: export::Bytes,
    ) -> build::job::Answer<'a, model::Result<()>> {
        Box::pin(async move {
            bytes.recv().await;
            if self.1 {
                self.0.cancel();
                while let Some(piece) = bytes.recv().await {
                    piece?;
                }
                return self.0.check();
            }
            Err(model::Error::system("the client left"))
        })
    }

    fn files(&self, _: Arc<export::Files>) -> build::job::Answer<'_, model::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn blob<'a>(&'a self, _: &'a api::oci::Descriptor, _: export::Bytes) -> build::job::Answer<'a, model::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn credentials<'a>(&'a self, _: &'a str) -> build::job::Answer<'a, model::Result<registry::Credentials>> {
        Box::pin(async { Ok(registry::Credentials::default()) })
    }

    fn status(&self, _: export::Status) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_or_cancels_ends_the_export() {
    let place = Place::new();
    let large =
        place.layer(&Default::default(), "large", |root| std::fs::write(root.join("large"), vec![7; 8 << 20]).unwrap());
    let source = place.source(&large, &[], Vec::new());
    for (cancels, text) in [(false, "the client left"), (true, "context canceled")] {
        let cancel = Cancel::default();
        let context = place.context(Arc::new(Leaver(cancel.clone(), cancels)), cancel);
        let exporter = Exporter::read("tar", &Attributes::new()).unwrap();
        let error = export::run(&context, &exporter, source.clone()).await.unwrap_err();
        assert!(error.message().contains(text), "{error:?}");
    }
    // Its place is free again.
    place.export("tar", &[], &source).await;
}
