//! The build cache: results of steps, by their keys.
//!
//! Invariants:
//! - a record's layers are kept by a row in [`KEPT`], written and removed in the same commit; nothing else speaks for them;
//! - the layers are on the disk before the row is committed; a record is found from the moment the step has ended, and is
//!   durable a moment later (whoever ends a build waits for that);
//! - records are read once, at the start; looking one up never touches the disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use image::kept::{KEPT, KeptRow};
use image::row::Content;
use model::Result;
use model::digest::Digest;
use model::lock::{Mutex, MutexGuard};
use model::time::Timestamp;
use serde::{Deserialize, Serialize};
use snapshot::LayerKey;
use store::{AnyTable, ReadTx, Row, Store, Table, WriteTx};

/// Results of steps, by their content keys.
const RECORDS: Table<Record> = Table::new("build-records");
/// Definition keys that lead to a content key.
const ALIASES: Table<Alias> = Table::new("build-aliases");
/// Layers of the cache that were packed, by the digits of their names; of other forms than the usual one with the form behind them.
const PACKED: Table<Packed> = Table::new("build-packed");

/// What was fetched of addresses, by digests of what is asked.
const PAGES: Table<Page> = Table::new("build-pages");

/// A layer of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// What it is found by.
    pub key: LayerKey,
    /// Its archive, if the layer is an image's.
    pub blob: Option<Content>,
}

/// What a result is: its layers, bottom first.
pub type Chain = Arc<Vec<Layer>>;

/// Outputs of a record, as results of steps have them.
pub fn chains(outputs: &BTreeMap<i64, Vec<Layer>>) -> BTreeMap<i64, Chain> {
    outputs.iter().map(|(index, layers)| (*index, Arc::new(layers.clone()))).collect()
}

/// The keys of a chain.
pub fn keys(chain: &[Layer]) -> Vec<LayerKey> {
    chain.iter().map(|layer| layer.key.clone()).collect()
}

/// What a step was, as `docker builder du` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `regular`
    #[default]
    Regular,
    /// `source.local`
    Local,
    /// `exec.cachemount`
    CacheMount,
    /// `internal`: nothing of a step's.
    Internal,
    /// `source.git.checkout`
    GitCheckout,
}

impl Kind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Regular => "regular",
            Kind::Local => "source.local",
            Kind::CacheMount => "exec.cachemount",
            Kind::Internal => "internal",
            Kind::GitCheckout => "source.git.checkout",
        }
    }
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// By output.
    pub outputs: BTreeMap<i64, Vec<Layer>>,
    /// What it was.
    pub kind: Kind,
    /// For people.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
    /// How often it was used since it was made.
    pub uses: u64,
    /// Bytes of the layers that it has and its inputs have not.
    pub size: u64,
    /// Keys of its inputs.
    pub parents: Vec<Digest>,
}

impl Row for Record {
    const VERSION: u32 = 1;
}

/// Where a definition key leads.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Alias {
    record: Digest,
}

impl Row for Alias {
    const VERSION: u32 = 1;
}

/// A layer that was packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The digest of its archive, uncompressed.
    pub diff_id: Digest,
    /// Its archive, compressed.
    pub blob: Content,
}

impl Row for Packed {
    const VERSION: u32 = 1;
}

/// What was fetched of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The server's name for it; empty: it gave none.
    pub etag: String,
    /// Of its content.
    pub digest: Digest,
    /// The record that has it.
    pub record: Digest,
}

impl Row for Page {
    const VERSION: u32 = 1;
}

/// The tables of the build cache.
pub fn tables() -> [&'static dyn AnyTable; 4] {
    [&RECORDS, &ALIASES, &PACKED, &PAGES]
}

/// The row by which a record keeps its layers.
fn keeper(key: &Digest) -> String {
    format!("build/{}", key.hex())
}

/// The row by which a packed layer keeps its archive.
fn archive_keeper(layer: &str) -> String {
    format!("build-packed/{layer}")
}

/// What a packed layer is found by.
fn packed_name(layer: &LayerKey, form: &str) -> String {
    let digits = layer.pin().hex();
    if form.is_empty() { digits.to_owned() } else { format!("{digits}/{form}") }
}

/// Rows of kept content that this cache has to have, by their keys, each with the table and the key of what it is kept for.
pub fn keepers(tx: &ReadTx) -> Result<BTreeMap<String, (&'static str, String)>> {
    let (records, packed) = (tx.survey(&RECORDS)?, tx.survey(&PACKED)?);
    let keys = |rows: Vec<String>, damaged: Vec<store::Damaged>| {
        rows.into_iter().chain(damaged.into_iter().map(|row| row.key)).collect::<Vec<_>>()
    };
    let records = keys(records.rows.into_iter().map(|(key, _)| key).collect(), records.damaged);
    let packed = keys(packed.rows.into_iter().map(|(key, _)| key).collect(), packed.damaged);
    let of_record = |key: String| Some((keeper(&Digest::parse(&key).ok()?), (RECORDS.name(), key)));
    let of_packed = |key: String| (archive_keeper(&key), (PACKED.name(), key));
    Ok(records.into_iter().filter_map(of_record).chain(packed.into_iter().map(of_packed)).collect())
}

