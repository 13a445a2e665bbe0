//! Programs in containers of front ends (`ExecProcess`).
//!
//! Invariant: a program ends with the call that began it, with its container, and with the build.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, StartedMessage,
};
use build::cancel::Cancel;
use build::frontend::{Process, run_process};
use build::job::{Event, Job, Output};
use model::Result;
use model::digest::{Algorithm, Digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::answers::{Messages, answers};
use crate::error::Failed;
use crate::scope::{Open, Scope};

/// Programs of one call.
const PROCESSES: usize = 64;
/// Bytes between a program and its front end, and of one message.
const BUFFER: usize = 256 << 10;
const PIECE: usize = 32 << 10;
/// Pieces of a standard error that wait.
const QUEUE: usize = 16;
/// The exit code of a program that has none.
const UNKNOWN: u32 = 255;
/// That of one that is killed.
const KILLED: i32 = 137;

/// Where messages for the front end are put.
type Sender = mpsc::Sender<Result<ExecMessage, Status>>;

/// One call of `ExecProcess`.
pub(crate) struct Call {
    pub(crate) job: Arc<Job>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) open: Open,
}

impl Call {
    /// Runs what the front end asks for.
    pub(crate) fn begin(self, incoming: Streaming<ExecMessage>) -> Messages<ExecMessage> {
        let (sender, stream) = answers();
        tokio::spawn(async move {
            let Call { job, scope, open } = self;
            let mut processes =
                Processes { job, scope, sender: sender.clone(), inputs: HashMap::new(), running: JoinSet::new() };
            let ended = processes.hear(incoming).await;
            processes.end(ended.is_err() || sender.is_closed()).await;
            if let Err(status) = ended {
                // A front end that left hears of nothing.
                drop(sender.send(Err(status)).await);
            }
            drop(open);
        });
        stream
    }
}

/// Programs of one call.
struct Processes {
    job: Arc<Job>,
    scope: Arc<Scope>,
    sender: Sender,
    /// By the names that the front end gave them.
    inputs: HashMap<String, Begun>,
    running: JoinSet<()>,
}

/// What a program that was begun is told.
struct Begun {
    /// `None`: it reads nothing any more.
    input: Option<WriteHalf<DuplexStream>>,
    cancel: Cancel,
}

impl Begun {
    /// The program reads to the end of what it was told.
    async fn close(&mut self) {
        if let Some(mut input) = self.input.take() {
            // One that has ended reads nothing.
            drop(input.shutdown().await);
        }
    }
}

impl Processes {
    /// Takes messages until the front end sends no more and all programs have ended, or it leaves.
    async fn hear(&mut self, mut incoming: Streaming<ExecMessage>) -> Result<(), Status> {
        let mut is_open = true;
        while is_open || !self.running.is_empty() {
            tokio::select! {
                message = incoming.message(), if is_open => match message? {
                    Some(message) => self.take(message).await?,
                    None => {
                        is_open = false;
                        for begun in self.inputs.values_mut() {
                            begun.close().await;
                        }
                    }
                },
                Some(_) = self.running.join_next() => {}
                () = self.sender.closed() => return Ok(()),
            }
        }
        Ok(())
    }

