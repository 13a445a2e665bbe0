//! Calls of BuildKit's API on the daemon's own socket, by prior knowledge, as clients make them that are no `docker` driver.

use std::fs;

use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, InfoRequest, ListWorkersRequest,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
};
use testkit::Daemon;
use testkit::command::{self, Output};
use testkit::grpc::Channel;
use tonic::{Code, Request, Status};

use crate::buildx::{client, new_context, with_buildx};
use crate::with_busybox;

/// Runs calls to their end.
pub fn calling<T>(d: &Daemon, calls: impl AsyncFnOnce(Channel) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { calls(Channel::unix(&d.socket()).await).await })
}

/// The service of builds.
pub fn control(channel: Channel) -> ControlClient<Channel> {
    ControlClient::with_origin(channel, Channel::origin())
}

#[test]
fn calls_by_prior_knowledge() {
    let d = with_busybox();
    calling(&d, async |channel| {
        let mut health = HealthClient::with_origin(channel.clone(), Channel::origin());
        let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(answer.status, ServingStatus::Serving as i32);
        let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
        let workers = control(channel.clone()).list_workers(ListWorkersRequest::default()).await.unwrap().into_inner();
        assert_eq!(workers.record.len(), 1);
        let info = control(channel).info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.buildkit_version.unwrap().package, "github.com/moby/buildkit");
    });
    d.finish();
}

/// Runs the CLI with the plugin.
fn buildx(d: &Daemon, words: &[&str]) -> Output {
    command::run(&mut client(d, &[&["buildx"], words].concat()), b"")
}

/// `--driver remote`: sessions come over `Control.Session`, and results go to the client.
#[test]
fn a_remote_builder_is_the_daemon() {
    let d = with_buildx();
    let address = format!("unix://{}", d.socket().display());
    let _ = buildx(&d, &["create", "--name", "far", "--driver", "remote", &address]).ok();
    let shown = buildx(&d, &["inspect", "--bootstrap", "far"]).ok();
    assert!(shown.stdout.contains("running") && shown.stdout.contains("linux/"), "{}", shown.stdout);
    let dockerfile =
        "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s > /s\nCOPY a /\nCMD [\"cat\", \"/a\", \"/s\"]\n";
    let context = new_context(&d, "far", dockerfile).file("a", "1\n");
    let secret = d.path("secret.txt");
    fs::write(&secret, "2").unwrap();
    let secret = format!("id=s,src={}", secret.display());
    let dir = context.dir.to_str().unwrap();
    let build = ["build", "--builder", "far", "--progress=plain", "--secret", &secret];
    let _ = buildx(&d, &[&build[..], &["--load", "-t", "app", dir]].concat()).ok();
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "1\n2");
    let tree = d.path("tree");
    let output = format!("type=local,dest={}", tree.display());
    let again = buildx(&d, &[&build[..], &["--output", &output, dir]].concat()).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(tree.join("s")).unwrap(), "2");
    let used = buildx(&d, &["du", "--builder", "far"]).ok();
    assert!(used.stdout.contains("Total:"), "{}", used.stdout);
    let _ = buildx(&d, &["prune", "--builder", "far", "-af"]).ok();
    let _ = buildx(&d, &["rm", "far"]).ok();
    d.finish();
}

/// What a request is told of the history, as type, name and whether it is kept.
async fn history(channel: &Channel, request: BuildHistoryRequest) -> Vec<(BuildHistoryEventType, String, bool)> {
    let mut events = control(channel.clone()).listen_build_history(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        told.push(seen(&event));
    }
    told
}