/// Whether a row of kept content is this cache's.
pub fn is_keeper(key: &str) -> bool {
    key.starts_with("build/") || key.starts_with("build-packed/")
}

/// Deletes a row of kept content of this cache, what it is kept for, and what leads there.
pub fn forget(tx: &mut WriteTx<'_, '_>, key: &str) -> Result<()> {
    if let Some(name) = key.strip_prefix("build-packed/") {
        tx.delete(&PACKED, name)?;
    }
    if let Some(own) = key.strip_prefix("build/").and_then(Digest::from_hex) {
        let aliases = tx.scan(&ALIASES)?.into_iter().filter(|(_, alias)| alias.record == own);
        aliases.into_iter().try_for_each(|(alias, _)| tx.delete(&ALIASES, &alias).map(drop))?;
        tx.delete(&RECORDS, own.as_str())?;
    }
    tx.delete(&KEPT, key).map(drop)
}

/// All records.
pub struct Records {
    store: Store,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    records: HashMap<Digest, Arc<Record>>,
    aliases: HashMap<Digest, Digest>,
    packed: HashMap<String, Packed>,
    pages: HashMap<String, Page>,
    /// How many builds that go on use a record.
    busy: HashMap<Digest, usize>,
}

impl Records {
    /// Reads them.
    pub fn open(store: Store) -> Result<Records> {
        let rows = store.read(|tx| {
            Ok((tx.readable(&RECORDS)?, tx.readable(&ALIASES)?, tx.readable(&PACKED)?, tx.readable(&PAGES)?))
        })?;
        let (records, aliases, packed, pages) = rows;
        let mut known = Known::default();
        // A key that is none is of no step.
        for (key, record) in records {
            Digest::parse(&key).into_iter().for_each(|key| _ = known.records.insert(key, Arc::new(record.clone())));
        }
        for (key, alias) in aliases {
            Digest::parse(&key).into_iter().for_each(|key| _ = known.aliases.insert(key, alias.record.clone()));
        }
        known.packed.extend(packed);
        known.pages.extend(pages);
        Ok(Records { store, known: Mutex::new(known) })
    }

    /// The record that a key leads to, and the record's own key.
    pub fn find(&self, key: &Digest) -> Option<(Digest, Arc<Record>)> {
        let known = self.known();
        let own = known.aliases.get(key).unwrap_or(key);
        Some((own.clone(), known.records.get(own)?.clone()))
    }

    /// Shows a record to later steps. [`Records::keep`] makes it durable.
    pub fn show(&self, key: &Digest, record: Arc<Record>, alias: Option<&Digest>) {
        let mut known = self.known();
        if let Some(alias) = alias.filter(|alias| *alias != key) {
            known.aliases.insert(alias.clone(), key.clone());
        }
        known.records.insert(key.clone(), record);
    }

    /// Makes a record durable, and the definition key that leads to it. The layers have to be on the disk.
    pub async fn keep(&self, key: Digest, record: Arc<Record>, alias: Option<Digest>) -> Result<()> {
        self.store
            .write(move |tx| {
                let layers: HashSet<LayerKey> =
                    record.outputs.values().flat_map(|chain| chain.iter().map(|layer| layer.key.clone())).collect();
                let blobs: HashSet<Digest> = record
                    .outputs
                    .values()
                    .flat_map(|chain| chain.iter().filter_map(|layer| Some(layer.blob.as_ref()?.digest.clone())))
                    .collect();
                let row = KeptRow { layers: layers.into_iter().collect(), blobs: blobs.into_iter().collect() };
                tx.put(&KEPT, &keeper(&key), &row)?;
                if let Some(alias) = alias.filter(|alias| *alias != key) {
                    tx.put(&ALIASES, alias.as_str(), &Alias { record: key.clone() })?;
                }
                tx.put(&RECORDS, key.as_str(), &record)
            })
            .await
    }

    /// Notes uses. They are written with the next change of the record.
    pub fn note_use(&self, key: &Digest, now: Timestamp) {
        let mut known = self.known();
        if let Some(record) = known.records.get_mut(key) {
            let record = Arc::make_mut(record);
            (record.used, record.uses) = (now, record.uses + 1);
        }
    }

    /// Keeps records of these keys from being pruned as long as the value lives.
    pub fn busy(self: &Arc<Records>, key: &Digest) -> Busy {
        *self.known().busy.entry(key.clone()).or_insert(0) += 1;
        Busy { records: self.clone(), key: key.clone() }
    }

