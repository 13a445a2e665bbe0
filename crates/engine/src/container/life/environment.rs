//! What a container's actor uses of the daemon. The daemon is one such environment; the tests of the actor are another,
//! without a kernel, a store or a network.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use events::{Draft, Events, Rows};
use model::Result;
use model::fault::Faults;
use run::{Failed, Progress};
use runtime::oci;
use store::WriteTx;

use super::actor::{Actor, Done};
use super::launch::Launched;
use super::sandbox::Sandbox;
use super::{connect, execs, launch, place, procedure, publish, remove, rename, runtime_spec, stuck, update};
use crate::Engine;
use crate::container::Containers;
use crate::container::definition::places::Places;
use crate::container::life::clients::Clients;
use crate::container::registry::arguments::{RemoveArgs, StopPlan};
use crate::container::registry::command::Command;
use crate::container::row::{self, ContainerRow};
use crate::held;

/// What an actor uses. Its futures are jobs and reads and writes of lower layers; none of them comes back to the actor.
pub trait Environment: Clone + Send + Sync + Sized + 'static {
    /// The registry of containers.
    fn containers(&self) -> &Containers;

    /// Where events go.
    fn events(&self) -> &Events;

    /// The points at which tests make a procedure fail.
    fn faults(&self) -> &Faults;

    /// How long a procedure that cannot be broken off may take before those who wait for it are told.
    fn patience(&self) -> Duration;

    /// An event of a network about an endpoint of the container, if it is one to be told of.
    fn network_draft(&self, row: &ContainerRow, action: &str, endpoint: &network::Endpoint) -> Option<Draft>;

    /// The directory of the container's newest run.
    fn run_dir(&self, row: &ContainerRow) -> PathBuf;

    /// Commits how the container lives, durably, with the events that ride along.
    fn commit(&self, row: ContainerRow, told: Rows) -> impl Future<Output = Result<()>> + Send;

    /// Starts the container and records the run; an error has taken everything back.
    fn launch(
        &self,
        row: ContainerRow,
        clients: Clients,
        progress: Arc<Progress>,
    ) -> impl Future<Output = Result<Launched, Failed>> + Send + 'static;

    /// Gives back the container's places in networks and its volumes; `None`: that is done already. Errors are logged.
    fn release(&self, row: &ContainerRow) -> Option<impl Future<Output = ()> + Send + 'static>;

    /// Kills what is left in the control group of the newest run and removes it. Errors are logged.
    fn clear_cgroup(&self, row: &ContainerRow) -> impl Future<Output = ()> + Send;

    /// What keeps the processes of a container alive that was killed, in words; empty if nothing can be said.
    fn why_alive(&self, row: &ContainerRow) -> impl Future<Output = String> + Send;

    /// Deletes the container with all that it alone refers to; the events ride in the commit that takes its row.
    fn delete(
        &self,
        row: ContainerRow,
        args: RemoveArgs,
        told: Rows,
    ) -> impl Future<Output = Result<()>> + Send + 'static;

    /// The process of a further command in the container.
    fn probe_process(&self, row: &ContainerRow, command: &api::ExecConfig) -> Result<oci::Process>;

    /// How the container is stopped when nobody says how.
    fn stop_plan(&self, row: &ContainerRow) -> StopPlan;

    /// Executes a command that is about more than the container's life.
    fn execute(actor: &mut Actor<Self>, command: Command) -> impl Future<Output = ()> + Send;

    /// Makes ready for the next launches, in the background.
    fn replenish(&self);

    /// Goes on after a job that such a command has begun.
    fn finish(actor: &mut Actor<Self>, done: Done) -> impl Future<Output = ()> + Send;
}

/// The environment of real containers.
pub type Daemon = Arc<Engine>;