fn seen(event: &BuildHistoryEvent) -> (BuildHistoryEventType, String, bool) {
    let record = event.record.clone().unwrap_or_default();
    (event.r#type(), record.r#ref, record.pinned)
}

fn now() -> BuildHistoryRequest {
    BuildHistoryRequest { early_exit: true, ..BuildHistoryRequest::default() }
}

/// `buildx history` of newer clients: ls, inspect, logs, rm, and what they ask to find out whether it is there.
#[test]
fn builds_of_the_past_are_told_filtered_pinned_and_forgotten() {
    use BuildHistoryEventType::{Complete, Deleted, Started};
    let d = with_buildx();
    let context = new_context(&d, "past", "FROM busybox\nRUN echo of-the-past\n");
    let _ = context.build(&d, &[]).ok();
    let failed = new_context(&d, "fails", "FROM busybox\nRUN exit 3\n").build(&d, &[]);
    assert_ne!(failed.code, 0);
    calling(&d, async |channel| {
        let probe = BuildHistoryRequest { r#ref: "buildx-test-history-api-feature".into(), ..now() };
        assert_eq!(history(&channel, probe).await, []);
        let of = |filter: &str| BuildHistoryRequest { filter: vec![filter.to_owned()], ..now() };
        let all = history(&channel, now()).await;
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(history(&channel, of("status==completed")).await, [all[0].clone()]);
        assert_eq!(history(&channel, of("status==error,startedAt>1h")).await, [all[1].clone()]);
        assert_eq!(history(&channel, of("duration>1h")).await, []);
        // The newest comes first where not all are wanted.
        assert_eq!(history(&channel, BuildHistoryRequest { limit: 1, ..now() }).await, [all[1].clone()]);
        let refused = control(channel.clone()).listen_build_history(of("duration>x")).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        // What it told is told again, whenever it is asked for.
        let request = StatusRequest { r#ref: all[0].1.clone() };
        let mut told = control(channel.clone()).status(request).await.unwrap().into_inner();
        let mut log = Vec::new();
        while let Some(message) = told.message().await.unwrap() {
            message.logs.iter().for_each(|one| log.extend_from_slice(&one.msg));
        }
        assert!(String::from_utf8_lossy(&log).contains("of-the-past"));
        // A client that listens hears of changes.
        let mut events =
            control(channel.clone()).listen_build_history(BuildHistoryRequest::default()).await.unwrap().into_inner();
        for one in &all {
            assert_eq!(seen(&events.message().await.unwrap().unwrap()), *one);
        }
        let id = all[0].1.clone();
        let pin = UpdateBuildHistoryRequest { r#ref: id.clone(), pinned: true, ..Default::default() };
        control(channel.clone()).update_build_history(pin).await.unwrap();
        assert_eq!(seen(&events.message().await.unwrap().unwrap()), (Complete, id.clone(), true));
        let remove = UpdateBuildHistoryRequest { r#ref: id.clone(), delete: true, ..Default::default() };
        control(channel.clone()).update_build_history(remove.clone()).await.unwrap();
        assert_eq!(seen(&events.message().await.unwrap().unwrap()), (Deleted, id, false));
        let gone = control(channel.clone()).update_build_history(remove).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
        std::thread::scope(|scope| {
            let build = scope.spawn(|| context.build(&d, &[]).ok());
            build.join().unwrap();
        });
        let first = seen(&events.message().await.unwrap().unwrap());
        let last = if first.0 == Started { seen(&events.message().await.unwrap().unwrap()) } else { first };
        assert_eq!(last.0, Complete);
    });
    d.finish();
}

/// What the history has, as request by request: its record, and all that was told.
async fn recalled(channel: &Channel, id: &str) -> (BuildHistoryRecord, Vec<StatusResponse>) {
    let request = BuildHistoryRequest { r#ref: id.to_owned(), ..now() };
    let mut events = control(channel.clone()).listen_build_history(request).await.unwrap().into_inner();
    let event = events.message().await.unwrap().expect("it is there");
    let request = StatusRequest { r#ref: id.to_owned() };
    let mut told = control(channel.clone()).status(request).await.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = told.message().await.unwrap() {
        messages.push(message);
    }
    (event.record.unwrap(), messages)
}

/// The next daemon knows what the one before did, whether it was stopped or killed.
#[test]
fn the_history_outlives_the_daemon() {
    let mut d = with_buildx();
    let _ = new_context(&d, "past", "FROM busybox\nRUN echo of-the-past\n").build(&d, &[]).ok();
    assert_ne!(new_context(&d, "fails", "FROM busybox\nRUN exit 3\n").build(&d, &[]).code, 0);
    let (all, before) = calling(&d, async |channel| {
        let all = history(&channel, now()).await;
        let id = all[0].1.clone();
        let pin = UpdateBuildHistoryRequest { r#ref: id, pinned: true, ..Default::default() };
        control(channel.clone()).update_build_history(pin).await.unwrap();
        let mut before = Vec::new();
        for (_, id, _) in &all {
            before.push(recalled(&channel, id).await);
        }
        (all, before)
    });
    assert!(before[0].0.pinned && before[1].0.error.is_some() && before[0].1.len() > 3);
    d.restart();
    for round in 0..2 {
        calling(&d, async |channel| {
            for ((_, id, _), before) in all.iter().zip(&before).skip(round) {
                assert_eq!(recalled(&channel, id).await, *before);
            }
            let remove = UpdateBuildHistoryRequest { r#ref: all[round].1.clone(), delete: true, ..Default::default() };
            control(channel.clone()).update_build_history(remove).await.unwrap();
        });
        d.crash();
    }
    assert_eq!(calling(&d, async |channel| history(&channel, now()).await), []);
    d.finish();
}

/// What the kernel is told of programs of other machines (`binfmt_misc`), as it lists it; another directory stands in its place.
#[test]
fn workers_tell_the_platforms_whose_programs_run() {
    let d = with_busybox();
    let platforms = || {
        calling(&d, async |channel| {
            let workers = control(channel).list_workers(ListWorkersRequest::default()).await.unwrap().into_inner();
            let platforms = workers.record[0].platforms.clone();
            platforms.into_iter().map(|p| format!("{}/{}{}", p.os, p.architecture, p.variant)).collect::<Vec<_>>()
        })
    };
    let own = platforms();
    assert_eq!(own.len(), 1, "{own:?}");
    let registered = d.path("registered");
    fs::create_dir_all(&registered).unwrap();
    let entry = |state: &str, machine: &str| {
        format!(
            "{state}\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic 7f454c460201010000000000000000000200{machine}\n\
             mask ffffffffffffff00fffffffffffffffffeffffff\n"
        )
    };
    fs::write(registered.join("status"), "enabled\n").unwrap();
    fs::write(registered.join("register"), "").unwrap();
    fs::write(registered.join("qemu-aarch64"), entry("enabled", "b700")).unwrap();
    fs::write(registered.join("qemu-riscv64"), entry("disabled", "f300")).unwrap();
    let place = "/proc/sys/fs/binfmt_misc";
    let _ = d.namespaces().run(&["mount", "--bind", registered.to_str().unwrap(), place]).ok();
    assert_eq!(platforms(), [own, vec!["linux/arm64".to_owned()]].concat());
    let _ = d.namespaces().run(&["umount", place]).ok();
    d.finish();
}

/// One message that no other field is needed of, in the form of protobuf.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Read {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

/// Calls a method whose service has no definition at hand.
async fn ask(channel: &Channel, path: &'static str, request: Asked) -> Result<Vec<Read>, Status> {
    let mut calls = tonic::client::Grpc::with_origin(channel.clone(), Channel::origin());
    calls.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Asked, Read>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let mut answers = calls.server_streaming(Request::new(request), path, codec).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

const CONTENT: &str = "/containerd.services.content.v1.Content/Read";

#[test]
fn blobs_are_read_and_never_written_and_traces_are_taken() {
    let d = with_busybox();
    let digest = d.inspect("busybox", "{{.Id}}");
    calling(&d, async |channel| {
        let asked = |offset, size| Asked { digest: digest.clone(), offset, size };
        let whole: Vec<u8> =
            ask(&channel, CONTENT, asked(0, 0)).await.unwrap().into_iter().flat_map(|r| r.data).collect();
        assert_eq!(format!("sha256:{}", testkit::images::sha256(&whole)), digest);
        let part: Vec<Read> = ask(&channel, CONTENT, asked(3, 4)).await.unwrap();
        assert_eq!(part, [Read { offset: 3, data: whole[3..7].to_vec() }]);
        assert_eq!(ask(&channel, CONTENT, asked(1 << 40, 0)).await.unwrap_err().code(), Code::InvalidArgument);
        let missing = Asked { digest: format!("sha256:{}", "0".repeat(64)), ..Asked::default() };
        assert_eq!(ask(&channel, CONTENT, missing).await.unwrap_err().code(), Code::NotFound);
        let none = Asked { digest: "../etc/passwd".into(), ..Asked::default() };
        assert_eq!(ask(&channel, CONTENT, none).await.unwrap_err().code(), Code::InvalidArgument);
        for method in ["Write", "Delete", "Update", "Abort"] {
            let path = format!("/containerd.services.content.v1.Content/{method}").leak();
            let refused = ask(&channel, path, asked(0, 0)).await.unwrap_err();
            assert_eq!(refused.message(), "read-only content store", "{method}");
        }
        let traces = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        assert_eq!(ask(&channel, traces, asked(0, 0)).await.unwrap(), [Read::default()]);
        let unknown = ask(&channel, "/no.Such/Method", asked(0, 0)).await.unwrap_err();
        assert_eq!((unknown.code(), unknown.message()), (Code::Unimplemented, "unknown service no.Such"));
    });
    d.finish();
}
