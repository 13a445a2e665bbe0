//! An operation as JSON, its fields named as BuildKit names them; what has its default is left out.

use base64::Engine as _;
use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::op::Op;
use serde_json::{Map, Value, json};

/// Standard base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Fields that are not their defaults.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn add(mut self, name: &str, value: impl Into<Value>) -> Fields {
        let value = value.into();
        let is_default = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if !is_default {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// A message: it is there even if it is empty.
    fn message(mut self, name: &str, value: Option<Value>) -> Fields {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn done(self) -> Value {
        self.0.into()
    }
}

/// The operation without its inputs.
pub(super) fn json(operation: &pb::Op) -> Value {
    let body = match &operation.op {
        None => json!({}),
        Some(Op::Exec(exec)) => json!({"exec": of_exec(exec)}),
        Some(Op::Source(source)) => json!({"source": of_source(source)}),
        Some(Op::File(file)) => {
            let actions: Vec<Value> = file.actions.iter().map(action).collect();
            json!({"file": {"actions": actions}})
        }
        Some(Op::Build(build)) => {
            json!({"build": Fields::default().add("builder", build.builder).add("attrs", attributes(build)).done()})
        }
        Some(Op::Merge(merge)) => {
            let inputs: Vec<Value> =
                merge.inputs.iter().map(|input| Fields::default().add("input", input.input).done()).collect();
            json!({"merge": {"inputs": inputs}})
        }
        Some(Op::Diff(diff)) => {
            let side = |input: i64| Fields::default().add("input", input).done();
            let fields = Fields::default().message("lower", diff.lower.map(|lower| side(lower.input)));
            json!({"diff": fields.message("upper", diff.upper.map(|upper| side(upper.input))).done()})
        }
    };
    let platform = operation.platform.as_ref().map(|platform| {
        Fields::default()
            .add("Architecture", platform.architecture.as_str())
            .add("OS", platform.os.as_str())
            .add("Variant", platform.variant.as_str())
            .add("OSVersion", platform.os_version.as_str())
            .add("OSFeatures", platform.os_features.clone())
            .done()
    });
    let constraints = operation.constraints.as_ref();
    let constraints = constraints.map(|limits| Fields::default().add("filter", limits.filter.clone()).done());
    let fields = Fields::default().message("Op", Some(body)).message("platform", platform);
    fields.message("constraints", constraints).done()
}

fn attributes(build: &pb::BuildOp) -> Value {
    json!(build.attrs.iter().collect::<std::collections::BTreeMap<_, _>>())
}

fn of_source(source: &pb::SourceOp) -> Value {
    let attributes: std::collections::BTreeMap<_, _> = source
        .attrs
        .iter()
        // Another build of the same would have others.
        .filter(|(name, _)| !matches!(name.as_str(), "local.session" | "local.unique"))
        .collect();
    let identifier = super::capture::without_secrets(&source.identifier);
    Fields::default().add("identifier", identifier).add("attrs", json!(attributes)).done()
}

fn of_exec(exec: &pb::ExecOp) -> Value {
    let secrets = exec.secretenv.iter().map(|secret| {
        let fields = Fields::default().add("ID", secret.id.as_str()).add("name", secret.name.as_str());
        fields.add("optional", secret.optional).done()
    });
    let secrets: Vec<Value> = secrets.collect();
    let devices = exec
        .cdi_devices
        .iter()
        .map(|device| Fields::default().add("name", device.name.as_str()).add("optional", device.optional).done());
    let devices: Vec<Value> = devices.collect();
    Fields::default()
        .message("meta", exec.meta.as_ref().map(meta))
        .add("mounts", exec.mounts.iter().map(mount).collect::<Vec<Value>>())
        .add("network", exec.network)
        .add("security", exec.security)
        .add("secretenv", secrets)
        .add("cdiDevices", devices)
        .done()
}

/// What runs; proxies are not told, passwords may stand in them.
fn meta(meta: &pb::Meta) -> Value {
    let hosts: Vec<Value> = meta
        .extra_hosts
        .iter()
        .map(|host| Fields::default().add("Host", host.host.as_str()).add("IP", host.ip.as_str()).done())
        .collect();
    let limit = |own: &pb::Ulimit| {
        Fields::default().add("Name", own.name.as_str()).add("Soft", own.soft).add("Hard", own.hard).done()
    };
    Fields::default()
        .add("args", meta.args.clone())
        .add("env", meta.env.clone())
        .add("cwd", meta.cwd.as_str())
        .add("user", meta.user.as_str())
        .add("extraHosts", hosts)
        .add("hostname", meta.hostname.as_str())
        .add("ulimit", meta.ulimit.iter().map(limit).collect::<Vec<Value>>())
        .add("cgroupParent", meta.cgroup_parent.as_str())
        .add("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .add("validExitCodes", meta.valid_exit_codes.clone())
        .done()
}

fn mount(mount: &pb::Mount) -> Value {
    let cache =
        |cache: &pb::CacheOpt| Fields::default().add("ID", cache.id.as_str()).add("sharing", cache.sharing).done();
    let secret = |secret: &pb::SecretOpt| {
        let fields = Fields::default().add("ID", secret.id.as_str()).add("uid", secret.uid).add("gid", secret.gid);
        fields.add("mode", secret.mode).add("optional", secret.optional).done()
    };
    let agent = |agent: &pb::SshOpt| {
        let fields = Fields::default().add("ID", agent.id.as_str()).add("uid", agent.uid).add("gid", agent.gid);
        fields.add("mode", agent.mode).add("optional", agent.optional).done()
    };
    Fields::default()
        .add("input", mount.input)
        .add("selector", mount.selector.as_str())
        .add("dest", mount.dest.as_str())
        .add("output", mount.output)
        .add("readonly", mount.readonly)
        .add("mountType", mount.mount_type)
        .message("TmpfsOpt", mount.tmpfs_opt.as_ref().map(|tmpfs| Fields::default().add("size", tmpfs.size).done()))
        .message("cacheOpt", mount.cache_opt.as_ref().map(cache))
        .message("secretOpt", mount.secret_opt.as_ref().map(secret))
        .message("SSHOpt", mount.ssh_opt.as_ref().map(agent))
        .add("resultID", mount.result_id.as_str())
        .add("contentCache", mount.content_cache)
        .done()
}

fn owner(owner: &pb::ChownOpt) -> Value {
    let user = |user: &pb::UserOpt| match &user.user {
        Some(pb::user_opt::User::ByName(named)) => {
            let named = Fields::default().add("name", named.name.as_str()).add("input", named.input).done();
            json!({"User": {"ByName": named}})
        }
        Some(pb::user_opt::User::ById(id)) => json!({"User": {"ByID": id}}),
        None => json!({}),
    };
    let fields = Fields::default().message("user", owner.user.as_ref().map(user));
    fields.message("group", owner.group.as_ref().map(user)).done()
}

fn action(action: &pb::FileAction) -> Value {
    let body = match &action.action {
        None => json!({}),
        Some(Action::Copy(copy)) => json!({"copy": of_copy(copy)}),
        Some(Action::Mkfile(file)) => {
            let fields = Fields::default().add("path", file.path.as_str()).add("mode", file.mode);
            let fields = fields.add("data", base64(&file.data)).message("owner", file.owner.as_ref().map(owner));
            json!({"mkfile": fields.add("timestamp", file.timestamp).done()})
        }
        Some(Action::Mkdir(dir)) => {
            let fields = Fields::default().add("path", dir.path.as_str()).add("mode", dir.mode);
            let fields = fields.add("makeParents", dir.make_parents).message("owner", dir.owner.as_ref().map(owner));
            json!({"mkdir": fields.add("timestamp", dir.timestamp).done()})
        }
        Some(Action::Rm(rm)) => {
            let fields = Fields::default().add("path", rm.path.as_str()).add("allowNotFound", rm.allow_not_found);
            json!({"rm": fields.add("allowWildcard", rm.allow_wildcard).done()})
        }
        Some(Action::Symlink(link)) => {
            let fields = Fields::default().add("oldpath", link.oldpath.as_str()).add("newpath", link.newpath.as_str());
            let fields = fields.message("owner", link.owner.as_ref().map(owner));
            json!({"symlink": fields.add("timestamp", link.timestamp).done()})
        }
    };
    json!({
        "input": action.input,
        "secondaryInput": action.secondary_input,
        "output": action.output,
        "Action": body,
    })
}

fn of_copy(copy: &pb::FileActionCopy) -> Value {
    Fields::default()
        .add("src", copy.src.as_str())
        .add("dest", copy.dest.as_str())
        .message("owner", copy.owner.as_ref().map(owner))
        .add("mode", copy.mode)
        .add("followSymlink", copy.follow_symlink)
        .add("dirCopyContents", copy.dir_copy_contents)
        .add("attemptUnpackDockerCompatibility", copy.attempt_unpack_docker_compatibility)
        .add("createDestPath", copy.create_dest_path)
        .add("allowWildcard", copy.allow_wildcard)
        .add("allowEmptyWildcard", copy.allow_empty_wildcard)
        .add("timestamp", copy.timestamp)
        .add("include_patterns", copy.include_patterns.clone())
        .add("exclude_patterns", copy.exclude_patterns.clone())
        .add("alwaysReplaceExistingDestPaths", copy.always_replace_existing_dest_paths)
        .add("modeStr", copy.mode_str.as_str())
        .add("required_paths", copy.required_paths.clone())
        .done()
}