impl Environment for Daemon {
    fn containers(&self) -> &Containers {
        &self.containers
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn faults(&self) -> &Faults {
        &self.host.faults
    }

    fn patience(&self) -> Duration {
        match self.host.faults.pass("procedure", "patience") {
            Ok(()) => procedure::PATIENCE,
            Err(_) => procedure::SHORT_PATIENCE,
        }
    }

    fn network_draft(&self, row: &ContainerRow, action: &str, endpoint: &network::Endpoint) -> Option<Draft> {
        if Places::of(row).has_no_network(&self.networks) && endpoint.addresses.is_empty() {
            return None;
        }
        let network = self.networks.row(&endpoint.network).ok()?;
        let (name, driver) = (network.name.clone(), network.driver.clone());
        let attributes = [("container", row.id.as_str().to_string()), ("name", name), ("type", driver)];
        Some(Draft::new("network", action, endpoint.network.as_str(), attributes))
    }

    fn run_dir(&self, row: &ContainerRow) -> PathBuf {
        place::run_dir(&self.settings().roots, row)
    }

    async fn commit(&self, row: ContainerRow, told: Rows) -> Result<()> {
        // A removal that failed may have taken the definition already.
        let write = if row.state.is_dead() { row::put } else { row::put_run };
        let write = move |tx: &mut WriteTx<'_, '_>| write(tx, &row).and_then(|()| told.put(tx));
        self.store.write(write).await
    }

    fn launch(
        &self,
        row: ContainerRow,
        clients: Clients,
        progress: Arc<Progress>,
    ) -> impl Future<Output = Result<Launched, Failed>> + Send + 'static {
        launch::launch(self.clone(), row, clients, progress)
    }

    fn release(&self, row: &ContainerRow) -> Option<impl Future<Output = ()> + Send + 'static> {
        let told = |outcome: Result<()>| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "releasing a network");
            }
        };
        let id = row.id.clone();
        let volumes = self.volumes.let_go(id.as_str(), row.volumes().map(|mount| mount.name.as_str()));
        if volumes.is_empty() && row.endpoints.iter().all(|e| e.host_link.is_none() && e.addresses.is_empty()) {
            // Entries in the networks' books; nothing asks the kernel, so no thread is needed.
            told(self.networks.release(&id));
            return None;
        }
        let engine = self.clone();
        Some(async move {
            let (networks, user) = (engine.networks.clone(), id.clone());
            let release = move |_: &_| sys::descriptors::persist(|| networks.release(&id));
            told(engine.containers.threads.ends.run(release).await);
            held::release(&engine.volumes, volumes, user.as_str()).await;
        })
    }

    async fn clear_cgroup(&self, row: &ContainerRow) {
        let (engine, row) = (self.clone(), row.clone());
        let clear = move || Ok(run::place::clear(&place::cgroup_of(&engine.host, &engine.settings(), &row)?)?);
        let clear = move |_: &_| sys::descriptors::persist(clear);
        if let Err(error) = self.containers.threads.ends.run(clear).await {
            tracing::warn!(%error, "clearing a cgroup");
        }
    }

    async fn why_alive(&self, row: &ContainerRow) -> String {
        let (engine, row) = (self.clone(), row.clone());
        let look = move |_: &_| Ok(stuck::describe(&place::cgroup_of(&engine.host, &engine.settings(), &row)?));
        self.containers.threads.ends.run(look).await.unwrap_or_default()
    }

    fn delete(
        &self,
        row: ContainerRow,
        args: RemoveArgs,
        told: Rows,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let engine = self.clone();
        async move { remove::delete(&engine, row, args, told).await }
    }

    fn probe_process(&self, row: &ContainerRow, command: &api::ExecConfig) -> Result<oci::Process> {
        runtime_spec::exec_process(self, row, command, None)
    }

    fn stop_plan(&self, row: &ContainerRow) -> StopPlan {
        StopPlan::at_shutdown(row, &self.settings().containers)
    }

    fn replenish(&self) {
        let engine = self.clone();
        tokio::spawn(async move { launch::replenish(&engine).await });
    }

    async fn execute(actor: &mut Actor<Self>, command: Command) {
        match command {
            Command::Rename { new, reply } => rename::rename_to(actor, new, reply).await,
            Command::Update { change, reply } => update::begin(actor, *change, reply).await,
            Command::Unlink { alias, reply } => remove::unlink(actor, alias, reply).await,
            Command::Exec(start) => execs::begin(actor, *start).await,
            Command::Connect { place, reply } => connect::connect(actor, *place, reply).await,
            Command::ChangePorts { change, reply } => publish::change_ports(actor, change, reply).await,
            Command::Disconnect { network, force, reply } => connect::disconnect(actor, network, force, reply).await,
            _ => {}
        }
    }

    async fn finish(actor: &mut Actor<Self>, done: Done) {
        match done {
            Done::Plugged(plugged) => connect::plugged(actor, *plugged).await,
            Done::Unplugged(unplugged) => connect::unplugged(actor, *unplugged).await,
            Done::Republished(republished) => publish::republished(actor, *republished).await,
            Done::Restored(restored) => Sandbox { actor }.restored(*restored).await,
            Done::Updated(updated) => update::updated(actor, *updated).await,
            // The actor's own.
            Done::Launched(_) | Done::TornDown | Done::Deleted(_) => {}
        }
    }
}
