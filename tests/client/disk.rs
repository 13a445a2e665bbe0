//! What lies on the disk: `system df`, its sums and what prunes report, blocks against `du`, and every prune with its filters.

use serde_json::{Value, json};
use testkit::Daemon;
use testkit::images::{Tar, busybox_tar, layered_archive};
use testkit::layouts::Layout;

use crate::{eventually, with_busybox};

fn get(d: &Daemon, path: &str) -> Value {
    d.http("GET", path, "").expect(200).json()
}

fn post(d: &Daemon, path: &str) -> Value {
    d.http("POST", path, "").expect(200).json()
}

/// `POST …/prune` with filters.
fn prune(d: &Daemon, kind: &str, filters: &Value) -> Value {
    post(d, &format!("/{kind}/prune?filters={}", escaped(&filters.to_string())))
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no size: {value}"))
}

fn sum(list: &Value, size: &str) -> u64 {
    list.as_array().unwrap().iter().map(|item| item.pointer(size).map_or(0, bytes)).sum()
}

/// A figure that a shell prints which works in the data root.
fn figure(d: &Daemon, script: &str) -> u64 {
    let script = format!("cd {} && {script}", d.data_root().display());
    d.namespaces().run(&["sh", "-c", &script]).text().trim().parse().unwrap()
}

/// Bytes on disk below a directory of the data root, as `du` counts them.
fn du(d: &Daemon, path: &str) -> u64 {
    figure(d, &format!("du -s -B1 {path} | cut -f1"))
}

/// Bytes of all files below directories of the data root, each file once.
fn content(d: &Daemon, paths: &str) -> u64 {
    let count = "sort -u | awk '{ sum += $2 } END { print sum + 0 }'";
    figure(d, &format!("find {paths} ! -type d -printf '%i %s\n' | {count}"))
}

/// Every image is alone or shares with others: what is shared is counted once.
fn sum_of_images(df: &Value) -> u64 {
    let shared = df["Images"].as_array().unwrap().iter().map(|image| bytes(&image["SharedSize"])).max();
    sum(&df["Images"], "/Size") - sum(&df["Images"], "/SharedSize") + shared.unwrap_or(0)
}

/// Containers, images with shared layers, and volumes with data in all of them.
fn filled() -> Daemon {
    let d = with_busybox();
    d.load(&layered_archive("layers:v1", 40));
    let second = ["import", "-c", "CMD [\"true\"]", "-", "second:v1"];
    let _ = d.docker_input(&second, &busybox_tar()).ok();
    let write = "dd if=/dev/zero of=/big bs=64k count=80 2>/dev/null; ln /big /same; \
                 dd if=/dev/zero of=/data/v bs=64k count=48 2>/dev/null; mkdir -p /a/b/c; sleep 1000";
    let _ = d.docker(&["run", "-d", "--name", "busy", "-v", "named:/data", "busybox", "sh", "-c", write]).ok();
    let write = "dd if=/dev/zero of=/data/x bs=64k count=16 2>/dev/null; echo end >/end";
    let _ = d.docker(&["run", "--name", "ended", "-v", "/data", "busybox", "sh", "-c", write]).ok();
    assert!(eventually(|| d.exec_ok("busy", "test -d /a/b/c")));
    d
}

trait Inside {
    fn exec_ok(&self, name: &str, script: &str) -> bool;
}

impl Inside for Daemon {
    fn exec_ok(&self, name: &str, script: &str) -> bool {
        self.docker(&["exec", name, "sh", "-c", script]).code == 0
    }
}

