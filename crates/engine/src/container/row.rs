//! The persisted form of a container: what it is, and how it lives.
//!
//! Two rows per container, both keyed by the full id. Its definition in table `containers` is what create decided, with
//! the wire `Config` and `HostConfig` that inspect echoes; it is written at create and when somebody changes it (rename,
//! connect, update). Its run record in table `runs` is small and is written by every change of its state. What can be
//! derived (status text, flags) is not stored. See `docs/design/0024-definition-and-run-record.md`.

use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use model::health::Health;
use model::id::ContainerId;
use model::lifecycle::State;
use model::time::Timestamp;
use model::{Error, Result};
use run::Place;
use serde::{Deserialize, Serialize};
use store::{Damaged, ReadTx, Row, Store, Table, WriteTx};

use super::definition::Definition;
use super::unloaded::Unloaded;

/// What containers are, by full id.
pub const CONTAINERS: Table<Definition> = Table::new("containers");
/// How they live, by full id.
pub const RUNS: Table<RunRecord> = Table::new("runs");
/// Table `containers` once more, for the run that its rows had in them before version 2.
const EARLIER: Table<Earlier> = Table::new("containers");

/// The exit code of a run whose record is lost.
const LOST: i32 = 255;

/// How a container lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its state at rest.
    pub state: State,
    /// The figures of its runs.
    pub run: RunRow,
    /// Its connections while it runs.
    #[serde(default)]
    pub endpoints: Vec<network::Endpoint>,
    /// The link of its sandbox that is being made or taken away: a daemon that finds it so brings the sandbox in line with
    /// the endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled_link: Option<String>,
}

impl Row for RunRecord {
    /// 2: consecutive published ports are one entry; rows of version 1 have one for each.
    const VERSION: u32 = 2;
}

/// The part of a container's row of version 1 that is a [`RunRecord`] today; later rows have none of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Earlier {
    state: Option<State>,
    run: Option<RunRow>,
    #[serde(default)]
    endpoints: Vec<network::Endpoint>,
}

impl Earlier {
    fn record(self) -> Option<RunRecord> {
        Some(RunRecord { state: self.state?, run: self.run?, endpoints: self.endpoints, unsettled_link: None })
    }
}

impl Row for Earlier {
    const VERSION: u32 = Definition::VERSION;
}

/// A container: its definition, shared by all who read it, and its life.
#[derive(Clone, Debug)]
pub struct ContainerRow {
    /// What it is; replaced as a whole when it changes.
    pub definition: Arc<Definition>,
    /// How it lives.
    pub state: State,
    /// The figures of its runs.
    pub run: RunRow,
    /// Its connections while it runs.
    pub endpoints: Vec<network::Endpoint>,
    /// See [`RunRecord::unsettled_link`].
    pub unsettled_link: Option<String>,
}

impl Deref for ContainerRow {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        &self.definition
    }
}

/// The figures of a container's runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunRow {
    /// Start of the newest run; zero when it never ran.
    pub started_at: Timestamp,
    /// End of the newest finished run; zero when none finished.
    pub finished_at: Timestamp,
    /// The newest run's exit code, or 126/127/128 of a failed start.
    pub exit_code: i32,
    /// Why the newest start failed, in the client's words; or what went wrong at the newest run's end.
    pub error: String,
    /// The newest start failed.
    #[serde(default)]
    pub start_failed: bool,
    /// Whether the kernel killed it for memory.
    pub oom_killed: bool,
    /// Restarts by policy since the last manual start.
    pub restart_count: u32,
    /// It ran at least once: the daemon's start considers its restart policy.
    pub was_started: bool,
    /// Files were copied into it before it ever ran: its writable layer holds something.
    #[serde(default)]
    pub was_written: bool,
    /// The user stopped it: `unless-stopped` does not start it again.
    pub manually_stopped: bool,
    /// Where the newest run has its traces; rows of older daemons do not tell.
    #[serde(default)]
    pub place: Option<Place>,
    /// It is frozen only while it is being committed: a daemon that finds it so lets it go on.
    #[serde(default)]
    pub frozen_in_passing: bool,
    /// The health of the newest run; `None`: nothing is checked.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared")]
    pub health: Option<Arc<Health>>,
    /// Restarts in a row because it was unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unhealthy_restarts: u32,
    /// It is unhealthy: its run ends and is followed by another, whichever daemon sees the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart_is_due: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The health is shared by all who read the row; stored it is a part of it.