    /// What is known of a layer that was packed in a form; the usual one has an empty name.
    pub fn packed(&self, layer: &LayerKey, form: &str) -> Option<Packed> {
        self.known().packed.get(&packed_name(layer, form)).cloned()
    }

    /// When layers were made that records end with, and by what; by what pins them.
    pub fn origins(&self) -> HashMap<Digest, (Timestamp, String)> {
        let known = self.known();
        let mut found: HashMap<Digest, (Timestamp, String)> = HashMap::new();
        for record in known.records.values().filter(|record| record.kind != Kind::Internal) {
            for layer in record.outputs.values().filter_map(|chain| chain.last()) {
                let made = (record.created, record.description.clone());
                // The first who made it, whoever came to the same later.
                let own = found.entry(layer.key.pin().clone()).or_insert_with(|| made.clone());
                if made < *own {
                    *own = made;
                }
            }
        }
        found
    }

    /// Notes that a layer was packed in a form; the archive is kept as long as the layer is.
    pub fn note_packed(&self, layer: &LayerKey, form: &str, packed: Packed) -> Result<()> {
        let name = packed_name(layer, form);
        let (key, row) = (name.clone(), packed.clone());
        self.store.write_blocking(move |tx| {
            let kept = KeptRow { layers: Vec::new(), blobs: vec![row.blob.digest.clone()] };
            tx.put(&KEPT, &archive_keeper(&key), &kept)?;
            tx.put(&PACKED, &key, &row)
        })?;
        self.known().packed.insert(name, packed);
        Ok(())
    }

    /// What was fetched of an address.
    pub fn page(&self, address: &Digest) -> Option<Page> {
        self.known().pages.get(address.as_str()).cloned()
    }

    /// Notes what was fetched of an address.
    pub async fn note_page(&self, address: &Digest, page: Page) -> Result<()> {
        let (key, row) = (address.as_str().to_owned(), page.clone());
        self.store.write(move |tx| tx.put(&PAGES, &key, &row)).await?;
        self.known().pages.insert(address.as_str().to_owned(), page);
        Ok(())
    }

    /// All records with their keys, and whether a build uses them.
    pub fn all(&self) -> Vec<(Digest, Arc<Record>, bool)> {
        let known = self.known();
        let is_busy = |key: &Digest| known.busy.contains_key(key);
        known.records.iter().map(|(key, record)| (key.clone(), record.clone(), is_busy(key))).collect()
    }

    /// Removes records, but for those that a build uses; answers which are gone. Layers that no record has any more go with
    /// the next sweep.
    pub fn remove(&self, keys: &[Digest]) -> Result<Vec<Digest>> {
        let (gone, aliases, packed, pages) = {
            let mut known = self.known();
            let gone: Vec<Digest> = keys.iter().filter(|key| !known.busy.contains_key(key)).cloned().collect();
            for key in &gone {
                known.records.remove(key);
            }
            let Known { records, aliases, packed, pages, .. } = &mut *known;
            let dangling: Vec<Digest> =
                aliases.iter().filter(|(_, own)| !records.contains_key(own)).map(|(alias, _)| alias.clone()).collect();
            dangling.iter().for_each(|alias| _ = aliases.remove(alias));
            let chains = records.values().flat_map(|record| record.outputs.values());
            let live: HashSet<String> =
                chains.flat_map(|chain| chain.iter().map(|layer| layer.key.pin().hex().to_owned())).collect();
            let digits = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
            let lost: Vec<String> = pages
                .iter()
                .filter(|(_, page)| !records.contains_key(&page.record))
                .map(|(address, _)| address.clone())
                .collect();
            lost.iter().for_each(|address| _ = pages.remove(address));
            let unused: Vec<String> = packed.keys().filter(|name| !live.contains(&digits(name))).cloned().collect();
            unused.iter().for_each(|name| _ = packed.remove(name));
            (gone, dangling, unused, lost)
        };
        let removed = gone.clone();
        self.store.write_blocking(move |tx: &mut WriteTx<'_, '_>| {
            for key in &removed {
                tx.delete(&RECORDS, key.as_str())?;
                tx.delete(&KEPT, &keeper(key))?;
            }
            pages.iter().try_for_each(|address| tx.delete(&PAGES, address).map(drop))?;
            aliases.iter().try_for_each(|alias| tx.delete(&ALIASES, alias.as_str()).map(drop))?;
            packed.iter().try_for_each(|name| {
                tx.delete(&KEPT, &archive_keeper(name))?;
                tx.delete(&PACKED, name).map(drop)
            })
        })?;
        Ok(gone)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

/// See [`Records::busy`].
pub struct Busy {
    records: Arc<Records>,
    key: Digest,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut known = self.records.known();
        if let Some(count) = known.busy.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                known.busy.remove(&self.key);
            }
        }
    }
}
