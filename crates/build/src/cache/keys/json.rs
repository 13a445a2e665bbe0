//! Operations as BuildKit writes them in JSON for its keys: fields in the order of Go's structs, those with zero values left out,
//! in the escapes of Go's `encoding/json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::user_opt::User;

/// Which of BuildKit's versions writes: what an index of 0 is and how users are named has changed once (0.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// An index is always there.
    Old,
    /// An index of 0 is left out.
    New,
}

impl Dialect {
    pub(super) const ALL: [Dialect; 2] = [Dialect::New, Dialect::Old];
}

/// An object that is being written.
#[derive(Default)]
pub(super) struct Object(Vec<String>);

/// A text.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = serde_json::Value::from(text).to_string();
    for (plain, escaped) in
        [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")]
    {
        quoted = quoted.replace(plain, escaped);
    }
    quoted
}

impl Object {
    pub(super) fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Object {
        self.0.push(format!("\"{name}\":{value}"));
        self
    }

    pub(super) fn text(self, name: &str, value: &str) -> Object {
        if value.is_empty() { self } else { self.raw(name, quoted(value)) }
    }

    fn number(self, name: &str, value: i64) -> Object {
        if value == 0 { self } else { self.raw(name, value) }
    }

    fn index(self, name: &str, value: i64, dialect: Dialect) -> Object {
        if dialect == Dialect::Old { self.raw(name, value) } else { self.number(name, value) }
    }

    fn flag(self, name: &str, value: bool) -> Object {
        if value { self.raw(name, true) } else { self }
    }

    pub(super) fn list(self, name: &str, values: impl Iterator<Item = String>) -> Object {
        let values: Vec<String> = values.collect();
        if values.is_empty() { self } else { self.raw(name, format!("[{}]", values.join(","))) }
    }

    pub(super) fn texts(self, name: &str, values: &[String]) -> Object {
        self.list(name, values.iter().map(|value| quoted(value)))
    }

    fn option(self, name: &str, value: Option<String>) -> Object {
        match value {
            Some(value) => self.raw(name, value),
            None => self,
        }
    }

    pub(super) fn done(self) -> String {
        format!("{{{}}}", self.0.join(","))
    }
}

/// A program, without what its result does not depend on.
pub(super) fn exec(exec: &pb::ExecOp, dialect: Dialect) -> String {
    let mounts: &[pb::Mount] = if has_root_only(&exec.mounts) { &[] } else { &exec.mounts };
    let secret = |secret: &pb::SecretEnv| {
        Object::default().text("ID", &secret.id).text("name", &secret.name).flag("optional", secret.optional).done()
    };
    let device =
        |device: &pb::CdiDevice| Object::default().text("name", &device.name).flag("optional", device.optional).done();
    Object::default()
        .option("meta", exec.meta.as_ref().map(meta))
        .list("mounts", mounts.iter().map(|own| mount(own, dialect)))
        .number("network", exec.network.into())
        .number("security", exec.security.into())
        .list("secretenv", exec.secretenv.iter().map(secret))
        .list("cdiDevices", exec.cdi_devices.iter().map(device))
        .done()
}

/// A root that can be written to, and nothing else, is left out.
fn has_root_only(mounts: &[pb::Mount]) -> bool {
    let [root] = mounts else { return false };
    root.dest == "/"
        && !root.readonly
        && root.mount_type == pb::MountType::Bind as i32
        && root.cache_opt.is_none()
        && root.ssh_opt.is_none()
        && root.secret_opt.is_none()
        && root.result_id.is_empty()
}

