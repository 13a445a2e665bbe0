//! The writer: rounds of closures, one durable commit a round.
//!
//! A round takes every job that waits (at most [`ROUND`]), runs each over the same transaction, commits once and then
//! answers all. While the disk syncs, the next round gathers. A round in which nothing changed is not committed. Rounds
//! run on the writer's thread, one after the other; a thread that may block and finds nobody before it runs a round of its
//! own ([`Writer::run`]): waking two threads takes a third as long as the commit. When merging or committing fails, the
//! transaction is dropped whole, every job of the round is answered with the error, and the database is opened afresh (a
//! failed write leaves it unusable), so that a full disk is a passing trouble.

use std::sync::Arc;
use std::thread::JoinHandle;

use model::lock::Mutex;
use model::{Context, Error, Kind, Result};
use tokio::sync::{mpsc, oneshot};

use crate::db::Db;
use crate::mark::Mark;
use crate::tx::{self, WriteTx};

/// Closures that may wait for the writer before senders wait themselves.
const QUEUE: usize = 1024;
/// Closures that share one commit at most: bounds the memory of a round.
const ROUND: usize = 256;
/// Stack of the writer thread, which runs callers' closures and the B-tree, neither deep.
const STACK: usize = 256 << 10;

/// What became of the round, told to each job: durable, or the error's kind and text.
pub(crate) type Outcome = std::result::Result<(), (Kind, String)>;
/// Answers the caller once the round's outcome is known.
type Answer = Box<dyn FnOnce(&Outcome) + Send>;
/// Runs a closure over the round's rows, or only packs its answer when there is no transaction to run over.
pub(crate) type Job = Box<dyn FnOnce(Option<&mut tx::Rows<'_>>) -> Ran + Send>;

/// What one job did to the round.
pub(crate) struct Ran {
    changed: Result<bool>,
    answer: Answer,
}

/// A job in line. It counts until its turn has come.
struct Queued {
    job: Job,
    _place: Arc<()>,
}

/// The database, and who writes to it now.
struct Turn {
    db: Arc<Db>,
    lock: Mutex<()>,
}

/// The thread and its queue. Dropping it lets queued jobs finish, then joins.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Queued>>,
    thread: Option<JoinHandle<()>>,
    turn: Arc<Turn>,
    /// Every queued job holds a clone.
    line: Arc<()>,
}

impl Writer {
    pub(crate) fn start(db: Arc<Db>) -> Result<Writer> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let turn = Arc::new(Turn { db, lock: Mutex::new(()) });
        let own = turn.clone();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .stack_size(STACK)
            .spawn(move || serve(&own, receiver))
            .context("starting the store's writer")?;
        Ok(Writer { queue: Some(sender), thread: Some(thread), turn, line: Arc::default() })
    }

    /// Queues a job. Jobs run in the order in which they were queued.
    pub(crate) async fn queue(&self, job: Job) -> Result<()> {
        self.sender().send(self.placed(job)).await.map_err(|_| ended())
    }

    fn queue_blocking(&self, job: Job) -> Result<()> {
        self.sender().blocking_send(self.placed(job)).map_err(|_| ended())
    }

    /// Runs a job on this thread when nobody is before it, and queues it otherwise.
    pub(crate) fn run(&self, job: Job) -> Result<()> {
        let Some(turn) = self.turn.lock.try_lock() else { return self.queue_blocking(job) };
        if Arc::strong_count(&self.line) > 1 {
            drop(turn);
            return self.queue_blocking(job);
        }
        commit_round(&self.turn.db, vec![job]);
        Ok(())
    }

    /// Has the writer open the database again if that is due. Never waits; a queue that is full has it done by others.
    pub(crate) fn wake(&self) {
        let (job, _nobody) = job(|_| Ok(()));
        drop(self.sender().try_send(self.placed(job)));
    }

    /// Jobs in line.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        Arc::strong_count(&self.line) - 1
    }

    fn placed(&self, job: Job) -> Queued {
        Queued { job, _place: self.line.clone() }
    }

    fn sender(&self) -> &mpsc::Sender<Queued> {
        self.queue.as_ref().expect("the queue lives until drop")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended by a panic");
        }
    }
}