#[test]
fn totals_sums_and_prunes_are_one_number() {
    let d = filled();
    let df = get(&d, "/v1.51/system/df");
    assert_eq!(sum(&df["Containers"], "/SizeRw"), content(&d, "containers/*/rw/upper"));
    assert_eq!(sum(&df["Volumes"], "/UsageData/Size"), content(&d, "volumes/*/_data"));
    let images = bytes(&df["LayersSize"]);
    assert_eq!(images, sum_of_images(&df));
    // The record of a layer is no content.
    assert!(images > content(&d, "content/blobs"), "{images}");
    let sizes = |name: &str| {
        let list = df["Containers"].as_array().unwrap();
        list.iter().find(|c| c["Names"][0] == name).unwrap_or_else(|| panic!("{name} in {df}")).clone()
    };
    assert_eq!((bytes(&sizes("/busy")["SizeRw"]), bytes(&sizes("/ended")["SizeRw"])), (80 << 16, 4));
    assert!(bytes(&sizes("/busy")["SizeRootFs"]) > bytes(&sizes("/busy")["SizeRw"]));
    let new = get(&d, "/v1.52/system/df?verbose=1");
    let usage = |kind: &str, field: &str| new[kind][field].as_u64().unwrap_or(0);
    assert_eq!(usage("ImageUsage", "TotalSize"), images);
    let reclaimed = |kind: &str, filters: Value| bytes(&prune(&d, kind, &filters)["SpaceReclaimed"]);
    assert_eq!(reclaimed("images", json!({"dangling": ["0"]})), usage("ImageUsage", "Reclaimable"));
    let kept = get(&d, "/v1.51/system/df");
    assert_eq!(bytes(&kept["LayersSize"]), images - usage("ImageUsage", "Reclaimable"));
    assert_eq!(bytes(&kept["LayersSize"]), sum_of_images(&kept));
    assert_eq!(reclaimed("containers", json!({})), usage("ContainerUsage", "Reclaimable"));
    let _ = d.docker(&["rm", "-f", "busy"]).ok();
    assert_eq!(reclaimed("volumes", json!({"all": ["1"]})), usage("VolumeUsage", "TotalSize"));
    assert_eq!(reclaimed("images", json!({"dangling": ["0"]})), bytes(&kept["LayersSize"]));
    d.finish();
}

/// An index, an index within it, and platforms that share layers: each piece is one figure, once.
#[test]
fn images_of_several_platforms_add_up() {
    let d = Daemon::start();
    let layer = |name: &str| Tar::new().file(name, 0o644, &[b'x'; 5000]).bytes();
    let (common, own, other) = (layer("common"), layer("own"), layer("other"));
    let mut layout = Layout::new();
    let first = layout.image("linux/amd64", &[common.clone(), own, common.clone()], &json!({}));
    let second = layout.image("linux/arm64", &[common, other], &json!({}));
    let about = layout.attestation(&first, &[("https://example.com/p", json!({"a": 1}))]);
    let inner = layout.index(&[first, about]);
    let outer = layout.index(&[inner, second]);
    let names =
        [("io.containerd.image.name", "docker.io/library/several:v1"), ("org.opencontainers.image.ref.name", "v1")];
    d.load(&layout.entry(&outer, &names).tar());
    let df = get(&d, "/v1.51/system/df");
    assert_eq!(bytes(&df["LayersSize"]), sum_of_images(&df));
    let pruned = prune(&d, "images", &json!({"dangling": ["0"]}));
    assert_eq!(bytes(&pruned["SpaceReclaimed"]), bytes(&df["LayersSize"]));
    d.finish();
}

/// What is sparse has few blocks and much content.
#[test]
fn check_tells_the_blocks_on_the_disk() {
    let mut d = filled();
    let sparse = ["exec", "busy", "sh", "-c", "dd if=/dev/zero of=/data/hole bs=1 count=1 seek=1073741823 2>/dev/null"];
    let _ = d.docker(&sparse).ok();
    let volumes = sum(&get(&d, "/v1.51/system/df")["Volumes"], "/UsageData/Size");
    assert_eq!(volumes, (48 << 16) + (16 << 16) + (1 << 30));
    let _ = d.docker(&["stop", "-t", "0", "busy"]).ok();
    d.stop();
    let report: Value = serde_json::from_str(&d.check(&["--json"]).stdout).unwrap();
    for dir in ["content", "snapshots", "containers", "volumes"] {
        assert_eq!(report["on_disk"][dir].as_u64(), Some(du(&d, dir)), "{dir} in {report}");
    }
    assert!(bytes(&report["on_disk"]["volumes"]) < 1 << 28);
    d.again();
    d.finish();
}