fn meta(meta: &pb::Meta) -> String {
    let host = |host: &pb::HostIp| Object::default().text("Host", &host.host).done();
    let limit = |limit: &pb::Ulimit| {
        Object::default().text("Name", &limit.name).number("Soft", limit.soft).number("Hard", limit.hard).done()
    };
    Object::default()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .list("extraHosts", meta.extra_hosts.iter().map(host))
        .text("hostname", &meta.hostname)
        .list("ulimit", meta.ulimit.iter().map(limit))
        .text("cgroupParent", &meta.cgroup_parent)
        .flag("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .list("validExitCodes", meta.valid_exit_codes.iter().map(i32::to_string))
        .done()
}

fn mount(mount: &pb::Mount, dialect: Dialect) -> String {
    let cache = mount.cache_opt.as_ref().map(|option| {
        let in_namespace = option.id.split_once('/').is_some_and(|(_, rest)| rest == mount.dest);
        let is_usual = option.sharing == 0 && (option.id == mount.dest || in_namespace);
        if is_usual { Object::default().text("ID", &option.id).done() } else { Object::default().done() }
    });
    let held = |(id, uid, gid, mode, optional): (&str, u32, u32, u32, bool)| {
        let held = Object::default().text("ID", id).number("uid", uid.into()).number("gid", gid.into());
        held.number("mode", mode.into()).flag("optional", optional).done()
    };
    let secret = mount.secret_opt.as_ref().map(|own| held((&own.id, own.uid, own.gid, own.mode, own.optional)));
    let agent = mount.ssh_opt.as_ref().map(|own| held((&own.id, own.uid, own.gid, own.mode, own.optional)));
    let memory = mount.tmpfs_opt.as_ref().map(|own| Object::default().number("size", own.size).done());
    Object::default()
        .index("input", mount.input, dialect)
        .text("dest", &mount.dest)
        .index("output", mount.output, dialect)
        .flag("readonly", mount.readonly)
        .number("mountType", mount.mount_type.into())
        .option("TmpfsOpt", memory)
        .option("cacheOpt", cache)
        .option("secretOpt", secret)
        .option("SSHOpt", agent)
        .text("resultID", &mount.result_id)
        .number("contentCache", mount.content_cache.into())
        .done()
}

/// One action on files; `named`: what is copied comes from an input, and is called by its last name only.
pub(super) fn action(action: &pb::FileAction, named: Option<&str>, dialect: Dialect) -> String {
    use pb::file_action::Action;
    let owner = |owner: &Option<pb::ChownOpt>| owner.as_ref().map(|owner| self::owner(owner, dialect));
    match &action.action {
        Some(Action::Copy(own)) => Object::default()
            .text("src", named.unwrap_or(&own.src))
            .text("dest", &own.dest)
            .option("owner", owner(&own.owner))
            .number("mode", own.mode.into())
            .flag("followSymlink", own.follow_symlink)
            .flag("dirCopyContents", own.dir_copy_contents)
            .flag("attemptUnpackDockerCompatibility", own.attempt_unpack_docker_compatibility)
            .flag("createDestPath", own.create_dest_path)
            .flag("allowWildcard", own.allow_wildcard)
            .flag("allowEmptyWildcard", own.allow_empty_wildcard)
            .number("timestamp", own.timestamp)
            .texts("include_patterns", &own.include_patterns)
            .texts("exclude_patterns", &own.exclude_patterns)
            .flag("alwaysReplaceExistingDestPaths", own.always_replace_existing_dest_paths)
            .text("modeStr", &own.mode_str)
            .texts("required_paths", &own.required_paths),
        Some(Action::Mkfile(own)) => Object::default()
            .text("path", &own.path)
            .number("mode", own.mode.into())
            .option("data", Some(&own.data).filter(|data| !data.is_empty()).map(|data| quoted(&STANDARD.encode(data))))
            .option("owner", owner(&own.owner))
            .number("timestamp", own.timestamp),
        Some(Action::Mkdir(own)) => Object::default()
            .text("path", &own.path)
            .number("mode", own.mode.into())
            .flag("makeParents", own.make_parents)
            .option("owner", owner(&own.owner))
            .number("timestamp", own.timestamp),
        Some(Action::Rm(own)) => Object::default()
            .text("path", &own.path)
            .flag("allowNotFound", own.allow_not_found)
            .flag("allowWildcard", own.allow_wildcard),
        Some(Action::Symlink(own)) => Object::default()
            .text("oldpath", &own.oldpath)
            .text("newpath", &own.newpath)
            .option("owner", owner(&own.owner))
            .number("timestamp", own.timestamp),
        None => Object::default(),
    }
    .done()
}

fn owner(owner: &pb::ChownOpt, dialect: Dialect) -> String {
    let by_id = if dialect == Dialect::Old { "byID" } else { "byId" };
    let one = |user: &pb::UserOpt| {
        let user = match &user.user {
            Some(User::ByName(named)) => {
                let named = Object::default().text("name", &named.name).index("input", named.input, dialect);
                Object::default().raw("byName", named.done()).done()
            }
            Some(User::ById(id)) => Object::default().number(by_id, (*id).into()).done(),
            None if dialect == Dialect::Old => "null".to_owned(),
            None => Object::default().done(),
        };
        Object::default().raw("User", user).done()
    };
    Object::default().option("user", owner.user.as_ref().map(one)).option("group", owner.group.as_ref().map(one)).done()
}

/// What is laid on each other.
pub(super) fn merge(merge: &pb::MergeOp, dialect: Dialect) -> String {
    let input = |input: &pb::MergeInput| Object::default().index("input", input.input, dialect).done();
    Object::default().list("inputs", merge.inputs.iter().map(input)).done()
}

/// What is taken away, and of what.
pub(super) fn diff(diff: &pb::DiffOp, dialect: Dialect) -> String {
    let input = |index: i64| Object::default().index("input", index, dialect).done();
    Object::default()
        .option("lower", diff.lower.as_ref().map(|lower| input(lower.input)))
        .option("upper", diff.upper.as_ref().map(|upper| input(upper.input)))
        .done()
}
