//! `POST /containers/{id}/kill`, `pause` and `unpause`.

use model::lifecycle::{Effect, Input, State};
use model::{Result, signal};
use monitor::proto::Request;

use super::actor::{Actor, Command, Reply, answer};
use super::stop;
use crate::container::Containers;

/// Sends a signal, by name or number; empty means SIGKILL.
pub async fn kill(containers: &Containers, name: &str, word: &str) -> Result<()> {
    let signal = signal::parse(if word.is_empty() { "SIGKILL" } else { word })?;
    containers.find(name)?.ask(|reply| Command::Kill { signal, reply }).await
}

/// Freezes all processes of the container.
pub async fn pause(containers: &Containers, name: &str) -> Result<()> {
    containers.find(name)?.ask(|reply| Command::Pause { passing: false, reply }).await
}

/// Lets them go on.
pub async fn unpause(containers: &Containers, name: &str) -> Result<()> {
    containers.find(name)?.ask(|reply| Command::Unpause { reply }).await
}

impl Actor {
    /// SIGKILL is answered when the container has ended, any other signal when it was sent.
    pub(super) async fn kill(&mut self, signal: i32, reply: Reply) {
        let ends = signal == signal::KILL || stop::is_stop_signal(&self.row, signal);
        let before = self.row.clone();
        let Some((effects, reply)) = self.step(Input::Kill { signal, ends }, reply) else {
            return;
        };
        let cancels = effects.contains(&Effect::CancelRestart);
        if (ends || cancels)
            && let Err(error) = self.note_manual_stop(before).await
        {
            return answer(reply, Err(error));
        }
        if cancels {
            self.timer = None;
            self.publish();
            return answer(reply, Ok(()));
        }
        self.signal(signal).await;
        if effects.contains(&Effect::Thaw) {
            self.thaw().await;
            self.publish();
        }
        if signal == signal::KILL {
            self.waiting.ends.push(reply);
            self.expect_death();
        } else {
            answer(reply, Ok(()));
        }
    }

    /// Pause is recorded, then done, and undone when the monitor cannot do it. Unpause is done, then recorded: should the
    /// daemon die in between, the next one still knows why the container is frozen.
    pub(super) async fn freeze(&mut self, input: Input, reply: Reply) {
        let before = self.row.clone();
        let Some((effects, reply)) = self.step(input, reply) else {
            return;
        };
        let frozen = effects.contains(&Effect::Freeze);
        if frozen {
            self.row.run.frozen_in_passing = false;
            if let Err(error) = self.persist().await {
                self.row = before;
                return answer(reply, Err(error));
            }
        }
        if let Err(error) = self.freeze_now(frozen).await {
            self.row = before;
            drop(self.record().await);
            return answer(reply, Err(error));
        }
        if !frozen {
            self.row.run.frozen_in_passing = false;
            drop(self.record().await);
        }
        self.publish();
        self.event(if frozen { "pause" } else { "unpause" }, []);
        answer(reply, Ok(()));
    }

    /// Freezes for the time of an operation. The row tells why before it is done: should the daemon die over the
    /// operation, the next one lets the container go on.
    pub(super) async fn freeze_in_passing(&mut self, reply: Reply) {
        let before = self.row.clone();
        let Some((_, reply)) = self.step(Input::Pause, reply) else {
            return;
        };
        self.row.run.frozen_in_passing = true;
        if let Err(error) = self.persist().await {
            self.row = before;
            return answer(reply, Err(error));
        }
        self.publish();
        self.event("pause", []);
        self.request(&Request::Freeze { frozen: true }, reply).await;
    }

    /// What a daemon that died over an operation left frozen goes on.
    pub(super) async fn thaw_left_behind(&mut self) {
        if !std::mem::take(&mut self.row.run.frozen_in_passing) {
            return;
        }
        if let State::Paused { pid } = self.row.state {
            self.row.state = State::Running { pid };
            self.thaw().await;
        }
        drop(self.record().await);
    }

    /// Freezing is the cgroup's work and does not need the monitor, unless another program owns the cgroup.
    async fn freeze_now(&mut self, frozen: bool) -> Result<()> {
        let Some(link) = self.link.as_mut() else {
            return Err(model::Error::conflict(format!("container {} is not running", self.row.id.as_str())));
        };
        link.send(&Request::Freeze { frozen }, &[]).await.map(drop)
    }
}