#[test]
fn df_has_both_shapes() {
    let d = filled();
    let old = get(&d, "/v1.41/system/df?type=nonsense");
    assert_eq!(sum(&old["Images"], "/Containers"), 2);
    for kind in ["Images", "Containers", "Volumes", "BuildCache"] {
        assert!(old[kind].is_array(), "{kind} in {old}");
    }
    assert!(old.get("ImageUsage").is_none() && old["Images"][0]["VirtualSize"].is_u64());
    let both = get(&d, "/v1.52/system/df");
    assert!(both["Images"].is_array() && both["ImageUsage"].get("Items").is_none());
    let new = get(&d, "/v1.52/system/df?verbose=1");
    let usage = |kind: &str, field: &str| new[kind][field].as_u64().unwrap_or(0);
    assert!(new.get("Images").is_none());
    assert_eq!((usage("ImageUsage", "TotalCount"), usage("ImageUsage", "ActiveCount")), (3, 1));
    assert_eq!((usage("ContainerUsage", "TotalCount"), usage("ContainerUsage", "ActiveCount")), (2, 1));
    assert_eq!((usage("VolumeUsage", "TotalCount"), usage("VolumeUsage", "ActiveCount")), (2, 2));
    assert_eq!(usage("VolumeUsage", "Reclaimable"), 0);
    assert_eq!(new["BuildCacheUsage"], json!({}));
    assert_eq!(new["ImageUsage"]["Items"].as_array().unwrap().len(), 3);
    // Unused are the other two images, but for the layer that all share.
    let shared = |name: &str| {
        let items = new["ImageUsage"]["Items"].as_array().unwrap();
        let image = items.iter().find(|image| image["RepoTags"][0] == name).unwrap();
        (bytes(&image["Size"]), bytes(&image["SharedSize"]), bytes(&image["Containers"]))
    };
    let ((size, common, used), (other, also, unused)) = (shared("busybox:latest"), shared("second:v1"));
    assert!(common > 0 && common < size && common == also && other > also, "{size} {common} {other} {also}");
    assert_eq!((used, unused), (2, 0));
    let layers = shared("layers:v1").0 - shared("layers:v1").1;
    assert_eq!(usage("ImageUsage", "Reclaimable"), layers + other - also);
    let listed = get(&d, "/v1.51/images/json?shared-size=1");
    assert!(listed.as_array().unwrap().iter().any(|image| bytes(&image["SharedSize"]) == common));
    d.finish();
}

#[test]
fn df_measures_what_is_asked_for() {
    let d = with_busybox();
    let _ = d.docker(&["volume", "create", "vv"]).ok();
    let one = get(&d, "/v1.45/system/df?type=volume");
    assert_eq!(one.as_object().unwrap().keys().collect::<Vec<_>>(), ["Volumes"]);
    assert_eq!(one["Volumes"][0]["UsageData"], json!({"RefCount": 0, "Size": 0}));
    let two = get(&d, "/v1.52/system/df?type=container&type=build-cache&verbose=1");
    assert_eq!(two, json!({"ContainerUsage": {}, "BuildCacheUsage": {}}));
    let refused = d.http("GET", "/v1.45/system/df?type=zz", "").expect(400);
    assert_eq!(refused.message(), "unknown object type: zz");
    let text = d.docker(&["system", "df"]).text();
    for row in ["Images", "Containers", "Local Volumes", "Build Cache"] {
        assert!(text.lines().any(|line| line.starts_with(row)), "{row} in {text}");
    }
    let text = d.docker(&["system", "df", "-v"]).text();
    for wanted in ["busybox", "VOLUME NAME", "Build cache usage: 0B"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    d.finish();
}

#[test]
fn parallel_callers_share_a_walk() {
    let d = filled();
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let one = || scope.spawn(|| get(&d, "/v1.51/system/df"));
        let callers: Vec<_> = (0..16).map(|_| one()).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!(answer["LayersSize"], answers[0]["LayersSize"]);
        assert_eq!(sum(&answer["Volumes"], "/UsageData/Size"), sum(&answers[0]["Volumes"], "/UsageData/Size"));
    }
    d.finish();
}

/// The names that are left.
fn left(d: &Daemon, words: &[&str], format: &str) -> String {
    let text = d.docker(&[words, &["--format", format]].concat()).text();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names.join(" ")
}