mod shared {
    use super::{Arc, Deserialize, Health, Serialize};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(health: &Option<Arc<Health>>, serializer: S) -> Result<S::Ok, S::Error> {
        health.as_deref().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Health>>, D::Error> {
        Ok(Option::<Health>::deserialize(deserializer)?.map(Arc::new))
    }
}

/// All rows of a store, those of version 1 included, and apart from them what does not fit together.
#[derive(Debug, Default)]
pub struct Containers {
    /// By id. One whose record is missing has a record of a lost run.
    pub rows: BTreeMap<String, ContainerRow>,
    /// Those of them whose record is missing.
    pub unrecorded: HashSet<String>,
    /// Records without a definition, by id.
    pub undefined: BTreeMap<String, RunRecord>,
}

impl Containers {
    /// Puts together what was read of the tables; `earlier` tells of rows of version 1.
    pub fn new(
        definitions: impl IntoIterator<Item = (String, Definition)>,
        records: impl IntoIterator<Item = (String, RunRecord)>,
        mut earlier: impl FnMut(&str) -> Option<RunRecord>,
    ) -> Containers {
        let mut all = Containers { undefined: records.into_iter().collect(), ..Containers::default() };
        for (id, definition) in definitions {
            let record = all.undefined.remove(&id).or_else(|| earlier(&id)).unwrap_or_else(|| {
                all.unrecorded.insert(id.clone());
                RunRecord::lost()
            });
            all.rows.insert(id, ContainerRow::new(definition, record));
        }
        all
    }

    /// Takes those out of which a row cannot be read: the definition, or the record of its run (`runs`, by id).
    fn take_unloaded(&mut self, definitions: Vec<Damaged>, runs: &HashSet<String>) -> Vec<Unloaded> {
        let mut found = Vec::new();
        for Damaged { key, bytes: definition, .. } in definitions {
            let endpoints = self.undefined.remove(&key).map(|record| record.endpoints).unwrap_or_default();
            found.extend(ContainerId::parse(&key).map(|id| Unloaded { id, name: None, endpoints, definition }));
        }
        let without_run: Vec<String> = self.unrecorded.intersection(runs).cloned().collect();
        for id in without_run {
            self.unrecorded.remove(&id);
            let Some(row) = self.rows.remove(&id) else { continue };
            let definition = serde_json::to_vec(&*row.definition).unwrap_or_default();
            let (id, name) = (row.id.clone(), Some(row.name.clone()));
            found.push(Unloaded { id, name, endpoints: Vec::new(), definition });
        }
        found
    }
}

/// The record of a container's run that its row of version 1 has.
pub fn earlier(tx: &ReadTx, id: &str) -> Option<RunRecord> {
    tx.get(&EARLIER, id).ok().flatten().and_then(Earlier::record)
}

/// Gives every container of an earlier version, and every one whose record is lost, its row in `runs`; answers how many
/// there were. One transaction; nothing is written when nothing is to be done.
pub async fn upgrade(store: &Store) -> Result<usize> {
    let is_done = |tx: &ReadTx| {
        let recorded: HashSet<String> = tx.keys(&RUNS)?.into_iter().collect();
        Ok(tx.keys(&CONTAINERS)?.iter().all(|id| recorded.contains(id)))
    };
    if store.read(is_done)? {
        return Ok(0);
    }
    let rows = |tx: &mut WriteTx<'_, '_>| {
        let mut upgraded = 0;
        let recorded: HashSet<String> = tx.keys(&RUNS)?.into_iter().collect();
        for id in tx.keys(&CONTAINERS)?.into_iter().filter(|id| !recorded.contains(id)) {
            // One that cannot be read is not loaded anyway.
            if let Ok(Some(definition)) = tx.get(&CONTAINERS, &id) {
                let record = tx.get(&EARLIER, &id)?.and_then(Earlier::record);
                tx.put(&RUNS, &id, &record.unwrap_or_else(RunRecord::lost))?;
                tx.put(&CONTAINERS, &id, &definition)?;
                upgraded += 1;
            }
        }
        Ok(upgraded)
    };
    store.write(rows).await
}

/// All containers of an upgraded store, by id, and those that cannot be read.
///
/// Errors: `DataLoss` for a row that is missing, or of a newer version; it is named.
pub fn load(store: &Store) -> Result<(Vec<ContainerRow>, Vec<Unloaded>)> {
    let (definitions, records) = store.read(|tx| Ok((tx.survey(&CONTAINERS)?, tx.survey(&RUNS)?)))?;
    if let Some(newer) = definitions.damaged.iter().chain(&records.damaged).find(|row| row.newer) {
        return Err(Error::data_loss(newer.why.clone()));
    }
    let runs: HashSet<String> = records.damaged.into_iter().map(|row| row.key).collect();
    let mut all = Containers::new(definitions.rows, records.rows, |_| None);
    let unloaded = all.take_unloaded(definitions.damaged, &runs);
    match all.unrecorded.iter().next() {
        None => Ok((all.rows.into_values().collect(), unloaded)),
        Some(id) => Err(Error::data_loss(format!("container {id} has no row in table {}", RUNS.name()))),
    }
}

/// Writes a container, and that it uses its image.
pub fn put(tx: &mut WriteTx<'_, '_>, row: &ContainerRow) -> Result<()> {
    row.images().into_iter().try_for_each(|pin| image::put_user(tx, &pin.id, row.id.as_str(), &pin.user()))?;
    tx.put(&CONTAINERS, row.id.as_str(), &*row.definition)?;
    put_run(tx, row)
}

/// Writes how a container lives.
pub fn put_run(tx: &mut WriteTx<'_, '_>, row: &ContainerRow) -> Result<()> {
    tx.put(&RUNS, row.id.as_str(), &row.record())
}

/// Deletes a container, and that it uses its image.
pub fn delete(tx: &mut WriteTx<'_, '_>, definition: &Definition) -> Result<()> {
    let id = definition.id.as_str();
    definition.images().into_iter().try_for_each(|pin| image::delete_user(tx, &pin.id, id))?;
    tx.delete(&RUNS, id)?;
    tx.delete(&CONTAINERS, id).map(drop)
}

impl RunRecord {
    /// Of a container that was created just now.
    pub fn created() -> RunRecord {
        RunRecord { state: State::Created, run: RunRow::default(), endpoints: Vec::new(), unsettled_link: None }
    }