    async fn take(&mut self, ExecMessage { process_id: id, input }: ExecMessage) -> Result<(), Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("ProcessID required"));
        }
        if let Some(Input::Init(init)) = input {
            return self.begin(id, init).await;
        }
        let missing = || Status::not_found(format!("IO for process {id:?} not found"));
        let begun = self.inputs.get_mut(&id).ok_or_else(missing)?;
        match input {
            Some(Input::File(file)) => {
                if let Some(input) = &mut begun.input
                    && input.write_all(&file.data).await.is_err()
                {
                    // The program reads no more.
                    begun.input = None;
                }
                if file.eof {
                    begun.close().await;
                }
                Ok(())
            }
            Some(Input::Signal(signal)) if matches!(signal.name.as_str(), "KILL" | "SIGKILL") => {
                begun.cancel.cancel();
                Ok(())
            }
            Some(Input::Signal(signal)) => Err(Status::unimplemented(format!(
                "signal {} of processes of front ends is not supported",
                signal.name
            ))),
            Some(Input::Resize(_)) => {
                Err(Status::unimplemented("terminals of processes of front ends are not supported"))
            }
            _ => Err(Status::invalid_argument("a message that is not a front end's")),
        }
    }

    async fn begin(&mut self, id: String, init: InitMessage) -> Result<(), Status> {
        if self.inputs.contains_key(&id) {
            return Err(Status::already_exists(format!("Process {id} already exists")));
        }
        if self.inputs.len() >= PROCESSES {
            return Err(Status::invalid_argument(format!("more than {PROCESSES} processes of one call")));
        }
        let wanted: HashSet<u32> = init.fds.iter().copied().collect();
        let (exec, files, cancel) = self.scope.containers.begin(init).map_err(|error| crate::error::status(&error))?;
        let (near, far) = tokio::io::duplex(BUFFER);
        let (read, write) = tokio::io::split(far);
        let mut begun = Begun { input: Some(write), cancel: cancel.clone() };
        if !wanted.contains(&0) {
            begun.close().await;
        }
        let (events, errors) = mpsc::channel(QUEUE);
        let output = Output { events, step: Digest::of(Algorithm::Sha256, id.as_bytes()) };
        let process = Process { exec, files, dialogue: Box::new(near), output, cancel };
        let told = Told { id: id.clone(), sender: self.sender.clone(), wanted };
        self.running.spawn(told.run(self.job.clone(), process, (read, errors)));
        self.inputs.insert(id, begun);
        Ok(())
    }

    /// Waits for all programs; those that nobody hears any more are killed.
    async fn end(&mut self, is_left: bool) {
        if is_left {
            self.inputs.values().for_each(|begun| begun.cancel.cancel());
        }
        while self.running.join_next().await.is_some() {}
    }
}

/// What the front end is told of one program.
struct Told {
    id: String,
    sender: Sender,
    /// Streams that it wants.
    wanted: HashSet<u32>,
}

impl Told {
    async fn run(
        self,
        job: Arc<Job>,
        process: Process,
        (read, errors): (ReadHalf<DuplexStream>, mpsc::Receiver<Event>),
    ) {
        self.tell(Input::Started(StartedMessage {})).await;
        let cancel = process.cancel.clone();
        let ended = async {
            let ended = run_process(&job, process).await;
            let ended = match ended {
                Err(_) if cancel.is_cancelled() => Ok(KILLED),
                ended => ended,
            };
            self.tell(Input::Exit(exit(ended))).await;
        };
        tokio::join!(ended, self.answers(read), self.errors(errors));
        self.tell(Input::Done(DoneMessage {})).await;
    }

    async fn answers(&self, mut read: ReadHalf<DuplexStream>) {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            match read.read_buf(&mut piece).await {
                Ok(1..) => self.write(1, piece).await,
                _ => return self.close(1).await,
            }
        }
    }

    async fn errors(&self, mut errors: mpsc::Receiver<Event>) {
        while let Some(event) = errors.recv().await {
            if let Event::Output { stream, bytes, .. } = event {
                self.write(stream.into(), bytes).await;
            }
        }
        self.close(2).await;
    }

    async fn write(&self, fd: u32, data: Vec<u8>) {
        if self.wanted.contains(&fd) {
            self.tell(Input::File(FdMessage { fd, eof: false, data })).await;
        }
    }

    async fn close(&self, fd: u32) {
        if self.wanted.contains(&fd) {
            self.tell(Input::File(FdMessage { fd, eof: true, data: Vec::new() })).await;
        }
    }

    async fn tell(&self, input: Input) {
        // A front end that left hears of nothing.
        drop(self.sender.send(Ok(ExecMessage { process_id: self.id.clone(), input: Some(input) })).await);
    }
}

fn exit(ended: Result<i32>) -> ExitMessage {
    let (code, failed) = match ended {
        Ok(0) => return ExitMessage { code: 0, error: None },
        Ok(code) => (u32::try_from(code).unwrap_or(UNKNOWN), Failed::new(format!("exit code: {code}")).exited(code)),
        Err(error) => (UNKNOWN, Failed::from(error)),
    };
    ExitMessage { code, error: Some(failed.to_proto()) }
}