/// The prune events so far: kind and bytes.
fn prunes(d: &Daemon) -> Vec<(String, u64)> {
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let path = format!("/events?since=0&until={until}&filters={}", escaped(r#"{"event":["prune"]}"#));
    let body = d.http("GET", &path, "").expect(200).body;
    let events = serde_json::Deserializer::from_slice(&body).into_iter::<Value>().map(Result::unwrap);
    let pair = |event: Value| {
        let reclaimed = event["Actor"]["Attributes"]["reclaimed"].as_str().unwrap().parse().unwrap();
        assert_eq!(event["Actor"]["ID"], "");
        (event["Type"].as_str().unwrap().to_owned(), reclaimed)
    };
    events.map(pair).collect()
}

#[test]
fn containers_are_pruned_by_label_and_time() {
    let d = with_busybox();
    let _ = d.docker(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    for (name, label) in [("plain", ""), ("front", "tier=front"), ("back", "tier=back")] {
        let labels = if label.is_empty() { vec![] } else { vec!["--label", label] };
        let words = [&["run", "--name", name][..], &labels, &["busybox", "sh", "-c", "echo x >/x"]].concat();
        let _ = d.docker(&words).ok();
    }
    let names = || left(&d, &["ps", "-a"], "{{.Names}}");
    for nothing in [json!({"until": ["1h"]}), json!({"until": ["2020-01-01T00:00:00"]}), json!({"label": ["no"]})] {
        assert_eq!(prune(&d, "containers", &nothing), json!({"ContainersDeleted": null, "SpaceReclaimed": 0}));
    }
    let one = prune(&d, "containers", &json!({"label": ["tier=back"], "until": ["0s"]}));
    assert_eq!(one["ContainersDeleted"].as_array().unwrap().len(), 1);
    assert_eq!(names(), "front plain runs");
    prune(&d, "containers", &json!({"label!": ["tier"]}));
    assert_eq!(names(), "front runs");
    let rest = prune(&d, "containers", &json!({}));
    assert!(bytes(&rest["SpaceReclaimed"]) > 0);
    assert_eq!(names(), "runs");
    assert_eq!(prunes(&d).last().unwrap(), &("container".to_owned(), bytes(&rest["SpaceReclaimed"])));
    for (filters, message) in [
        (json!({"zz": ["1"]}), "invalid filter 'zz'"),
        (json!({"until": ["1h", "2h"]}), "more than one until filter specified"),
    ] {
        let path = format!("/containers/prune?filters={}", escaped(&filters.to_string()));
        assert_eq!(d.http("POST", &path, "").expect(400).message(), message);
    }
    d.finish();
}

#[test]
fn images_are_pruned_by_name_label_and_time() {
    let d = with_busybox();
    let import = |name: &str, label: &str| {
        let change = format!("LABEL {label}");
        let _ = d.docker_input(&["import", "-c", &change, "-", name], &busybox_tar()).ok();
    };
    import("front:1", "tier=front");
    import("back:1", "tier=back");
    let _ = d.docker(&["tag", "busybox", "other:1"]).ok();
    let _ = d.docker(&["create", "--name", "c", "busybox", "true"]).ok();
    let names = || left(&d, &["images", "-a"], "{{.Repository}}:{{.Tag}}");
    assert_eq!(prune(&d, "images", &json!({})), json!({"ImagesDeleted": null, "SpaceReclaimed": 0}));
    // A moved tag leaves an image without a name.
    import("front:1", "tier=moved");
    let dangling = left(&d, &["images", "-q", "--no-trunc", "--filter", "dangling=true"], "{{.ID}}");
    let report = prune(&d, "images", &json!({}));
    assert_eq!(report["ImagesDeleted"], json!([{"Untagged": dangling}, {"Deleted": dangling}]));
    for nothing in [json!({"dangling": ["0"], "until": ["1h"]}), json!({"dangling": ["false"], "label": ["no"]})] {
        assert_eq!(prune(&d, "images", &nothing)["ImagesDeleted"], Value::Null);
    }
    let report = prune(&d, "images", &json!({"dangling": ["false"], "label": ["tier=back"], "until": ["0s"]}));
    assert_eq!(report["ImagesDeleted"][0]["Untagged"], "back:1");
    assert_eq!(names(), "busybox:latest front:1 other:1");
    prune(&d, "images", &json!({"dangling": ["0"], "label!": ["tier"]}));
    // The name that the container was made by stays.
    assert_eq!(names(), "busybox:latest front:1");
    prune(&d, "images", &json!({"dangling": ["0"]}));
    assert_eq!(names(), "busybox:latest");
    assert!(prunes(&d).iter().all(|(kind, _)| kind == "image"));
    let bad = escaped(r#"{"dangling":["maybe"]}"#);
    let refused = d.http("POST", &format!("/images/prune?filters={bad}"), "").expect(400);
    assert_eq!(refused.message(), "invalid filter 'dangling=[maybe]'");
    d.finish();
}

#[test]
fn volumes_are_pruned_by_label_and_kind() {
    let d = with_busybox();
    for (name, label) in [("front", "tier=front"), ("back", "tier=back")] {
        let _ = d.docker(&["volume", "create", "--label", label, name]).ok();
    }
    let _ = d.docker(&["volume", "create"]).ok();
    let write = "dd if=/dev/zero of=/v/x bs=64k count=16 2>/dev/null";
    let _ = d.docker(&["run", "--rm", "-v", "front:/v", "busybox", "sh", "-c", write]).ok();
    let _ = d.docker(&["create", "--name", "c", "-v", "used:/v", "busybox", "true"]).ok();
    let names = || left(&d, &["volume", "ls"], "{{.Name}}");
    let anonymous = prune(&d, "volumes", &json!({}));
    assert_eq!(anonymous["VolumesDeleted"].as_array().unwrap().len(), 1);
    assert_eq!(names(), "back front used");
    assert_eq!(prune(&d, "volumes", &json!({})), json!({"VolumesDeleted": [], "SpaceReclaimed": 0}));
    let report = prune(&d, "volumes", &json!({"all": ["true"], "label!": ["tier=back"]}));
    assert_eq!(report["VolumesDeleted"], json!(["front"]));
    assert!(bytes(&report["SpaceReclaimed"]) >= 16 << 16);
    assert_eq!(prunes(&d).last().unwrap(), &("volume".to_owned(), bytes(&report["SpaceReclaimed"])));
    // Below 1.42 named volumes went without asking.
    assert_eq!(post(&d, "/v1.41/volumes/prune")["VolumesDeleted"], json!(["back"]));
    assert_eq!(names(), "used");
    let refused = d.http("POST", &format!("/volumes/prune?filters={}", escaped(r#"{"zz":["1"]}"#)), "").expect(400);
    assert_eq!(refused.message(), "invalid filter 'zz'");
    d.finish();
}

#[test]
fn the_whole_system_is_pruned() {
    let d = filled();
    let _ = d.docker(&["rm", "-f", "busy"]).ok();
    let text = d.docker(&["system", "prune", "-a", "-f", "--volumes"]).text();
    for wanted in ["Deleted Containers:", "Deleted Volumes:", "Deleted Images:", "Total reclaimed space:"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    let df = get(&d, "/v1.51/system/df");
    assert_eq!((&df["Images"], &df["Containers"]), (&json!([]), &json!([])));
    assert_eq!(bytes(&df["LayersSize"]), 0);
    // The CLI asks for anonymous volumes only.
    assert_eq!(left(&d, &["volume", "ls"], "{{.Name}}"), "named");
    let kinds: Vec<_> = prunes(&d).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["container", "network", "volume", "image", "builder"]);
    d.finish();
}

#[test]
fn prunes_without_anything_to_prune() {
    let d = Daemon::start();
    assert_eq!(prune(&d, "networks", &json!({"label": ["a"], "until": ["1h"]})), json!({"NetworksDeleted": null}));
    assert_eq!(post(&d, "/build/prune?all=1&reserved-space=5"), json!({"CachesDeleted": null, "SpaceReclaimed": 0}));
    let text = |path: &str| d.http("POST", path, "").expect(400).message();
    assert_eq!(
        text("/build/prune?max-used-space=x"),
        "max-used-space is in bytes and expects an integer, got x: strconv.Atoi: parsing \"x\": invalid syntax"
    );
    for (filters, message) in [
        (json!({"zz": ["1"]}), "invalid filter 'zz'"),
        (json!({"until": ["1h"], "unused-for": ["1h"]}), "conflicting filters: \"until\" and \"unused-for\""),
        (json!({"id": ["a", "b"]}), "filters expect only one value"),
    ] {
        let path = format!("/build/prune?filters={}", escaped(&filters.to_string()));
        assert_eq!(text(&path), format!("failed to prune build cache: {message}"));
    }
    let path = format!("/networks/prune?filters={}", escaped(r#"{"dangling":["1"]}"#));
    assert_eq!(text(&path), "invalid filter 'dangling'");
    d.finish();
}

#[test]
fn containers_that_move_their_directories_about_break_no_measuring() {
    let d = with_busybox();
    let restless = "while true; do mkdir -p /a/b/c/d/e; mv /a/b/c /m; mv /m /a/c; rm -r /a; done";
    let in_volume = "while true; do mkdir -p /v/a/b/c/d/e; mv /v/a/b/c /v/m; mv /v/m /v/a/c; rm -r /v/a; done";
    let _ = d.docker(&["run", "-d", "busybox", "sh", "-c", restless]).ok();
    let _ = d.docker(&["run", "-d", "-v", "vol:/v", "busybox", "sh", "-c", in_volume]).ok();
    for _ in 0..100 {
        let df = get(&d, "/v1.51/system/df");
        assert_eq!(df["Containers"].as_array().unwrap().len(), 2);
        assert!(df["Volumes"][0]["UsageData"]["Size"].as_i64().unwrap() >= 0, "{df}");
    }
    d.finish();
}
