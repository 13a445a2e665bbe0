//! What the cache takes, and how rules free it.

use build::policy::Settings;
use build::usage::Wanted;
use serde_json::json;

use crate::place::Place;

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_the_configuration_free_the_cache() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.layer(&Default::default(), name, |root| std::fs::write(root.join(name), vec![7; 1 << 20]).unwrap());
    }
    let builder = place.builder.clone();
    let root = place.root();
    let collect = move |settings: serde_json::Value| {
        let (builder, root) = (builder.clone(), root.clone());
        tokio::task::spawn_blocking(move || {
            builder.replace_settings(Settings::parse(&settings).unwrap());
            builder.collect(&root).unwrap();
            builder.entries().len()
        })
    };
    let rule = |rule: serde_json::Value| json!({"gc": {"policy": [rule]}});
    assert_eq!(collect(json!({"gc": {"enabled": false}})).await.unwrap(), 3);
    // There is room.
    assert_eq!(collect(rule(json!({"maxUsedSpace": "1GB"}))).await.unwrap(), 3);
    // None of it was used lately, and none is of that kind.
    assert_eq!(collect(rule(json!({"filter": ["type=exec.cachemount"]}))).await.unwrap(), 3);
    assert_eq!(collect(rule(json!({"filter": ["unused-for=1000000h"]}))).await.unwrap(), 3);
    assert_eq!(collect(rule(json!({"keepStorage": "2500KB"}))).await.unwrap(), 2);
    assert_eq!(collect(rule(json!({"filter": ["type==regular", "unused-for=24h"]}))).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_freed() {
    let place = Place::new();
    place.layer(&Default::default(), "one", |root| std::fs::write(root.join("one"), vec![7; 3 << 20]).unwrap());
    let builder = place.builder.clone();
    let freed = tokio::task::spawn_blocking(move || {
        let size: u64 = builder.entries().iter().map(|entry| entry.record.size).sum();
        let pruned = builder.prune(&Wanted { filter: &|_| true, all: true, keep: 0 }).unwrap();
        (size, pruned.bytes, pruned.ids.len(), builder.entries().len())
    });
    let (size, bytes, ids, left) = freed.await.unwrap();
    assert!(size >= 3 << 20);
    assert_eq!((bytes, ids, left), (size, 1, 0));
}