    /// Of one that may have run, in place of a record that is gone.
    pub fn lost() -> RunRecord {
        let run = RunRow {
            exit_code: LOST,
            error: "the record of the container's runs was lost".into(),
            was_started: true,
            ..RunRow::default()
        };
        RunRecord { state: State::Exited, run, endpoints: Vec::new(), unsettled_link: None }
    }
}

impl ContainerRow {
    /// A container of this definition, which lives as the record says.
    pub fn new(definition: Definition, record: RunRecord) -> ContainerRow {
        // At create or when it is loaded, not at some later start.
        definition.parsed();
        let RunRecord { state, run, endpoints, unsettled_link } = record;
        ContainerRow { definition: Arc::new(definition), state, run, endpoints, unsettled_link }
    }

    /// How it lives, as it is stored.
    pub fn record(&self) -> RunRecord {
        let (endpoints, unsettled_link) = (self.endpoints.clone(), self.unsettled_link.clone());
        RunRecord { state: self.state.at_rest(), run: self.run.clone(), endpoints, unsettled_link }
    }
}

/// A container that ran from second 1 on and exited with 5 if it does not run.
#[cfg(test)]
pub fn sample(number: u8, state: State) -> ContainerRow {
    let definition = Definition {
        id: model::id::ContainerId::from_bytes([number; 32]),
        name: format!("web{number}"),
        created: Timestamp::from_unix_seconds(i64::from(number)),
        config: api::ContainerConfig {
            labels: Some([("k".to_string(), "v".to_string())].into()),
            ..Default::default()
        },
        host_config: Default::default(),
        own_labels: Default::default(),
        networks: Default::default(),
        networks_named: true,
        image: super::definition::ImagePin {
            id: model::digest::Digest::from_sha256(&[7; 32]),
            reference: "busybox".into(),
            layers: Vec::new(),
            platform: "linux/amd64".into(),
            manifest: None,
        },
        mounts: Vec::new(),
        storage: "overlay".into(),
        parsed: Default::default(),
    };
    let run = RunRow { started_at: Timestamp::from_unix_seconds(1), exit_code: 5, ..RunRow::default() };
    ContainerRow::new(definition, RunRecord { state, run, endpoints: Vec::new(), unsettled_link: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as version 1 wrote them: of a container that ended, of one that was only made, of one that runs.
    const ROWS: [&str; 3] = [
        include_str!("../../tests/golden/container-v1-ended.json"),
        include_str!("../../tests/golden/container-v1-made.json"),
        include_str!("../../tests/golden/container-v1-runs.json"),
    ];

    fn value(text: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(text).unwrap()["row"].take()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let rows = |tx: &mut WriteTx<'_, '_>| {
            let put = |text: &&str| tx.put_raw(&CONTAINERS, value(text)["id"].as_str().unwrap(), text.as_bytes());
            ROWS.iter().try_for_each(put)
        };
        store.write_blocking(rows).unwrap();
        (dir, store)
    }

    #[test]
    fn rows_of_version_1_are_taken_apart_once_and_nothing_is_lost() {
        let (_dir, store) = store();
        // A check reads them as they are.
        let before = |tx: &ReadTx| Ok(Containers::new(tx.scan(&CONTAINERS)?, tx.scan(&RUNS)?, |id| earlier(tx, id)));
        let before = store.read(before).unwrap();
        assert!(before.unrecorded.is_empty() && before.undefined.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(upgrade(&store)).unwrap(), 3);
        assert_eq!(runtime.block_on(upgrade(&store)).unwrap(), 0);
        let (rows, unloaded) = load(&store).unwrap();
        assert!(unloaded.is_empty());
        for text in ROWS {
            let mut given = value(text);
            let row = rows.iter().find(|row| given["id"] == row.id.as_str()).unwrap();
            let mut kept = serde_json::to_value(&*row.definition).unwrap();
            assert!(kept.get("state").is_none());
            let record = serde_json::to_value(row.record()).unwrap();
            kept.as_object_mut().unwrap().extend(record.as_object().unwrap().clone());
            // A row keeps what it does not have of today's fields as their defaults.
            given.as_object_mut().unwrap().retain(|key, _| kept.get(key).is_some());
            assert_eq!(kept, given);
            assert_eq!(format!("{row:?}"), format!("{:?}", before.rows[row.id.as_str()]));
        }
    }

    /// Rows with bytes changed, cut or doubled are loaded or not, each for itself, and never more is read than there is.
    #[test]
    fn damaged_rows_are_loaded_or_named() {
        let (_dir, store) = store();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(upgrade(&store)).unwrap();
        let mut random = 7_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let (mut loaded, mut not) = (0, 0);
        for round in 0..300 {
            let text = ROWS[round % ROWS.len()];
            let id = value(text)["id"].as_str().unwrap().to_owned();
            let mut bytes = text.trim_end().as_bytes().to_vec();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = next(256) as u8,
                    2 => bytes[at] ^= 1 << next(8),
                    _ => bytes.extend_from_within(at..),
                }
            }
            store.write_blocking(move |tx| tx.put_raw(&CONTAINERS, &id, &bytes)).unwrap();
            let Ok((rows, unloaded)) = load(&store) else { continue };
            assert_eq!(rows.len() + unloaded.len(), ROWS.len());
            (loaded, not) = (loaded + rows.len(), not + unloaded.len());
            let whole = |tx: &mut WriteTx<'_, '_>| {
                ROWS.iter().try_for_each(|text| {
                    tx.put_raw(&CONTAINERS, value(text)["id"].as_str().unwrap(), text.trim_end().as_bytes())
                })
            };
            store.write_blocking(whole).unwrap();
        }
        assert!(loaded > 300 && not > 50, "{loaded} {not}");
    }

    #[test]
    fn a_lost_record_is_one_of_a_run_that_ended() {
        let (_dir, store) = store();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(upgrade(&store)).unwrap();
        let id = value(ROWS[2])["id"].as_str().unwrap().to_owned();
        let lost = id.clone();
        store.write_blocking(move |tx| tx.delete(&RUNS, &lost)).unwrap();
        let refused = load(&store).unwrap_err();
        assert_eq!(refused.kind(), model::Kind::DataLoss);
        assert!(refused.message().contains(&id), "{}", refused.message());
        assert_eq!(runtime.block_on(upgrade(&store)).unwrap(), 1);
        let row = load(&store).unwrap().0.into_iter().find(|row| row.id.as_str() == id).unwrap();
        assert_eq!((row.state, row.run.exit_code, row.run.was_started), (State::Exited, LOST, true));
    }

    #[test]
    fn a_container_goes_with_its_record() {
        let (_dir, store) = store();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(upgrade(&store)).unwrap();
        for row in load(&store).unwrap().0 {
            store.write_blocking(move |tx| delete(tx, &row)).unwrap();
        }
        assert_eq!(store.read(|tx| Ok((tx.keys(&CONTAINERS)?, tx.keys(&RUNS)?))).unwrap(), (vec![], vec![]));
    }
}
