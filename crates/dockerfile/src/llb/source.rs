//! Sources: identifiers and attributes.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use super::graph::{About, Vertex};
use crate::git::GitSource;

/// The platform of an operation.
pub fn platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..pb::Platform::default()
    }
}

fn source(identifier: String, attributes: &[(&str, &str)]) -> pb::SourceOp {
    let given = attributes.iter().filter(|(_, value)| !value.is_empty());
    let attrs: BTreeMap<String, String> = given.map(|(key, value)| ((*key).into(), (*value).into())).collect();
    pb::SourceOp { identifier, attrs }
}

/// An image by its full name. `mode` is `pull` or `local`; empty: as the solver likes.
pub fn image(reference: &str, mode: &str, on: &Platform, mut about: About) -> (Vertex, About) {
    about.needs("source.image");
    if mode == "pull" {
        about.needs("source.image.resolvemode");
    }
    let op = source(format!("docker-image://{reference}"), &[("image.resolvemode", mode)]);
    (Vertex::Source(op, Some(platform(on))), about)
}

/// An image in a layout that the client of a session has.
pub fn layout(reference: &str, [session, store]: [&str; 2], on: &Platform, mut about: About) -> (Vertex, About) {
    about.needs("source.ocilayout");
    let op = source(format!("oci-layout://{reference}"), &[("oci.session", session), ("oci.store", store)]);
    (Vertex::Source(op, Some(platform(on))), about)
}

/// A directory of the client.
pub fn local(name: &str, attributes: &[(&str, &str)], mut about: About) -> (Vertex, About) {
    about.needs("source.local");
    for (capability, key) in [
        ("source.local.sessionid", "local.session"),
        ("source.local.followpaths", "local.followpaths"),
        ("source.local.excludepatterns", "local.excludepatterns"),
        ("source.local.sharedkeyhint", "local.sharedkeyhint"),
    ] {
        if attributes.iter().any(|(given, value)| *given == key && !value.is_empty()) {
            about.needs(capability);
        }
    }
    (Vertex::Source(source(format!("local://{name}"), attributes), None), about)
}

/// A file from a server. `checksum` is its digest; empty: anything.
pub fn http(url: &str, [file, checksum]: [&str; 2], mut about: About) -> (Vertex, About) {
    about.needs("source.http");
    if !checksum.is_empty() {
        about.needs("source.http.checksum");
    }
    let op = source(url.to_owned(), &[("http.checksum", checksum), ("http.filename", file)]);
    (Vertex::Source(op, None), about)
}

/// A commit of a repository.
pub fn git(from: &GitSource, mut about: About) -> (Vertex, About) {
    about.needs("source.git");
    about.needs("source.git.fullurl");
    let ssh = from.is_ssh();
    let flag = |set: bool| if set { "true" } else { "" };
    let attributes = [
        ("git.keepgitdir", flag(from.keep_git_dir == Some(true))),
        ("git.fullurl", from.remote.as_str()),
        ("git.authtokensecret", "GIT_AUTH_TOKEN"),
        ("git.authheadersecret", "GIT_AUTH_HEADER"),
        ("git.mountsshsock", if ssh { "default" } else { "" }),
        ("git.checksum", from.checksum.as_str()),
        ("git.skipsubmodules", flag(from.submodules == Some(false))),
        ("git.mtime", from.mtime.as_str()),
        ("git.fetchbycommit", flag(from.fetch_by_commit)),
    ];
    for (key, capability) in [
        ("git.keepgitdir", "source.git.keepgitdir"),
        ("git.mountsshsock", "source.git.mountsshsock"),
        ("git.checksum", "source.git.checksum"),
        ("git.skipsubmodules", "source.git.skipsubmodules"),
        ("git.mtime", "source.git.mtime"),
        ("git.fetchbycommit", "source.git.fetchbycommit"),
    ] {
        if attributes.iter().any(|(given, value)| *given == key && !value.is_empty()) {
            about.needs(capability);
        }
    }
    (Vertex::Source(source(format!("git://{}", from.identifier()), &attributes), None), about)
}