/// The error of a store that is closing or whose writer died.
pub(crate) fn ended() -> Error {
    Error::unavailable("the store is closed")
}

/// Packs a closure with the channel on which its result travels back.
pub(crate) fn job<T: Send + 'static>(
    f: impl FnOnce(&mut WriteTx<'_, '_>) -> Result<T> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T>>) {
    let (sender, receiver) = oneshot::channel();
    let job: Job = Box::new(move |rows| {
        let (changed, result) = match rows.map(WriteTx::new) {
            None => (Ok(false), None),
            Some(mut tx) => match f(&mut tx) {
                Ok(value) => (tx.merge(), Some(Ok(value))),
                Err(error) => (Ok(false), Some(Err(error))),
            },
        };
        let answer: Answer = Box::new(move |outcome| {
            let result = match (result, outcome) {
                (Some(Err(error)), _) => Err(error),
                (Some(Ok(value)), Ok(())) => Ok(value),
                (_, Err((kind, text))) => Err(Error::new(*kind, text.clone())),
                (None, Ok(())) => Err(ended()),
            };
            // The caller may have stopped waiting; the write stands.
            drop(sender.send(result));
        });
        Ran { changed, answer }
    });
    (job, receiver)
}

fn serve(turn: &Turn, mut queue: mpsc::Receiver<Queued>) {
    while let Some(first) = queue.blocking_recv() {
        let _turn = turn.lock.lock();
        let mut jobs = vec![first.job];
        while jobs.len() < ROUND
            && let Ok(next) = queue.try_recv()
        {
            jobs.push(next.job);
        }
        commit_round(&turn.db, jobs);
    }
}

/// A round and its answers.
fn commit_round(db: &Db, jobs: Vec<Job>) {
    let mut answers = Vec::with_capacity(jobs.len());
    let outcome = round(db, jobs, &mut answers).map_err(|e| (e.kind(), e.message().to_owned()));
    if let Err((_, text)) = &outcome {
        tracing::error!(error = text, "the store did not commit");
        db.reopen();
    }
    for answer in answers {
        answer(&outcome);
    }
}

fn round(db: &Db, jobs: Vec<Job>, answers: &mut Vec<Answer>) -> Result<()> {
    let tx = match db.get_or_open().and_then(|db| db.begin_write().map_err(tx::failed)) {
        Ok(tx) => tx,
        Err(error) => {
            answers.extend(jobs.into_iter().map(|job| job(None).answer));
            return Err(error);
        }
    };
    let changed = stage(db, &tx, jobs, answers);
    match changed {
        Ok(Changed::Rows(mark)) => {
            tx.commit().map_err(tx::failed)?;
            mark.into_iter().for_each(|mark| db.note(mark));
            Ok(())
        }
        Ok(Changed::Nothing) => tx.abort().map_err(tx::failed),
        // Dropping the transaction rolls the whole round back.
        Err(error) => Err(error),
    }
}

/// What a round's jobs did.
enum Changed {
    /// Nothing is to be committed.
    Nothing,
    /// Rows; and what the store's mark is after the commit.
    Rows(Option<Mark>),
}

/// Runs the jobs in order; tells whether any changed a row.
fn stage(db: &Db, tx: &redb::WriteTransaction, jobs: Vec<Job>, answers: &mut Vec<Answer>) -> Result<Changed> {
    let mut rows = tx::open_rows(tx);
    let mut changed = false;
    let mut failed = None;
    for job in jobs {
        let ran = job(rows.as_mut().ok());
        answers.push(ran.answer);
        match ran.changed {
            Ok(now) => changed |= now,
            Err(error) => failed = Some(error),
        }
    }
    match (failed, rows) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(_)) if !changed => Ok(Changed::Nothing),
        (None, Ok(mut rows)) => db.count_commit(&mut rows).map(Changed::Rows),
    }
}
