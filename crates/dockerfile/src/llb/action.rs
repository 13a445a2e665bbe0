//! Changes of files: copies, new directories, new files.

use bollard_buildkit_proto::pb;
use pb::file_action::Action as Form;

use super::input::{Inputs, NOTHING, Output};

/// Who owns what is made; a number stands for itself, a name for what the file system it is made in says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    user: Option<String>,
    group: Option<String>,
}

impl Owner {
    /// From `user[:group]`; `None`: nothing is said.
    pub fn parse(text: &str) -> Option<Owner> {
        if text.is_empty() {
            return None;
        }
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        Some(Owner { user: Some(user.to_owned()), group: group.map(str::to_owned) })
    }

    /// By numbers.
    pub fn numbers(uid: u32, gid: u32) -> Owner {
        Owner { user: Some(uid.to_string()), group: Some(gid.to_string()) }
    }

    /// Names are looked up in this input.
    fn encoded(&self, input: i64) -> pb::ChownOpt {
        let side = |name: &Option<String>| {
            let name = name.as_deref()?;
            let number = if name == "root" { Some(0) } else { name.parse::<i32>().ok() };
            let user = match number {
                Some(number) => pb::user_opt::User::ById(number as u32),
                None if name.is_empty() => pb::user_opt::User::ById(0),
                None => pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.to_owned(), input }),
            };
            Some(pb::UserOpt { user: Some(user) })
        };
        pb::ChownOpt { user: side(&self.user), group: side(&self.group) }
    }
}

/// A copy.
#[derive(Clone, Debug)]
pub struct CopyAction {
    /// Where from; `None`: an empty file system.
    pub input: Option<Output>,
    /// Everything else, but the owner.
    pub form: pb::FileActionCopy,
    /// Whose the copies are.
    pub owner: Option<Owner>,
}

/// A new directory.
#[derive(Clone, Debug)]
pub struct MakeDirectory {
    /// Everything but the owner.
    pub form: pb::FileActionMkDir,
    /// Whose it is.
    pub owner: Option<Owner>,
}

/// A change.
#[derive(Clone, Debug)]
pub enum Action {
    /// Files from somewhere else.
    Copy(Box<CopyAction>),
    /// A directory.
    Directory(MakeDirectory),
    /// A file.
    File(pb::FileActionMkFile),
}

impl Action {
    /// What it takes beside the file system that it changes.
    pub(super) fn input(&self) -> Option<Output> {
        match self {
            Action::Copy(copy) => copy.input,
            _ => None,
        }
    }
}

/// The operation: each action changes what the one before it left.
pub(super) fn encoded(first: Option<Output>, actions: &[Action], inputs: &mut Inputs<'_>) -> pb::FileOp {
    let place = inputs.index(first);
    let secondary: Vec<i64> = actions.iter().map(|action| inputs.index(action.input())).collect();
    let count = inputs.list.len();
    let mut list = Vec::new();
    for (at, (action, secondary_input)) in actions.iter().zip(secondary).enumerate() {
        let owner = |owner: &Option<Owner>| owner.as_ref().map(|owner| owner.encoded(place));
        let form = match action {
            Action::Copy(copy) => Form::Copy(pb::FileActionCopy { owner: owner(&copy.owner), ..copy.form.clone() }),
            Action::Directory(made) => {
                Form::Mkdir(pb::FileActionMkDir { owner: owner(&made.owner), ..made.form.clone() })
            }
            Action::File(file) => Form::Mkfile(file.clone()),
        };
        let before = i64::try_from(count + at).unwrap_or(NOTHING) - 1;
        list.push(pb::FileAction {
            input: if at == 0 { place } else { before },
            secondary_input,
            output: if at + 1 == actions.len() { 0 } else { NOTHING },
            action: Some(form),
        });
    }
    pb::FileOp { actions: list }
}
